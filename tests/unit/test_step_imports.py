"""What steps import: seconds at the start of every task, which only those pay that need them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COSTLY = ("torch", "transformers", "pandas", "matplotlib", "datasets", "peft", "scipy", "sklearn", "boto3")
# A run's `plan`, then its `gather` with no shard to check, each with all that its flow imports.
STEPS = """
import sys
sys.path.insert(0, sys.argv[2])
import iteration, launcher, cluster, loop
from components import prompts, stages
from components.data.records import Prompt
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
config = RunConfig.model_validate(parse("demo: {}\\nalgorithm: {name: jbond}\\nprompts: {per_iteration: 2, shards: 1}"))
some = [Prompt(name, ({"role": "user", "content": name},)) for name in "abc"]
with open_workspace(config, sys.argv[1], "plan") as work:
    kept = work.keep("train.jsonl", lambda path: prompts.save(some, path))
    shards = stages.plan(work, kept, 1)
with open_workspace(config, sys.argv[1], "gather") as work:
    assert stages.gather(work, shards, [{}])["prompts"] == 2
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
LIBRARY = """
import sys, importlib
importlib.import_module(sys.argv[1])
import components.training.on_policy, transformers.models.llama.modeling_llama
from transformers import AutoModelForCausalLM, utils
assert utils.is_scipy_available() and utils.is_sklearn_available()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def imported(code: str, *arguments: str) -> set[str]:
    """The packages that are imported after this code."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "USERNAME": "tester"}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_steps_that_run_no_model_import_no_library_of_models(tmp_path: Path) -> None:
    found = imported(STEPS, str(tmp_path / "store"), str(ROOT / "flows"))
    assert found.isdisjoint(COSTLY)
    assert {"numpy", "pydantic", "metaflow"} <= found


# What a process imports first: a step that trains, a judge, the demo's model.
@pytest.mark.thorough
@pytest.mark.parametrize("first", ["components.training.on_policy", "components.judges._models", "components.demo"])
def test_who_runs_a_model_imports_no_other_library(first: str) -> None:
    """Where they are installed, transformers would import them for what nothing here does."""
    pytest.importorskip("sklearn")
    assert imported(LIBRARY, first).isdisjoint({"sklearn", "scipy", "pandas", "matplotlib", "datasets", "peft"})


def test_models_of_transformers_are_imported_from_one_module() -> None:
    """Others import them only within functions or for type checkers, and so not before the one that hides them."""
    found = {}
    for path in (ROOT / "components").rglob("*.py"):
        first = [node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ImportFrom)]
        if names := {name.name for node in first if node.module == "transformers" for name in node.names}:
            found[path.name] = names
    # Files and caches of transformers import neither; the classes of PairRM come after what a judge imports.
    assert found == {
        "library.py": {"utils"},
        "logprobs.py": {"DynamicCache"},
        "_pairrm.py": {"DebertaV2Model", "DebertaV2PreTrainedModel"},
    }
