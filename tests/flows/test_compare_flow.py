"""CompareFlow: one run that fails in one branch and is resumed, looked at from all sides."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from base import BadConfig
from components.samples.files import SamplesError, of_run
from components.store import open_store
from components.store.references import manifests
from support.flows.flow_home import card_content
from support.flows.wind_runs import FLOW as WIND_FLOW
from support.flows.wind_runs import INJECT, SMOKE, figures, shell

FLOW = WIND_FLOW.parent / "compare_flow.py"
CONFIG = yaml.safe_load((FLOW.parent / "configs" / "compare_smoke.yaml").read_text())
CONFIG["training"]["learning_rate"] = 1e-2  # shows after a few steps
T, SHARDS = 2, {"wind": 1, "jbond": 2}  # a shard of jbond runs no model
CONFIG["prompts"]["shards"] = SHARDS["wind"]
CONFIG["compare"]["arms"]["jbond"]["prompts"] = {"shards": SHARDS["jbond"]}
LAST = 3  # index of the branch that fails: jbond with seed 1


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Looks like a checkout of the repository, so that printed commands can be run as they are."""
    home = tmp_path_factory.mktemp("home")
    (home / ".metaflow").mkdir()
    (home / "flows").symlink_to(FLOW.parent)
    return home


@pytest.fixture
def tmp_path(home):
    """All tests of this file share one datastore."""
    return home


@pytest.fixture
def comparison(once, run_flow, open_run):
    """The run that failed, the one that continued with it, and what that one printed."""
    if not once:
        fault = {"FAIL_AT": f"train_2/{LAST}", "FAIL_HOW": "raise before"}
        failed = run_flow(FLOW, config=CONFIG, env=fault, status="failed", decospecs=[INJECT])
        once["said"] = failed.stderr
        once["failed"] = failed.run.pathspec
        resumed = run_flow(FLOW, resume=failed.run.id)
        once["run"] = resumed.run.pathspec
        once["stdout"] = re.sub(r"^\S+ \S+ \[\S+ \(pid \d+\)\] ?", "", resumed.stdout, flags=re.MULTILINE)
    run = open_run(once["run"])
    return SimpleNamespace(
        failed=open_run(once["failed"]), run=run, data=run.data, said=once["said"], stdout=once["stdout"]
    )


def tasks(run, chosen):
    """How many tasks of each step are as chosen."""
    counts = {step.id: sum(1 for task in step if chosen(task)) for step in run}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.slow
def test_a_resume_runs_only_what_is_missing(comparison):
    command = re.search(r"^  python (\S+) resume --origin-run-id (\S+)$", comparison.said, re.MULTILINE)
    assert command.groups() == (str(FLOW), comparison.failed.id)
    finished = tasks(comparison.failed, lambda task: task.successful)
    assert tasks(comparison.run, lambda task: "origin-task-id" in task.metadata_dict) == finished
    assert finished["branch"] == len(CONFIG["compare"]["seeds"]) * len(SHARDS)
    assert finished.get("train_2", 0) < finished["branch"]
    each = {"plan": 4, "generate": 6, "score": 6, "gather": 4, "train": 4, "evaluate": 4}
    everything = {f"{kind}_{t}": n for t in (1, 2) for kind, n in each.items()}
    assert tasks(comparison.run, lambda task: task.successful) == everything | {
        **{"start": 1, "branch": 4, "join": 1, "end": 1}
    }


def benchmark(home, output):
    """benchmarks/compare.py on the same config: what it prints, its table and its picture."""
    (home / "compare.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    script = FLOW.parents[1] / "benchmarks" / "compare.py"
    options = {"config": home / "compare.yaml", "folder": home / "kept", "output": output, "processes": 1}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    shown = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=True).stdout
    return shown, table(output / "comparison.csv"), (output / "comparison.png").read_bytes()


def table(path):
    texts = dict.fromkeys(["text_warnings", "warnings"], "")
    written = pd.read_csv(path).astype(dict.fromkeys(texts, object))
    return written.fillna(texts)  # an empty cell reads as a missing number


@pytest.mark.slow
def test_the_figures_are_those_of_the_benchmark_without_a_flow(comparison, home):
    shown, expected, picture = benchmark(home, home / "out")
    found = comparison.data.results
    assert list(found["arm"]) == ["wind"] * 4 + ["jbond"] * 4
    assert list(found["seed"]) == [0, 0, 1, 1] * 2
    assert list(found["samples"]) == [64, 128] * 2 + [63, 126] * 2
    assert found["kl"].nunique() == len(found)
    pd.testing.assert_frame_equal(
        figures(found).drop(columns="seconds"),
        figures(expected).drop(columns="seconds"),
        check_exact=True,
        check_dtype=False,
    )
    assert all(arm in shown for arm in SHARDS)
    assert picture.startswith(b"\x89PNG")
    # Nothing is left to do: the second time the branches come from the folder, wall times and all.
    assert expected.equals(benchmark(home, home / "again")[1])


@pytest.mark.slow
def test_all_branches_start_from_one_policy_and_end_with_their_own(comparison):
    store = open_store(comparison.data.store_root)
    assert comparison.data.policies.keys() == {(arm, seed) for arm in SHARDS for seed in (0, 1)}
    noted = manifests(json.loads(store.read_note(f"compared-CompareFlow-{comparison.run.id}")))
    noted = [json.dumps(manifest) for manifest in noted]
    for policy in comparison.data.policies.values():
        store.verify(policy)
        assert json.dumps(policy) in noted  # so that no clean-up takes it
    weights = {policy["model.safetensors"]["sha256"] for policy in comparison.data.policies.values()}
    assert len(weights) == 4
    assert {task.data.reference["model.safetensors"]["sha256"] for task in comparison.run["plan_1"]} == {
        comparison.data.started.policy["model.safetensors"]["sha256"]
    }


