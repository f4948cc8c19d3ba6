"""The house: which room may know which, read from the imports themselves."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPONENTS = ROOT / "components"
# From the ground up: a room imports from those before it, also inside functions and for type checkers.
FLOORS = (
    *("config", "runtime", "data", "prompts", "store"),
    *("algorithms", "policy", "generation", "judges", "trackers", "run_config"),
    *("training", "evaluation", "reporting", "plan", "demo", "stages"),
    *("comparison", "bandit", "judging", "benchmarking", "export", "samples", "cli"),
)
FLAT: set[str] = set()  # one module, no package
LONGEST = 250  # lines


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in COMPONENTS.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(name: str) -> list[ast.Import | ast.ImportFrom]:
    """What a module imports anywhere."""
    found = ast.walk(ast.parse(modules()[name].read_text("utf-8")))
    return [node for node in found if isinstance(node, ast.Import | ast.ImportFrom)]


def imported(name: str) -> set[str]:
    """The modules of `components` that a module names in an import anywhere."""
    found = set()
    for node in imports(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        else:
            assert node.level == 0, f"{name}: a relative import"
            whole = {f"{node.module}.{alias.name}": node.module for alias in node.names}
            found |= {inside if inside in modules() else str(outside) for inside, outside in whole.items()}
    return {one for one in found if one.split(".")[0] == "components"} - {name}


def room(name: str) -> str:
    return name.split(".")[1]


def test_there_is_no_circle_of_imports() -> None:
    list(TopologicalSorter({name: imported(name) for name in modules()}).static_order())  # raises CycleError for one


def test_no_room_knows_one_above_it() -> None:
    climbs = [
        f"{name} imports {other}"
        for name in modules()
        for other in imported(name)
        if name != "components" and other != "components" and FLOORS.index(room(other)) > FLOORS.index(room(name))
    ]
    assert climbs == []


def test_every_room_has_its_floor_and_no_module_lies_flat() -> None:
    inside = {path.stem for path in COMPONENTS.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert inside - {"__init__"} == set(FLOORS)
    assert {path.stem for path in COMPONENTS.glob("*.py")} - {"__init__"} == FLAT


@pytest.mark.parametrize("folder", ["components", "flows", "tests", "infra", "examples", "benchmarks"])
def test_files_can_be_read_in_one_sitting(folder: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > LONGEST
    }
    assert long == {}


def test_what_computes_knows_no_metaflow() -> None:
    """Cards are Metaflow's, its client finds finished runs, and the store lies beside its datastore; nothing else."""
    knows = {name for name in modules() if "metaflow" in everything_imported(name)}
    cards = {f"components.{place}" for place in ("bandit.cards", "comparison.cards")}
    assert knows == cards | {
        "components.reporting.cards",
        "components.reporting.parts_cards",
        "components.reporting.sample_cards",
        "components.stages.runs",
    } | {f"components.store.{name}" for name in ("__main__", "references", "s3_client")}


def everything_imported(name: str) -> set[str]:
    """Top-level names of all packages that a module imports anywhere."""
    plain = {alias.name for node in imports(name) if isinstance(node, ast.Import) for alias in node.names}
    within = {str(node.module) for node in imports(name) if isinstance(node, ast.ImportFrom)}
    return {one.split(".")[0] for one in plain | within}
