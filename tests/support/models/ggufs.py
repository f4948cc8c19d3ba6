"""GGUF files of tiny models, written from their weights the way llama.cpp's converter does, by rules of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.policy.gguf_files import convert

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install -r requirements-gguf.txt")

# The file's names of what a layer holds.
DECODER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA2 = DECODER | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2 = {
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
}
SHAPE = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # wide, so that logits differ by several nats
}
OTHERS = {
    "gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4, "final_logit_softcapping": 5.0},
    "qwen3": {"head_dim": 32},  # not hidden size by heads
    "gpt2": {"n_inner": 96},
}


def make_model(architecture="llama", *, seed=0, **changes):
    """A model with random weights; norms and biases, which begin as ones and zeros, are random too."""
    settings = {**SHAPE, **OTHERS.get(architecture, {}), **changes}
    if architecture == "gpt2":
        del settings["num_key_value_heads"], settings["intermediate_size"]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def tensor_name(name, architecture):
    """The file's name of a parameter."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    _, _, layer, rest = module.split(".", 3)
    names = {"gemma2": GEMMA2, "gpt2": GPT2}.get(architecture, DECODER)
    return f"blk.{layer}.{names[rest]}.{kind}"


def tensor_of(name, weight, config):
    """A parameter as the file holds it."""
    weight = weight.detach().clone()
    if config.model_type == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        # The pairs that rotate lie side by side in the file, half a head apart in transformers.
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        weight = weight.reshape(heads, 2, -1, weight.shape[-1]).swapaxes(1, 2).reshape(weight.shape)
    if config.model_type == "gemma2" and "norm" in name:
        weight += 1
    if config.model_type == "gpt2" and ".c_" in name and weight.dim() == 2:
        weight = weight.T.contiguous()
    return weight.numpy()


def settings_of(config):
    """What a file of the model states of its shape."""
    architecture = config.model_type
    stated = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }
    if architecture == "gpt2":
        stated |= {"feed_forward_length": config.n_inner, "attention.layer_norm_epsilon": config.layer_norm_epsilon}
    else:
        stated |= {
            "feed_forward_length": config.intermediate_size,
            "attention.head_count_kv": config.num_key_value_heads,
            "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.freq_base": config.rope_parameters["rope_theta"],
        }
    if architecture in ("gemma2", "qwen3"):
        stated |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if architecture == "gemma2":
        stated |= {name: getattr(config, name) for name in ("attn_logit_softcapping", "final_logit_softcapping")}
        stated["attention.sliding_window"] = config.sliding_window
    return {f"{architecture}.{name}": value for name, value in stated.items()}


def byte_level(tokenizer, *, pre="gpt-2", **more):
    """What a file states of a byte-level BPE tokenizer: its special tokens are of type 3."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = {token["id"] for token in backend["added_tokens"]}
    roles = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "padding": tokenizer.pad_token_id}
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3 if i in special else 1 for i in range(len(tokens))],
        "merges": [" ".join(merge) for merge in backend["model"]["merges"]],
        **{f"{role}_token_id": i for role, i in roles.items() if i is not None},
        **more,
    }
    template = {"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {}
    return {f"tokenizer.ggml.{name}": value for name, value in fields.items()} | template


def write(path, model, fields=(), *, quantisation="F32", tensors=None):
    """Writes a model's file.

    Args:
        path: of the file.
        model: whose weights and shape it holds.
        fields: metadata, which replaces the model's own; None leaves a field out.
        quantisation: of all matrices; norms and biases are F32.
        tensors: by the file's names, which replace the model's or are more; None leaves a tensor out.
    """
    config = model.config
    given = {tensor_name(n, config.model_type): tensor_of(n, p, config) for n, p in model.named_parameters()}
    stated = {"general.architecture": config.model_type, "general.name": "tiny", **settings_of(config), **dict(fields)}
    writer = gguf.GGUFWriter(path, stated["general.architecture"])
    for name, value in stated.items():
        if value is not None and name != "general.architecture":
            _add(writer, name, value)
    for name, array in {**given, **(tensors or {})}.items():
        if array is None:
            continue
        kind = gguf.GGMLQuantizationType[quantisation if array.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def _add(writer, name, value):
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds.get(type(value), writer.add_array)(name, value)


def logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def directory_of(folder, fields, architecture="llama", *, prompt_format=None, **changes):
    """The directory that comes of a tiny model's file with such metadata."""
    file = write(folder / "tiny.gguf", make_model(architecture, **changes), fields)
    return convert(file, folder / "policy", PolicyConfig(model=str(file), prompt_format=prompt_format))


def prompt(text="Hi there"):
    return Prompt("p", ({"role": "user", "content": text},))


def refusal(file):
    """The message with which a file is refused."""
    with pytest.raises(PolicyError) as caught:
        convert(file, file.parent / "policy", PolicyConfig(model=str(file)))
    message = str(caught.value)
    assert message.startswith(f"policy.model: {file} ")
    return message


TEXTS = [
    "Hi there",
    "  two spaces, and 1234 + 56.7 = x_1?\n\n\tIt's",
    "naïve café — 東京 🙂 don't",
    "<|eot_id|> and <|im_start|>user <bos>",
    " ",
]
