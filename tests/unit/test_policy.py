"""Policies: prompts to token ids, directories in and out, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.policy import model as policies
from components.policy.model import check_lengths, copy_files, fetch, load, save
from components.policy.precision import pick_precision

BOS, EOS, PAD, UNK, USER, END = range(6)  # of the tokenizers in conftest.py; word w7 has id 7
CHAT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %} user: {{ m['content'] }} {{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %} w6{% endif %}"
)
CHAT_IDS = [BOS, USER, 7, 8, EOS, 6]


def prompt(text="w7 w8", *turns, id="p"):
    """A prompt of one user turn, after `turns`, which are (role, content)."""
    messages = (*turns, ("user", text))
    return Prompt(id, tuple({"role": role, "content": content} for role, content in messages))


@pytest.fixture
def folder(tmp_path, make_model, make_tokenizer):
    """A Llama's directory with a chat template."""
    directory = tmp_path / "model"
    make_model().save_pretrained(directory)
    make_tokenizer(CHAT).save_pretrained(directory)
    return directory


@pytest.fixture
def retokenize(folder, make_tokenizer):
    """Gives the directory another tokenizer."""

    def write(*args, **kwargs):
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        make_tokenizer(*args, **kwargs).save_pretrained(folder)
        return folder

    return write


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def weights(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def formatted(prompt_format="{prompt}"):
    return PolicyConfig(prompt_format=prompt_format)


# Prompts to token ids


@pytest.mark.parametrize("around", [None, "<s> $A", "<s> $A </s>"])
def test_a_chat_template_is_all_there_is(retokenize, around):
    """The template holds BOS already, and what the tokenizer would put around a text stays away."""
    policy = load(retokenize(CHAT, around=around), PolicyConfig())
    assert policy.encode(prompt()) == CHAT_IDS


def test_a_template_without_bos_gets_none(retokenize):
    policy = load(retokenize("{{ messages[0]['content'] }}", around="<s> $A"), PolicyConfig())
    assert policy.encode(prompt()) == [7, 8]


def test_several_turns(folder):
    turns = (("user", "w9"), ("assistant", "w10"))
    expected = [BOS, USER, 9, EOS, USER, 10, EOS, USER, 7, 8, EOS, 6]
    assert load(folder, PolicyConfig()).encode(prompt("w7 w8", *turns)) == expected


def test_a_turn_that_the_template_refuses(folder):
    with pytest.raises(PolicyError, match=r"prompt 'p'.* refuses its turns \(system, user\): no system turn"):
        load(folder, PolicyConfig()).encode(prompt("w7", ("system", "w9")))


def test_a_system_turn_that_the_template_takes(retokenize):
    template = "{% for m in messages %}{% if m['role'] == 'system' %}w20 {% endif %}{{ m['content'] }} {% endfor %}"
    assert load(retokenize(template), PolicyConfig()).encode(prompt("w7", ("system", "w9"))) == [20, 9, 7]


@pytest.mark.parametrize(
    ("around", "prompt_format", "expected"),
    [
        (None, "{prompt}", [7, 8]),
        (None, "<s> user: {prompt} w9", [BOS, USER, 7, 8, 9]),
        ("<s> $A", "{prompt}", [BOS, 7, 8]),
        ("<s> $A </s>", "{prompt} w9", [BOS, 7, 8, 9]),  # no EOS before the response
        ("$A </s>", "{prompt}", [7, 8]),
        ("<s> $A", "<s> {prompt}", [BOS, 7, 8]),  # BOS once, from either
        ("<s> $A </s>", "{prompt} </s>", [BOS, 7, 8, EOS]),  # what the user wrote stays
    ],
)
def test_prompt_format(retokenize, around, prompt_format, expected):
    policy = load(retokenize(around=around), formatted(prompt_format))
    assert policy.encode(prompt()) == expected


def test_braces_in_a_prompt_stay(retokenize):
    policy = load(retokenize(), formatted("w9 {prompt}"))
    assert policy.encode(prompt("w7 {x} w8")) == [9, 7, UNK, 8]


def test_several_messages_need_a_template(retokenize):
    policy = load(retokenize(), formatted())
    with pytest.raises(PolicyError, match=r"prompt 'p': 2 messages need a chat template"):
        policy.encode(prompt("w7", ("system", "w9")))


def test_decode_removes_special_tokens_and_nothing_else(retokenize, folder):
    edit(retokenize(CHAT) / "tokenizer_config.json", clean_up_tokenization_spaces=True)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["."] = vocabulary.pop("w59")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(folder, PolicyConfig()).decode([[7, 59, 8, EOS], [], [BOS, PAD]]) == ["w7 . w8", "", ""]


# Finding a model


def test_fetch_takes_a_directory(folder, monkeypatch):
    assert fetch(PolicyConfig(model=str(folder))) == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert fetch(PolicyConfig(model="~/model")) == folder


@pytest.mark.parametrize(
    ("name", "reason"),
    [(name, "Repo id must") for name in ("/no/such/directory", "./none", "~/none", "a/b/c", "no such")]
    + [(name, "outgoing traffic has been disabled") for name in ("nobody/none", "none")],
)
def test_fetch_refuses_what_is_not_there(name, reason, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PolicyError, match=rf"policy\.model: .* is neither a directory here nor a model.*{reason}"):
        fetch(PolicyConfig(model=name))


def test_fetch_says_so_when_the_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(PolicyError, match=r"refused\)\. Check the path or id, policy\.revision, the network"):
        fetch(PolicyConfig(model="nobody/none", revision="main"))


def test_fetch_says_so_when_the_proxy_cannot_be_reached(monkeypatch):
    from huggingface_hub import close_session

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    close_session()  # the next one reads the environment
    with pytest.raises(PolicyError, match="Check the path or id"):
        fetch(PolicyConfig(model="nobody/none"))
    close_session()


def test_fetch_refuses_pickled_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(PolicyError, match=r"no safetensors weights.*pickled weights \(\.bin\) are not loaded"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_another_tools_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "optimizer.safetensors")
    with pytest.raises(PolicyError, match="no safetensors weights"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_an_adapter(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(PolicyError, match=r"^policy\.model: .* holds an adapter\. Merge it into its model"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_a_directory_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(PolicyError, match=r"no config\.json"):
        fetch(PolicyConfig(model=str(folder)))


def test_fetch_refuses_weights_in_two_forms(folder, make_model):
    make_model(seed=1).save_pretrained(folder / "sharded", max_shard_size="10KB")
    for file in (folder / "sharded").glob("model*"):
        file.rename(folder / file.name)
    with pytest.raises(PolicyError, match=r"holds weights twice.*Remove the stale ones"):
        fetch(PolicyConfig(model=str(folder)))


# Loading


def test_load_gives_fp32_weights_in_eval_mode(folder, make_model):
    make_model().to(torch.bfloat16).save_pretrained(folder)
    policy = load(folder, PolicyConfig(), precision="bf16")
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert not policy.model.training
    assert (policy.precision, policy.folder, policy.pad_id) == ("bf16", folder, PAD)


def test_eos_ids_come_from_generation_config_and_tokenizer(folder):
    edit(folder / "generation_config.json", eos_token_id=[9, 11])
    assert load(folder, PolicyConfig()).eos_ids == (EOS, 9, 11)


def test_pad_falls_back_to_eos(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load(folder, PolicyConfig()).pad_id == EOS


def test_no_eos_anywhere(retokenize, folder):
    retokenize("{{ messages[0]['content'] }}", eos_token=None)
    for name in ("config.json", "generation_config.json"):
        edit(folder / name, eos_token_id=None)
    with pytest.raises(PolicyError, match=r"names no EOS token.*Set eos_token_id in generation_config\.json"):
        load(folder, PolicyConfig())


def test_no_template_and_no_format(retokenize):
    with pytest.raises(PolicyError, match=r"policy\.prompt_format: is required"):
        load(retokenize(), PolicyConfig())


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_is_refused_unless_allowed(folder, file):
    edit(folder / file, auto_map={"AutoModelForCausalLM": "modeling.Model", "AutoTokenizer": ["modeling.Words", None]})
    (folder / "modeling.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises(PolicyError, match=rf"{file} names code of its own.*policy\.trust_remote_code: true"):
        load(folder, PolicyConfig())


def test_code_runs_when_allowed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", sys.path[:])
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Mine"})
    (folder / "modeling.py").write_text(
        "from transformers import LlamaForCausalLM\nclass Mine(LlamaForCausalLM): pass\n"
    )
    assert type(load(folder, PolicyConfig(trust_remote_code=True)).model).__name__ == "Mine"


def test_missing_weights_are_not_made_up(folder, make_model):
    make_model().base_model.save_pretrained(folder)  # no head
    with pytest.raises(PolicyError, match=r"lacks 1 weights of a LlamaForCausalLM, lm_head\.weight among them"):
        load(folder, PolicyConfig())


def test_tied_weights_are_not_missing(folder, make_model):
    make_model("qwen2").save_pretrained(folder)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    assert load(folder, PolicyConfig()).model.config.tie_word_embeddings


def damage(folder, how):
    file = folder / "model.safetensors"
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif how == "other shapes":
        edit(folder / "config.json", hidden_size=32)
    elif how == "no shard":
        (folder / "model.safetensors").unlink()
        edit_index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(edit_index))
    elif how == "config":
        (folder / "config.json").write_text("{")
    elif how == "model type":
        edit(folder / "config.json", model_type="unheard-of")
    elif how == "tokenizer":
        (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize("how", ["truncated", "other shapes", "no shard", "config", "model type", "tokenizer"])
def test_damaged_directories(folder, how):
    damage(folder, how)
    with pytest.raises(PolicyError, match=r"policy\.model: .* cannot be loaded"):
        load(folder, PolicyConfig(model="mine"))


# Copying and saving


def test_copy_leaves_training_behind(folder, tmp_path):
    strangers = ["optimizer.pt", "optimizer.safetensors", "scheduler.pt", "trainer_state.json", "eval_results.json"]
    for name in (*strangers, "pytorch_model.bin", "modeling.py"):
        (folder / name).write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ bos_token }}")
    names = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
    }

    def copied(name, **options):
        target = copy_files(folder, tmp_path / name, **options)
        files = [file for file in target.rglob("*") if file.is_file()]
        assert all(file.read_bytes() == (folder / file.relative_to(target)).read_bytes() for file in files)
        return {str(file.relative_to(target)) for file in files}

    assert copied("plain") == names | {"model.safetensors"}
    assert copied("code", code=True) == names | {"model.safetensors", "modeling.py"}
    assert copied("weightless", weights=False) == names


def test_save_and_load_is_a_round_trip(folder, tmp_path):
    edit(folder / "generation_config.json", eos_token_id=[9, 11])
    (folder / "vocab.txt").write_bytes(b"any\r\nbytes \xff")
    policy = load(folder, PolicyConfig())
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(1e-3)
    target = save(policy, tmp_path / "saved")
    again = load(target, PolicyConfig())
    assert_same_weights(weights(again), weights(policy))
    assert again.eos_ids == policy.eos_ids == (EOS, 9, 11)
    assert again.encode(prompt()) == CHAT_IDS
    unchanged = [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "vocab.txt",
        "generation_config.json",
    ]
    for name in unchanged:
        assert (target / name).read_bytes() == (folder / name).read_bytes()
    assert_same_weights(weights(load(save(again, tmp_path / "twice"), PolicyConfig())), weights(policy))


def test_save_survives_contradictory_generation_defaults(folder, tmp_path):
    """A temperature without do_sample, as many published models have it, is refused by `save_pretrained`."""
    edit(folder / "generation_config.json", temperature=0.6, top_p=0.9)
    target = save(load(folder, PolicyConfig()), tmp_path / "saved")
    assert (target / "generation_config.json").read_bytes() == (folder / "generation_config.json").read_bytes()


def shard(policy, directory, size="10KB"):
    policy.model.save_pretrained(directory, max_shard_size=size)
    assert len(list(directory.glob("model-*.safetensors"))) > 1


def test_shards_load_and_copy(folder, tmp_path):
    policy = load(folder, PolicyConfig())
    (folder / "model.safetensors").unlink()
    shard(policy, folder)
    target = copy_files(fetch(PolicyConfig(model=str(folder))), tmp_path / "copy")
    assert_same_weights(weights(load(target, PolicyConfig())), weights(policy))


def test_save_over_other_shards_leaves_no_stale_weights(folder, tmp_path):
    policy = load(folder, PolicyConfig())
    target = copy_files(folder, tmp_path / "target")
    with torch.no_grad():
        policy.model.lm_head.weight.zero_()
    (target / "model.safetensors").unlink()
    shard(policy, target)
    save(policy, target)
    assert [file.name for file in target.glob("model*")] == ["model.safetensors"]
    assert_same_weights(weights(load(fetch(PolicyConfig(model=str(target))), PolicyConfig())), weights(policy))


def test_save_onto_its_own_source_is_refused_before_anything_is_lost(folder):
    policy = load(folder, PolicyConfig())
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(shutil.SameFileError):
        save(policy, folder)
    assert (folder / "model.safetensors").read_bytes() == before


# Lengths


def lengths(policy, *texts, tokens=10, new=8):
    """Templates add four tokens: BOS, `user:`, EOS and `w6`."""
    prompts = [prompt(text, id=f"p{i}") for i, text in enumerate(texts)]
    check_lengths(policy, prompts, max_prompt_tokens=tokens, max_new_tokens=new)


def test_prompts_that_fit(folder):
    lengths(load(folder, PolicyConfig()), "w7 w7", "w7 w7 w7 w7 w7 w7", new=54)


def test_prompts_that_are_too_long(folder):
    message = r"policy\.max_prompt_tokens: 2 of 3 prompts are longer than 10 tokens; the longest, 'p2', has 12"
    with pytest.raises(PolicyError, match=message):
        lengths(load(folder, PolicyConfig()), "w7 " * 7, "w7", "w7 " * 8)


def test_responses_beyond_the_models_positions(folder):
    with pytest.raises(PolicyError, match=r"\('p0', 10 tokens\) exceed the model's 64 positions. Use 54 or fewer"):
        lengths(load(folder, PolicyConfig()), "w7 " * 6, new=55)
    with pytest.raises(PolicyError, match=r"\('p0', 64 tokens\) exceed the model's 64 positions. Remove prompts"):
        lengths(load(folder, PolicyConfig()), "w7 " * 60, tokens=100, new=1)


def test_positions_of_gpt2(folder, make_model):
    make_model("gpt2").save_pretrained(folder)
    with pytest.raises(PolicyError, match="exceed the model's 64 positions"):
        lengths(load(folder, PolicyConfig()), "w7 " * 6, new=55)


def test_prompts_without_a_token(retokenize):
    with pytest.raises(PolicyError, match="prompt 'p1' has no tokens"):
        lengths(load(retokenize(), formatted()), "w7", " ")


def test_tokenizer_larger_than_the_embedding(retokenize):
    with pytest.raises(PolicyError, match="the tokenizer has 61 tokens, the model's embedding only 60"):
        lengths(load(retokenize(CHAT, size=61), PolicyConfig()), "w7")


# Precision


def test_precision(folder, make_model, make_policy, monkeypatch):
    policy = load(folder, PolicyConfig())
    assert [pick_precision(policy, setting) for setting in ("fp32", "bf16", "auto")] == ["fp32", "bf16", "fp32"]
    small = make_policy(make_model("gpt2", max_position_embeddings=20))
    before = weights(small)
    assert pick_precision(small, "probe") in ("fp32", "bf16")
    assert_same_weights(weights(small), before)
    assert all(p.grad is None for p in small.model.parameters())


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_follows_the_precision(make_policy, precision, dtype):
    policy = make_policy(precision=precision)
    with policy.autocast():
        assert policy.model.lm_head(torch.ones(1, 16)).dtype == dtype
    assert policies.best_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
