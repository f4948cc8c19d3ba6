"""GGUF files, llama.cpp's format of one quantised model in one file, turned into ordinary Hugging Face directories.

transformers' own loader dequantises the weights, by the package gguf; nothing else of a run needs that package. What
the file states of tokens, chat template and shape is kept or refused, before the weights are touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.config.errors import PolicyError
from components.config.paths import user_path
from components.config.sections import PolicyConfig
from components.policy.files import require_format
from components.policy.gguf_files.header import Header, read
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["convert", "without_weights"]

LINK = "model.gguf"
PARTS = 5  # of the work: header, config, tokenizer, weights, files


def convert(path: Path, target: Path, config: PolicyConfig, progress: Progress = silent) -> Path:
    """Writes the model in a GGUF file to the new directory `target`, with fp32 weights as safetensors.

    Args:
        path: the file. Its tokenizer is the one inside it, unless `config.model` names its folder or package and a
            tokenizer lies beside it. A config.json beside it has no say.
        target: takes four bytes a weight.
        config: the policy's section.
        progress: called with the number of parts done.

    Raises:
        PolicyError: gguf is missing, no prompt format is given where there is no chat template, or the file is no
            whole model of a kind that can be converted, states what a Hugging Face directory would not hold, or is
            too large for memory or disk.
    """
    from components.policy.gguf_files import room, settings
    from components.policy.pretrained import skeleton

    progress(0, PARTS)
    header = read(path)
    target.mkdir()
    room.check(header, target)
    progress(1, PARTS)
    model_config = settings.config_of(header)
    settings.check_tensors(header, skeleton(model_config))
    model_config.save_pretrained(target)
    progress(2, PARTS)
    named_itself = user_path(str(config.model), "policy.model", PolicyError) == path
    _put_tokenizer(header, target, config, named_itself)
    progress(3, PARTS)
    model = _load(header, model_config, lambda done: progress(3, PARTS, tensors=done))
    progress(4, PARTS)
    model.generation_config = settings.generation_config_of(header, None if named_itself else path.parent)
    model.save_pretrained(target)
    progress(PARTS, PARTS)
    return target


def without_weights(path: Path) -> PreTrainedModel:
    """The model in a GGUF file on the meta device. Raises PolicyError as `convert` for what its header tells."""
    from components.policy.gguf_files import settings
    from components.policy.pretrained import skeleton

    return skeleton(settings.config_of(read(path)))


def _put_tokenizer(header: Header, target: Path, config: PolicyConfig, named_itself: bool) -> None:
    from components.policy.gguf_files import backends, tokenizer

    source = header.path.parent
    if not named_itself and tokenizer.lies_beside(source):
        found: PreTrainedTokenizerBase = tokenizer.take(header, source, target)
    else:
        found = tokenizer.build(header, target)
    require_format(found, config)
    if found.chat_template:
        tokenizer.check_template(found, header)
    if found.eos_token_id is None and not header.ends():
        raise header.error(f"names no EOS token, so no response could end. {backends.ADVICE}")


def _load(header: Header, config: PreTrainedConfig, done: Callable[[int], None]) -> PreTrainedModel:
    """The model with dequantised weights, free of the mark that would keep it from being saved."""
    import torch

    from components.policy.library import AutoModelForCausalLM
    from components.policy.pretrained import skeleton

    with _counted(done), tempfile.TemporaryDirectory() as folder:  # with nothing else in it that the loader might take
        (Path(folder) / LINK).symlink_to(header.path.resolve())
        try:
            loaded, report = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=LINK, config=config, dtype=torch.float32, output_loading_info=True
            )
        except (ValueError, KeyError, RuntimeError, OSError) as error:
            raise header.error(f"cannot be loaded: {error}") from error
    if missing := sorted(report["missing_keys"]):  # the library fills them with random numbers
        raise header.error(f"left {len(missing)} weights unset, {missing[0]} among them. Use another file.")
    if broken := sorted(name for name, weight in loaded.state_dict().items() if not weight.isfinite().all()):
        raise header.error(
            f"holds NaN or infinite numbers in {len(broken)} weights, {broken[0]} among them. It is damaged; fetch it "
            "again."
        )
    model = skeleton(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    return model


@contextmanager
def _counted(done: Callable[[int], None]) -> Iterator[None]:
    """Has the loader count the tensors for the run's progress, in place of a bar of its own, which has no switch."""
    from transformers import modeling_gguf_pytorch_utils as loader

    def count(tensors: Iterable[Any], **_: object) -> Iterator[Any]:
        for number, tensor in enumerate(tensors):
            done(number)
            yield tensor

    bar = loader.tqdm
    loader.tqdm = count
    try:
        yield
    finally:
        loader.tqdm = bar
