"""GGUF files whose metadata have types or values that nothing can be made of."""

from __future__ import annotations

import shutil

import pytest

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy.gguf_files import convert
from support.models.families import FAMILIES, make_tokenizer
from support.models.ggufs import byte_level, make_model, refusal, write

pytestmark = pytest.mark.thorough

TOKENIZER = "tokenizer.ggml."
NO_NUMBERS = ["x", [1], ["x"], float("nan"), float("inf")]
WRONG = {
    "llama.embedding_length": [2**31],
    "llama.attention.head_count_kv": [0],
    "llama.rope.freq_base": [*NO_NUMBERS, 0.0, -1.0],
    "llama.attention.layer_norm_rms_epsilon": [*NO_NUMBERS, -1.0],
    "general.type": [3, [1]],
    f"{TOKENIZER}model": [3, [1]],
    f"{TOKENIZER}pre": [3, [1], ["x"]],
    f"{TOKENIZER}tokens": [0, 1.5, True, "x", [1]],
    f"{TOKENIZER}token_type": [0, 1.5, True, "x", ["x"], [1.5]],
    f"{TOKENIZER}merges": [0, 1.5, True, "x", [1]],
    f"{TOKENIZER}scores": [0, True, "x", ["x"]],
    f"{TOKENIZER}bos_token_id": NO_NUMBERS,
    f"{TOKENIZER}eos_token_id": [*NO_NUMBERS, True, 1.5],
    f"{TOKENIZER}add_bos_token": ["x", 3, [1]],
    "tokenizer.chat_template": [3, 1.5, True, [1], ["x"], float("inf")],
}


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level(make_tokenizer(FAMILIES["llama3"]))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_field_is_refused_by_its_name(tmp_path, model, tokenizer, name, value):
    message = refusal(write(tmp_path / "tiny.gguf", model, {**tokenizer, name: value}))
    assert f"tiny.gguf states {name} = " in message
    assert message.endswith("which cannot be. Convert the original model anew.")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 3, "added_tokens": []}'])
def test_a_damaged_tokenizer_beside_a_file_is_refused(tmp_path, model, tokenizer, content):
    write(tmp_path / "tiny.gguf", model, tokenizer)
    make_tokenizer(FAMILIES["llama3"]).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(content)
    target = tmp_path / "policy"
    with pytest.raises(
        PolicyError, match=r"lies beside a tokenizer that cannot be loaded: .* Put its original tokenizer"
    ):
        convert(tmp_path / "tiny.gguf", target, PolicyConfig(model=str(tmp_path)))
    shutil.rmtree(target)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"eos_token_id": "x"}', "with eos_token_id 'x', no token"),
        ('{"eos_token_id": [2, 99999]}', "with eos_token_id 99999, no token"),
    ],
)
def test_a_damaged_generation_config_beside_a_file_is_refused(tmp_path, model, tokenizer, content, said):
    write(tmp_path / "tiny.gguf", model, tokenizer)
    make_tokenizer(FAMILIES["llama3"]).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(PolicyError, match=rf"beside a generation_config.json .*{said}.* Fix it or remove it"):
        convert(tmp_path / "tiny.gguf", tmp_path / "policy", PolicyConfig(model=str(tmp_path)))


@pytest.mark.parametrize("template", ["{{ messages[0] + 1 }}", "{{ 1 // 0 }}", "{{ messages[7].content.x }}"])
def test_a_template_that_fails_is_refused(tmp_path, model, tokenizer, template):
    message = refusal(write(tmp_path / "tiny.gguf", model, {**tokenizer, "tokenizer.chat_template": template}))
    assert "has a chat template that writes no prompt" in message
