"""Which runs another can continue from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from components.comparison.arms import remember as remember_comparison
from components.config.errors import BlobError, ConfigError, StoreError
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from components.stages.handover import Started
from components.stages.origin import Origin
from components.stages.start_from import find, remember
from components.store.references import uses

CONFIG = """
policy: {model: base}
prompts: {train: prompts.jsonl}
judge: {name: verifier, function: "mine:score"}
"""


def config(text=""):
    return RunConfig.model_validate(parse(CONFIG + text))


@pytest.fixture
def origin(tmp_path):
    """A run whose artifacts all refer to one stored file."""
    with open_workspace(config(), str(tmp_path / "store"), "start") as work:
        file = work.keep("a", lambda path: path.write_text("a"))
    started = Started(policy=file, prompts=file, evaluated=file, reward=0.5, precision="fp32")
    kept = {"policy": file, "optimizer": file, "evaluated": file}
    values = config().model_dump()
    return Origin("WindFlow/1", values, work.store.root, started, **kept, history=None, iteration=2)


def check(origin, text="", store=None):
    with open_workspace(config(text), store or origin.store_root, "start") as work:
        origin.check(work)


def test_what_may_differ(origin):
    check(origin, "iterations: 7\nseed: 3\ngeneration: {responses: 4}\nalgorithm: {name: sppo}\ntraining: {epochs: 2}")


PLAIN = {"name": "verifier", "function": "mine:score"}
FASTER = {**PLAIN, "workers": 8, "timeout": 5, "files": ["a"]}


@pytest.mark.parametrize("judge", [lambda one: one, lambda one: {"name": "ensemble", "judges": [one]}])
def test_a_judge_may_become_faster(origin, judge):
    """Also in a run from before there were such settings; another form of calls is another judge."""
    earlier = replace(origin, config={**config().model_dump(), "judge": judge(PLAIN)})

    def check_with(one):
        ours = RunConfig.model_validate({**config().model_dump(), "judge": judge(one)})
        with open_workspace(ours, origin.store_root, "start") as work:
            earlier.check(work)

    check_with(FASTER)
    with pytest.raises(ConfigError, match=r"^judge: is .*'batch_size': 4.*, and was .*'batch_size': None"):
        check_with({**FASTER, "batch_size": 4})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generation: {temperature: 0.5}", "generation.temperature: is 0.5, and was 1.0 in WindFlow/1. "),
        ("evaluation: {responses: 3}", "evaluation.responses: is 3, and was 2 in WindFlow/1. "),
        (
            "training: {lora: {rank: 8}}",
            "training.lora: is {'rank': 8, 'alpha': 32, 'target_modules': 'all-linear'}, and was None in WindFlow/1. ",
        ),
        ("training: {optimizer: rmsprop}", "training.optimizer: is 'rmsprop', and was 'adamw' in WindFlow/1. "),
        (
            "algorithm: {name: jbond}",
            "algorithm.name: jbond continues with an anchor, and WindFlow/1 has none: it ran wind.",
        ),
    ],
)
def test_what_must_not(origin, text, message):
    with pytest.raises(ConfigError) as caught:
        check(origin, text)
    assert str(caught.value).startswith(message)


def test_an_adapter_goes_on_as_it_was(origin):
    origin = replace(origin, config=config("training: {lora: {rank: 8}}").model_dump())
    check(origin, "training: {lora: {rank: 8}, learning_rate: 1e-5}")
    for text, now in [("", "None"), ("training: {lora: {rank: 4}}", "{'rank': 4, ")]:
        with pytest.raises(ConfigError, match=rf"^training\.lora: is {now}.*, and was {{'rank': 8, .*in WindFlow/1\. "):
            check(origin, text)


def test_a_run_from_before_these_settings_had_their_defaults(origin):
    values = config().model_dump()
    del values["training"]["lora"], values["training"]["optimizer"], values["prompts"]["column"]
    origin = replace(origin, config=values)
    check(origin)
    with pytest.raises(ConfigError, match=r"^training\.optimizer: is 'rmsprop', and was 'adamw' in WindFlow/1\. "):
        check(origin, "training: {optimizer: rmsprop}")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("stop: [a]", r"^generation\.stop: is \['a'\], and was \[\] in"),
        ("top_k: 5", r"^generation\.top_k: is 5, and was None in"),
        ("min_p: 0.1", r"^generation\.min_p: is 0.1, and was 0.0 in"),
    ],
)
def test_a_run_from_before_there_were_stop_strings_and_filters(origin, settings, message):
    values = config().model_dump()
    for name in ("stop", "top_k", "min_p"):
        del values["generation"][name]
    for name in ("cut_thinking", "truncated_penalty"):
        del values["judge"][name]
    origin = replace(origin, config=values)
    check(origin)
    with pytest.raises(ConfigError, match=message):
        check(origin, f"generation: {{{settings}}}")


def test_a_judge_that_reads_other_texts_is_another_judge(origin):
    text = CONFIG.replace("name: verifier", "name: verifier, cut_thinking: true")
    changed = RunConfig.model_validate(parse(text))
    with open_workspace(changed, origin.store_root, "start") as work, pytest.raises(ConfigError, match=r"^judge: is "):
        origin.check(work)


def test_members_of_an_ensemble_had_their_defaults_too(origin):
    text = CONFIG.replace("{name: verifier", "{name: ensemble, judges: [{name: verifier").replace(
        'score"}', 'score"}]}'
    )
    now = RunConfig.model_validate(parse(text))
    values = now.model_dump()
    for section in (values["judge"], *values["judge"]["judges"]):
        for name in ("cut_thinking", "truncated_penalty"):
            del section[name]
    with open_workspace(now, origin.store_root, "start") as work:
        replace(origin, config=values).check(work)


@pytest.mark.parametrize(
    ("key", "value"),
    [("subset", "main"), ("evaluation_split", "test"), ("leave_out", ["image"]), ("train", ["a", "b"])],
)
def test_prompts_of_another_part_of_a_dataset(origin, key, value):
    values = config().model_dump()
    values["prompts"][key] = value
    with pytest.raises(ConfigError, match=rf"^prompts\.{key}: is .*, and was .* in WindFlow/1\. "):
        check(replace(origin, config=values))
    del values["prompts"][key]
    if key != "train":
        check(replace(origin, config=values))


def test_prompts_that_were_read_in_another_way(origin):
    values = config().model_dump()
    values["prompts"]["drop_longer"] = 99
    with pytest.raises(ConfigError, match=r"^prompts\.drop_longer: is None, and was 99 in WindFlow/1\. "):
        check(replace(origin, config=values))


def test_every_difference_is_named(origin):
    with pytest.raises(ConfigError) as caught:
        check(origin, "generation: {temperature: 0.5, top_p: 0.9}")
    keys = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["generation.temperature", "generation.top_p"]


def test_another_store(origin, tmp_path):
    message = (
        r"WindFlow/1 keeps its weights in \S+/store, this run in \S+/other, which lacks files of it\. Copy \S+/store "
    )
    with pytest.raises(ConfigError, match=message):
        check(origin, store=str(tmp_path / "other"))


def test_a_store_that_was_moved_or_copied_with_its_datastore(origin, tmp_path):
    """The run that continues stays there; nothing is read from the old place, and a lost file is named."""
    remembered = replace(origin, history=pd.DataFrame({"kl": [0.5]}))
    with open_workspace(config(), origin.store_root, "start") as work:
        remember(work, remembered)
    moved = tmp_path / "elsewhere" / "store"
    moved.parent.mkdir()
    Path(origin.store_root).rename(moved)
    for wanted in ("WindFlow/1", "latest"):
        with open_workspace(config(f"start_from: {wanted}\n"), str(moved), "start") as work:
            found = find(work)
            assert found is not None
            assert found.store_root == origin.store_root
            found.check(work)
    assert not Path(origin.store_root).exists()
    with open_workspace(config("start_from: latest\n"), str(moved), "start") as work:
        work.store.remove(origin.policy["a"]["sha256"])
        assert find(work) is None
        with pytest.raises(ConfigError, match=r"which lacks files of it\. Copy .*is missing"):
            remembered.check(work)


def test_a_file_that_is_gone(origin):
    with open_workspace(config(), origin.store_root, "start") as work:
        work.store.remove(origin.policy["a"]["sha256"])
        with pytest.raises(BlobError, match="is missing"):
            origin.check(work)


@pytest.mark.parametrize("name", ["", "WindFlow", "WindFlow/1/end", "/1", "the latest"])
def test_a_name_that_is_none(name):
    with pytest.raises(ConfigError, match=r"start_from: '.*' does not name a run. Write FLOW/RUN"):
        parse(CONFIG + f"start_from: {name!r}")


def test_comparisons_begin_alike():
    with pytest.raises(ConfigError, match="start_from: is not for comparisons"):
        parse(CONFIG + "start_from: WindFlow/1\ncompare: {arms: {wind: {}}}")


@pytest.mark.parametrize("wanted", ["WindFlow/9", "latest"])
def test_a_damaged_note_is_named(origin, wanted):
    with open_workspace(config(f"start_from: {wanted}\n"), origin.store_root, "start") as work:
        work.store.write_note("finished-WindFlow-9", "")
        with pytest.raises(StoreError, match="the note finished-WindFlow-9 cannot be read"):
            find(work)


def test_the_note_that_a_run_leaves_is_whole(origin):
    with open_workspace(config(), origin.store_root, "start") as work:
        remember(work, replace(origin, history=pd.DataFrame({"kl": [0.5]})))
        remember_comparison(work, "CompareFlow/3", origin.started, [origin.policy])
        assert set(uses(work.store)) >= {origin.policy["a"]["sha256"]}