@pytest.mark.slow
def test_seconds_add_up_without_evaluation(comparison):
    first = comparison.data.results.iloc[0]
    assert first["seconds"] == first["seconds_generate"] + first["seconds_score"] + first["seconds_train"] > 0


@pytest.mark.slow
def test_the_terminal_shows_tables_verdict_and_next_commands(comparison):
    lines = comparison.stdout.splitlines()
    [head] = [i for i, line in enumerate(lines) if re.match("arm +win rate", line)]
    rates = comparison.data.results.groupby(["arm", "seed"], sort=False)["win_rate"].last()
    for row, arm in zip(lines[head + 2 : head + 4], SHARDS, strict=True):
        assert row.split()[:2] == [arm, f"{rates[arm].mean():.3f}"]
    assert any(re.search(r" ends \d+\.\d points above .* seeds in pairs\): ", line) for line in lines)
    assert "see the report" in comparison.stdout


def printed_command(stdout, purpose):
    [line] = [line for line in stdout.splitlines() if line.startswith(purpose)]
    return shlex.split(line.removeprefix(purpose))


@pytest.mark.slow
def test_the_printed_card_command_shows_the_report(comparison, home):
    words = printed_command(comparison.stdout, "see the report")
    assert words[1:4] == [str(FLOW), "card", "view"]
    words[3] = "get"  # a test has no browser
    result = shell([*words, "report.html"], home)
    assert result.returncode == 0, result.stderr
    shown = card_content((home / "report.html").read_text())
    assert f"# CompareFlow/{comparison.run.id}" in shown
    assert "seeds in pairs" in shown
    assert "data:image/png;base64," in shown
    assert "95% interval" in shown
    assert "anchor_rate" not in shown  # the config as written: an arm's defaults are not its own


@pytest.mark.slow
def test_the_printed_command_writes_the_comparison_to_files(comparison, home):
    result = shell(printed_command(comparison.stdout, "write it to files"), home)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (home / "comparison").iterdir()} == {
        *("comparison.csv", "comparison.png", "comparison.md")
    }
    written = table(home / "comparison" / "comparison.csv")
    assert list(written.columns) == list(comparison.data.results.columns)
    pd.testing.assert_frame_equal(written, comparison.data.results, check_dtype=False)
    assert f"# CompareFlow/{comparison.run.id}" in (home / "comparison" / "comparison.md").read_text()


@pytest.mark.slow
def test_the_command_refuses_a_run_that_failed(comparison, home):
    result = shell(["python", "-m", "components.comparison", f"CompareFlow/{comparison.failed.id}"], home)
    assert result.returncode == 1
    assert f"\nerror: CompareFlow/{comparison.failed.id}: has not finished, so it has no" in result.stderr
    assert f"flows/compare_flow.py resume --origin-run-id {comparison.failed.id}" in result.stderr
    result = shell(["python", "-m", "components.export", f"CompareFlow/{comparison.run.id}", "x"], home)
    assert result.stderr == (f"error: CompareFlow/{comparison.run.id}: has no final policy. Name a run of WindFlow.\n")


@pytest.mark.slow
def test_an_arm_is_exported_with_a_card_that_shows_the_comparison(comparison, home):
    run = f"CompareFlow/{comparison.run.id}"
    result = shell(["wind", "export", f"{run}/jbond/1", "arm"], home)
    assert result.returncode == 0, result.stderr
    policy = comparison.data.policies["jbond", 1]
    weights = (home / "arm" / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == policy["model.safetensors"]["sha256"]
    card = (home / "arm" / "README.md").read_text("utf-8")
    assert "This policy is the arm `jbond` of a comparison" in card
    assert "| `wind` | " in card
    assert "| `seed` | `1` |" in card
    own = comparison.data.results.query("arm == 'jbond' and seed == 1")["win_rate"].iloc[-1]
    assert f"is {100 * own:.1f}% (95% interval" in card
    result = shell(["wind", "export", f"{run}/dpo/1", "none"], home)
    assert result.stderr.startswith(
        f"error: {run}: has no arm 'dpo' with seed 1. Name one of: {run}/jbond/0, {run}/jbond"
    )
    result = shell(["wind", "export", f"{run}/jbond/1", "none", "--iteration", "1"], home)
    assert result.stderr.startswith("error: --iteration: is for runs of WindFlow.")


def test_each_flow_refuses_the_others_config(run_flow):
    with pytest.raises(BadConfig) as error:
        run_flow(WIND_FLOW, config=CONFIG)
    assert error.value.message == "compare: is not for this flow. Run flows/compare_flow.py, or remove the section."
    with pytest.raises(BadConfig) as error:
        run_flow(FLOW, config=yaml.safe_load(SMOKE.read_text()))
    assert error.value.message.startswith("compare: is required. Name what to compare, such as `compare: {arms: ")


@pytest.mark.slow
def test_samples_of_a_comparison_are_refused_by_what_it_is(comparison):
    with pytest.raises(SamplesError, match=f"{comparison.run.pathspec}: is a comparison, and an arm's samples are not"):
        of_run(comparison.run.pathspec)
