"""What a config names on this machine and pods need: it goes along in the code package, or is refused before a run.

Beside the flow's files, a package gets prompts, task files of benchmarks and a judge's function with the modules beside
it that it imports, the data that these name and what `judge.files` names, all under the paths that the config gives: a
pod works in the folder where they are unpacked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from base import BadConfig
from components.config.errors import UserError
from components.config.paths import user_path
from components.judges._functions import taken_by
from components.judges._sources import locate, may_define, named_data
from components.prompts.files import matching, suffix
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
        path = user_path(value, key, BadConfig)
        if path.is_dir() and not _under(path, mounts):
            raise BadConfig(
                f"{key}: {value} is a directory of this machine, which pods do not have. Name a hub id, or mount a "
                "volume that holds it (cluster.volumes) and give its path there."
            )
    for key, value in _data(config) if begins else ():
        found |= _shipped(key, value, mounts)
    for judge in _members(config["judge"]):
        for value in judge.get("files") or ():
            found |= _shipped("judge.files", value, mounts)
        if isinstance(judge.get("function"), str):
            found |= _function(judge["function"], mounts)
    if (size := sum(path.stat().st_size for path in found.values())) > MOST:
        raise BadConfig(
            f"prompts.train: with what else goes along it has {size / 1e6:.0f} MB, and every pod would fetch them. "
            "Mount a volume that holds them (cluster.volumes), or name a Hugging Face dataset."
        )
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
        if isinstance(judge.get("model"), str) and "base_url" not in judge:  # there it is a name at the endpoint
            yield "judge.model", judge["model"]


def _members(judge: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A judge and, of an ensemble, those in it."""
    yield judge
    for member in judge.get("judges") or ():
        yield from _members(member)


def _data(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for section, key in [("prompts", "train"), ("prompts", "evaluation"), ("evaluation", "tasks_path")]:
        given = config[section][key] or []
        for name in [given] if isinstance(given, str) else given:
            yield f"{section}.{key}", name


def _shipped(key: str, value: str, mounts: Sequence[PurePosixPath]) -> dict[str, Path]:
    """A file, or all files of a directory; none for a name that stands for something elsewhere."""
    path = user_path(value, key, BadConfig)
    if _under(path, mounts):
        return {}
    if not path.exists():
        if matches := matching(path):  # as a run expands the pattern
            return {name: file for match in matches for name, file in _shipped(key, match, mounts).items()}
        is_path = not key.startswith("prompts.") or suffix(path) in NAMED or PATTERN.search(value)
        if is_path and not path.is_absolute():
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


def _function(function: str, mounts: Sequence[PurePosixPath]) -> dict[str, Path]:
    """The file of a judge's function, the modules beside it that it imports, and the data that these name."""
    try:
        return _function_files(function, mounts)
    except UserError as error:
        raise BadConfig(str(error)) from error


def _function_files(function: str, mounts: Sequence[PurePosixPath]) -> dict[str, Path]:
    place, _, name = function.rpartition(":")
    is_file = place.endswith(".py")
    path = user_path(place, "judge.function", BadConfig)
    if is_file and (_under(path, mounts) or (path.is_absolute() and not path.exists())):  # of a volume or the image
        return {}
    source = locate(place)
    if source is None:
        return {}
    inside = PurePosixPath(_inside("judge.function", place)).parent if is_file else PurePosixPath()
    found = [file for module in source.files().values() for file in module]
    if not may_define(source.file, name):
        raise BadConfig(f"judge.function: {place} has no {name!r}. Define it there, or correct the name.")
    here = {name: Path.cwd() / name for file in found for name in _below_here(named_data(file))}
    beside = [data for file in found for data in named_data(file) if data.is_relative_to(source.folder)]
    shipped = {str(inside / file.relative_to(source.folder)): file.resolve() for file in [*found, *beside]}
    for name in shipped:
        _refuse_shadow(name)
    return here | shipped


def _below_here(paths: Iterable[Path]) -> Iterator[str]:
    here = Path.cwd()
    return (path.relative_to(here).as_posix() for path in paths if path.is_relative_to(here) and ".." not in path.parts)


def _refuse_shadow(name: str) -> None:
    """Raises BadConfig for a module that pods, whose path begins where they unpack it, would take for another."""
    path = PurePosixPath(name)
    first = path.stem if len(path.parts) == 1 else path.parts[0]
    top = (path.suffix == ".py" and len(path.parts) == 1) or path.parts[1:] == ("__init__.py",)
    if top and (other := taken_by(first, Path.cwd())) is not None:
        raise BadConfig(
            f"judge.function: {name} would stand before {other} in pods. Rename yours, or put it into a folder, such "
            f"as judges/{name}."
        )
