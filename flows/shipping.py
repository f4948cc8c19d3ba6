"""What a config names on this machine and pods need: it goes along in the code package, or is refused before a run.

Beside the flow's files, a package gets prompts, task files of benchmarks and a judge's function with the modules beside
it that it imports, all under the paths that the config gives: a pod works in the folder where they are unpacked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

from base import BadConfig
from components.prompts.files import suffix
from components.prompts.sources import NAMED, PATTERN

MOST = 200_000_000  # bytes of prompts and task files: each pod fetches the package
FLOWS = Path(__file__).parent


def files(config: Mapping[str, Any], *, begins: bool = True) -> dict[str, Path]:
    """The files to ship by their paths in the package; `begins` for runs that read their prompts still.

    Raises BadConfig for what would not be found in a pod.
    """
    found: dict[str, Path] = {}
    mounts = _mounts(config)
    for key, value in _models(config):
        path = Path(value).expanduser()
        if path.is_dir() and not _under(path, mounts):
            raise BadConfig(
                f"{key}: {value} is a directory of this machine, which pods do not have. Name a hub id, or mount a "
                "volume that holds it (cluster.volumes) and give its path there."
            )
    for key, value in _data(config) if begins else ():
        found |= _shipped(key, value, mounts)
    if (size := sum(path.stat().st_size for path in found.values())) > MOST:
        raise BadConfig(
            f"prompts.train: with what else goes along it has {size / 1e6:.0f} MB, and every pod would fetch them. "
            "Mount a volume that holds them (cluster.volumes), or name a Hugging Face dataset."
        )
    for function in _functions(config["judge"]):
        found |= _judge(function, mounts)
    if taken := [name for name in found if (FLOWS / name).exists() and not (FLOWS / name).samefile(found[name])]:
        raise BadConfig(f"judge.function: {taken[0]} is the name of a file of the flow itself. Rename yours.")
    return found


def _mounts(config: Mapping[str, Any]) -> list[PurePosixPath]:
    cluster = config["cluster"] or {}
    pods = [cluster, *(cluster.get("steps") or {}).values()]
    return [PurePosixPath(mount) for pod in pods for mount in ((pod or {}).get("volumes") or {}).values()]


def _under(path: Path, mounts: Sequence[PurePosixPath]) -> bool:
    return any(path.is_absolute() and path.is_relative_to(mount) for mount in mounts)


def _models(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if config["policy"]["model"]:
        yield "policy.model", config["policy"]["model"]
    for judge in _members(config["judge"]):
        if isinstance(judge.get("model"), str):
            yield "judge.model", judge["model"]


def _members(judge: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A judge and, of an ensemble, those in it."""
    yield judge
    for member in judge.get("judges") or ():
        yield from _members(member)


def _functions(judge: Mapping[str, Any]) -> list[str]:
    return [member["function"] for member in _members(judge) if isinstance(member.get("function"), str)]


def _data(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for section, key in [("prompts", "train"), ("prompts", "evaluation"), ("evaluation", "tasks_path")]:
        given = config[section][key] or []
        for name in [given] if isinstance(given, str) else given:
            yield f"{section}.{key}", name


def _shipped(key: str, value: str, mounts: Sequence[PurePosixPath]) -> dict[str, Path]:
    """A file, or all files of a directory; none for a name that stands for something elsewhere."""
    path = Path(value).expanduser()
    if _under(path, mounts):
        return {}
    if not path.exists():
        if matches := sorted(glob(str(path), recursive=True)):  # noqa: PTH207 - as a run expands the pattern
            return {name: file for match in matches for name, file in _shipped(key, match, mounts).items()}
        if (suffix(path) in NAMED or PATTERN.search(value)) and not path.is_absolute():
            raise BadConfig(f"{key}: {value}: there is no such file here ({path.absolute()}). Correct the path.")
        return {}  # a dataset's name, or a file of the image
    inside = _inside(key, value)
    if path.is_file():
        return {inside: path.resolve()}
    below = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(PurePosixPath(inside, file.relative_to(path).as_posix())): file.resolve() for file in below}


def _inside(key: str, value: str) -> str:
    """A path of the config as a path in the package. Raises BadConfig for one that does not lie below this folder."""
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value.startswith("~"):
        raise BadConfig(
            f"{key}: {value} lies on this machine, and goes along to pods only from below the working directory "
            f"({Path.cwd()}). Give a path relative to that, or mount a volume that holds it (cluster.volumes)."
        )
    return str(path)


def _judge(function: str, mounts: Sequence[PurePosixPath]) -> dict[str, Path]:
    """The file of a judge's function, and the modules beside it that it imports."""
    place = function.rpartition(":")[0]
    if place.endswith(".py"):
        return _shipped("judge.function", place, mounts)
    found: dict[str, Path] = {}
    todo = [place]
    while todo:
        for file in _module(todo.pop()):
            name = file.as_posix()
            if name not in found:
                found[name] = file.resolve()
                todo += _imports(file)
    return found


def _module(name: str) -> list[Path]:
    """The files of a module below the working directory, all of its package's; none for an installed one."""
    top = name.partition(".")[0]
    if top == "components":
        return []  # in each package anyway
    if Path(top).is_dir():
        return sorted(Path(top).rglob("*.py"))
    return [Path(f"{top}.py")] if Path(f"{top}.py").is_file() else []


def _imports(file: Path) -> list[str]:
    """Modules that a file imports by their whole names."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise BadConfig(f"judge.function: {file} is no Python ({error}). Correct it.") from error
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.append(node.module)
    return names
