"""One run of WindFlow as a newcomer starts it, looked at from all sides; and configs and prompts that cannot be run."""

import json
import re
import shlex
from types import SimpleNamespace

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from components.reporting import report
from components.store import open_store
from support.flows.flow_home import card_content
from support.flows.history import COLUMNS, COUNTS, NOT_ASKED_FOR, TEXTS
from support.flows.wind_runs import FLOW, NOBODY, SMOKE, shell
from support.hub import Account
from support.hub_server import serving
from support.notebooks import executed

# Of smoke.yaml: iterations, shards, prompts per iteration, responses per prompt, tokens per response.
T, SHARDS, N, K, LONGEST = 2, 2, 16, 4, 8


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Looks like a checkout of the repository, so that printed commands can be run as they are."""
    home = tmp_path_factory.mktemp("home")
    (home / ".metaflow").mkdir()
    (home / "flows").symlink_to(FLOW.parent)
    return home


@pytest.fixture
def tmp_path(home):
    """All tests of this file share one datastore, and one run in it."""
    return home


@pytest.fixture
def smoke(once, run_flow, open_run):
    """The run, its id and its `stdout`, without what Metaflow puts before each line of a task."""
    if not once:
        result = run_flow(FLOW, config=SMOKE, env=NOBODY)
        once["pathspec"] = result.run.pathspec
        once["stdout"] = re.sub(r"^\S+ \S+ \[\S+ \(pid \d+\)\] ?", "", result.stdout, flags=re.MULTILINE)
    run = open_run(once["pathspec"])
    return SimpleNamespace(run=run, id=run.id, data=run.data, stdout=once["stdout"])


def printed_command(smoke, purpose):
    [line] = [line for line in smoke.stdout.splitlines() if line.startswith(purpose)]
    return shlex.split(line.removeprefix(purpose))


@pytest.mark.slow
def test_history_has_a_row_per_iteration(smoke):
    history = smoke.data.history
    assert list(history.columns) == COLUMNS
    assert list(history["iteration"]) == [1, 2]
    assert list(history["algorithm"]) == ["wind"] * T
    for name in COLUMNS:
        expected = "int64" if name in COUNTS else "float64"
        assert name in TEXTS or history[name].dtype == expected, name
    assert list(history.columns[history.isna().any()]) == NOT_ASKED_FOR
    assert (history["prompts"] == N).all()
    assert (history["responses"] == N * K).all()
    assert history["tokens_generated"].between(N * K, N * K * LONGEST).all()
    assert history["response_length"].between(1, LONGEST).all()
    for name in ("win_rate", "win_rate_low", "win_rate_high", "win_rate_previous", "reward_mean", "truncated"):
        assert history[name].between(0, 1).all(), name
    assert (history["win_rate_low"] <= history["win_rate"]).all()
    assert (history["win_rate"] <= history["win_rate_high"]).all()
    assert (history.filter(like="seconds_") > 0).all(axis=None)
    # In iteration 1, the policy before is the reference.
    assert history["win_rate_previous"][0] == history["win_rate"][0]


@pytest.mark.slow
def test_every_kind_of_step_has_its_tasks(smoke):
    body = {"plan": 1, "generate": SHARDS, "score": SHARDS, "gather": 1, "train": 1, "evaluate": 1}
    expected = {"start": 1, "end": 1} | {f"{kind}_{t}": n for t in (1, 2) for kind, n in body.items()}
    assert {step.id: len(list(step)) for step in smoke.run} == expected


@pytest.mark.slow
def test_shards_together_hold_an_iterations_rollout(smoke, tmp_path):
    store = open_store(smoke.data.store_root)
    assert store.root == str(tmp_path / "wind_store")
    for t in (1, 2):
        task = smoke.run[f"gather_{t}"].task
        folders = [store.get(m, tmp_path / f"rollout-{t}-{i}") for i, m in enumerate(task.data.rollouts)]
        assert len(folders) == SHARDS
        rollout = pd.concat([pq.read_table(folder / "rollout.parquet").to_pandas() for folder in folders])
        assert rollout["prompt_id"].nunique() == len(rollout) == N
        assert all(len(responses) == K for responses in rollout["responses"])
        tokens = sum(len(response) for responses in rollout["responses"] for response in responses)
        assert tokens == smoke.data.history["tokens_generated"][t - 1]


@pytest.mark.slow
def test_training_changes_the_weights_and_nothing_else_of_the_policy(smoke):
    policies = [smoke.run[name].task.data.policy for name in ("start", "train_1", "train_2")]
    assert smoke.data.policy == policies[-1]
    assert smoke.data.reference == policies[0]
    assert len({policy["model.safetensors"]["sha256"] for policy in policies}) == 3
    for policy in policies:
        assert all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in policy.values())
        for name in ("tokenizer.json", "chat_template.jinja"):
            assert policy[name] == policies[0][name]
    open_store(smoke.data.store_root).verify(smoke.data.policy)


@pytest.mark.slow
def test_the_terminal_shows_verdict_table_and_next_commands(smoke):
    last = smoke.data.history.iloc[-1]
    rate = f"the policy's win rate against the reference is {100 * last['win_rate']:.1f}%"
    assert f"After 2 iterations, {rate}" in smoke.stdout
    lines = smoke.stdout.splitlines()
    [head] = [i for i, line in enumerate(lines) if re.match(" *iteration +win rate", line)]
    for row, (_, figures) in zip(lines[head + 2 : head + 4], smoke.data.history.iterrows(), strict=True):
        cells = re.split("  +", row.strip())
        assert cells[:2] == [str(figures["iteration"]), f"{figures['win_rate']:.3f}"]
    commands = {"see the report": "python", "see every sample": "wind", "export the policy": "wind"}
    for purpose, first in {**commands, "read the history": "python"}.items():
        assert printed_command(smoke, purpose)[0] == first


def card(words, home):
    result = shell(["python", *words, "report.html"], home)
    assert result.returncode == 0, result.stderr
    return card_content((home / "report.html").read_text())


@pytest.mark.slow
def test_the_printed_card_command_shows_the_report(smoke, home):
    words = printed_command(smoke, "see the report")
    assert words[:4] == ["python", str(FLOW), "card", "view"]
    shown = card([words[1], "card", "get", *words[4:]], home)  # a test has no browser
    assert f"# WindFlow/{smoke.id}" in shown
    assert f"win rate against the reference is {100 * smoke.data.history['win_rate'].iloc[-1]:.1f}%" in shown
    assert "data:image/png;base64," in shown
    assert len(smoke.data.examples) == 8
    for example in smoke.data.examples:
        assert example["prompt"] in shown
        assert example["answer"] in shown
    assert "per_iteration" in shown


@pytest.mark.slow
def test_the_live_card_of_a_step_says_where_it_stands(smoke, home):
    [task] = smoke.run["train_2"]  # the kind that the preset names in `live_cards`
    shown = card([str(FLOW), "card", "get", f"{smoke.id}/train_2/{task.id}", "--id", "progress"], home)
    assert re.search(r"## iteration 2 of 2 \\u00b7 train \\u00b7 win rate 0\.\d+ .* after iteration 1", shown)


@pytest.mark.slow
def test_the_printed_history_command_shows_the_history(smoke, home):
    result = shell(printed_command(smoke, "read the history"), home)
    assert result.returncode == 0, result.stderr
    assert result.stdout == smoke.data.history.to_string() + "\n"


@pytest.mark.slow
def test_the_printed_export_command_writes_a_policy_that_loads_as_printed(smoke, home):
    result = shell(printed_command(smoke, "export the policy"), home)
    assert result.returncode == 0, result.stderr
    written = {path.name: path.stat().st_size for path in (home / "exported").iterdir()}
    assert written.pop("README.md") > 0
    assert written == {name: entry["size"] for name, entry in smoke.data.policy.items()}
    said, code = result.stdout.split("\n\n")
    assert said.startswith(f"The final policy of WindFlow/{smoke.id} is in exported.")
    answer = (
        "ids = tokenizer.apply_chat_template([{'role': 'user', 'content': 'sort'}], return_tensors='pt')\n"
        "print(model.generate(**ids, max_new_tokens=3, do_sample=False).shape[0])"
    )
    loaded = shell(["python", "-c", f"{code}\n{answer}"], home)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout == "1\n"


@pytest.mark.slow
def test_the_printed_samples_command_writes_every_response(smoke, home):
    words = printed_command(smoke, "see every sample")
    result = shell(words, home)
    assert result.returncode == 0, result.stderr
    page = (home / f"samples-{smoke.id}.html").read_text("utf-8")
    shown = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert [len(batch["texts"]) for batch in shown["trained"]["batches"]] == [N * K] * T
    rewards = [sum(batch["reward"]) / len(batch["reward"]) for batch in shown["held_out"]["batches"]]
    assert rewards == pytest.approx([smoke.data.reward_reference, *smoke.data.history["reward_mean"]], rel=1e-5)


@pytest.mark.slow
def test_unusable_prompts_stop_the_run_at_start(smoke, home, run_flow):
    model = open_store(smoke.data.store_root).get(smoke.data.policy, home / "model")
    prompts = home / "prompts.jsonl"
    prompts.write_text('{"prompt": "sort 2 1", "answer": "1 2"}\n{"answer": "3 4"}\n')
    config = {
        "policy": {"model": str(model)},
        "prompts": {"train": str(prompts)},
        "judge": {"name": "verifier", "function": "components.demo:score"},
    }
    result = run_flow(FLOW, config=config, status="failed")
    assert [step.id for step in result.run] == ["start"]
    log = result.stdout + result.stderr
    assert f"{prompts}: 1 of 2 lines cannot be used:" in log
    assert re.search("line 2: has neither `prompt` nor `messages`; its keys: answer", log)
    assert f"resume --origin-run-id {result.run.id}\n" in result.stderr


@pytest.mark.slow
def test_the_command_pushes_what_it_writes(smoke, home, monkeypatch):
    with serving() as hub:
        hub.accounts["hf_standinstandinstandin"] = Account("lab")
        settings = {"ENDPOINT": hub.address, "TOKEN": "hf_standinstandinstandin", "HUB_DISABLE_XET": "1"}
        for name, value in settings.items():
            monkeypatch.setenv(f"HF_{name}", value)
        result = shell(["wind", "export", smoke.run.pathspec, "pushed", "--push", "lab/aligned"], home)
        assert result.returncode == 0, result.stderr
        arrived = {k: v for k, v in hub.repositories["lab/aligned"].branches["main"].items() if k != ".gitattributes"}
    assert arrived == {path.name: path.read_bytes() for path in (home / "pushed").iterdir()}
    card = arrived["README.md"].decode()
    for row in report.summary_rows(smoke.data.history):
        assert f"| {' | '.join(row)} |" in card
    assert f"| `torch` | `{torch.__version__}` |" in card
    assert str(home) not in card
    assert "| `hardware` | `" in card
    assert "## Examples" not in card  # prompts may be private


@pytest.mark.slow
def test_the_notebook_reads_the_run(smoke, home, monkeypatch):
    pytest.importorskip("nbclient", reason="needs nbclient: pip install -r requirements-dev.txt")
    monkeypatch.setenv("MPLBACKEND", "agg")
    shown = executed(home)
    assert smoke.run.pathspec in shown["run"]
    assert f"{100 * smoke.data.history['win_rate'].iloc[-1]:.1f}%" in shown["verdict"]
    assert "image/png" in shown["chart"]
    for example in smoke.data.examples[:3]:
        assert example["prompt"] in shown["samples"]
        assert example["final_response"] in shown["samples"]
    assert "README.md" in shown["export"]
    assert "'name': 'stdout'" in shown["chat"]
