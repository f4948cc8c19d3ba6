"""Tiny models with random weights of the architectures that transformers has, and what each one's cache is good for."""

from __future__ import annotations

from typing import Any

from support.models.words import SHAPE

COMMON = {**SHAPE, "head_dim": 4, "sliding_window": 4}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
ROUTED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
LATENT |= {"num_key_value_heads": 4}
LINEAR: dict[str, Any] = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 4}
LINEAR |= {"linear_value_head_dim": 4, "layer_types": ["linear_attention", "full_attention"]}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4}
MAMBA2 = {"num_heads": 4, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 4}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
ZAMBA2: dict[str, Any] = {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"]}
ZAMBA2 |= {"mamba_d_state": 4, "mamba_ngroups": 1, "n_mamba_heads": 4, "mamba_headdim": 8, "chunk_size": 4}
NEMOTRON: dict[str, Any] = {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1}
NEMOTRON |= {"chunk_size": 4, "layers_block_type": ["mamba", "attention"]}

PLAIN = (
    *("llama", "qwen2", "qwen3", "mistral", "ministral", "gemma", "gemma2", "gemma3_text", "phi"),
    *("phi3", "falcon", "bloom", "mpt", "opt", "gpt2", "gpt_neox", "gpt_bigcode", "granite"),
    *("cohere", "cohere2", "olmo2", "olmo3", "stablelm", "starcoder2", "smollm3", "exaone4", "nemotron"),
    *("glm4", "arcee", "seed_oss", "diffllama", "mixtral", "phimoe", "granitemoe", "olmoe", "jetmoe"),
)
# By what `start` must find: shared, equal or none for the cache, refused for what would go wrong even without one.
EXPECTED: dict[str, dict[str, dict[str, Any]]] = {
    "shared": {
        **{name: {} for name in PLAIN},
        "gptj": {"rotary_dim": 4},
        "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4, "num_heads": 4},
        "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 16},
        "qwen3_moe": MOE,
        "glm4_moe": ROUTED,
        "deepseek_v3": {**ROUTED, **LATENT, "first_k_dense_replace": 1},
        "gpt_oss": {"num_local_experts": 4},
        "llama4_text": {"num_local_experts": 4, "intermediate_size_mlp": 32},
    },
    "equal": {
        "mamba": {},
        "falcon_mamba": {},
        "mamba2": MAMBA2,
        "bamba": {**MAMBA, "attn_layer_indices": [1]},
        "falcon_h1": {**MAMBA, "mamba_d_ssm": 32},
        "granitemoehybrid": {
            **MAMBA,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 16,
        },
        "jamba": {**JAMBA, "num_experts": 4, "mamba_d_state": 4, "use_mamba_kernels": False},
        "zamba2": ZAMBA2,
        "nemotron_h": NEMOTRON,
        "lfm2": {"layer_types": ["conv", "full_attention"]},
        "lfm2_moe": {"layer_types": ["conv", "full_attention"], **MOE, "num_dense_layers": 1},
        "qwen3_5_text": LINEAR,
        "qwen3_next": {**LINEAR, **MOE, "shared_expert_intermediate_size": 16},
        "olmo_hybrid": LINEAR,
    },
    "none": {
        "minimax": {"layer_types": ["linear_attention", "full_attention"], "num_local_experts": 4},
        "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 4, "lru_width": 16},
        "openai-gpt": {},
    },
    "refused": {
        "rwkv": {},  # halves its weights when it runs
        "bert": {},  # looks ahead
        "modernbert-decoder": {},  # a head of two layers
    },
}
KINDS = {name: kind for kind, names in EXPECTED.items() for name in names}


def make(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A causal language model of the architecture, in eval mode and fp32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.for_model(name)
    common = {key: value for key, value in COMMON.items() if key in known.to_dict() or key in known.attribute_map}
    config = AutoConfig.for_model(name, **{**common, **EXPECTED[KINDS[name]][name], **changes})
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()
