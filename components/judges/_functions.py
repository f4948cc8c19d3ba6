"""Loads a user's function: its module by its path, so that no module of that name stands in for it, nor it for one.

What lies beside the module is found by its own imports alone, and only where Python finds nothing of that name.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
import sysconfig
from collections.abc import Callable, Sequence
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from components.config.errors import JudgeError
from components.judges._sources import OURS, Source, imported, locate

logger = logging.getLogger(__name__)

STANDARD = "the standard library's"
LIBRARY = sysconfig.get_path("stdlib")
SITE = {"site-packages", "dist-packages"}
PROJECT = Path(__file__).parents[1]


def load(function: str, form: str) -> Callable[..., Any]:
    """The function that 'module:function' or 'path/to/file.py:function' names, which takes two arguments.

    `form` is how it is to be defined. Raises JudgeError for what is not there or cannot be called; what its module
    raises when it is imported propagates.
    """
    place, _, attribute = function.rpartition(":")
    if not attribute.isidentifier() or not (place.endswith(".py") or all(p.isidentifier() for p in place.split("."))):
        raise JudgeError(
            f"judge.function: {function!r} has the wrong form. Write 'module:function' or 'path/to/file.py:function'."
        )
    module = _imported(place)
    if not hasattr(module, attribute):
        raise JudgeError(f"judge.function: {place} has no {attribute!r}. Define it there, or correct the name.")
    found: Callable[..., Any] = getattr(module, attribute)
    if not callable(found) or inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise JudgeError(
            f"judge.function: {function} is not a plain function, or yields where it should return. "
            f"Define it as {form}."
        )
    try:
        inspect.signature(found).bind("", None)
    except (TypeError, ValueError) as error:
        raise JudgeError(
            f"judge.function: {function} cannot be called with two arguments ({error}). Define it as {form}."
        ) from error
    return found


def path_note(error: BaseException) -> None:
    """Tells of a file that is not there how paths are meant."""
    if isinstance(error, FileNotFoundError):
        error.add_note(
            f"Relative paths start at the working directory ({Path.cwd()}); Path(__file__).with_name(…) finds what "
            "lies beside the function. What pods need of it and no module names goes into judge.files."
        )


def _imported(place: str) -> ModuleType:
    source = locate(place)
    try:
        return _installed(place) if source is None else _beside_others(place, source)
    except SystemExit as error:
        raise JudgeError(
            f"judge.function: {place} called sys.exit({error.code!r}) when it was imported. "
            "Put what it does as a script below `if __name__ == '__main__':`."
        ) from error
    except FileNotFoundError as error:
        path_note(error)
        raise


def _installed(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        if place.startswith(f"{OURS}.") and Path(place.replace(".", "/")).with_suffix(".py").is_file():
            raise JudgeError(
                f"judge.function: {place}: the package {OURS} is this project's own. "
                f"Write '{place.replace('.', '/')}.py:function', or rename yours."
            ) from error
        raise JudgeError(
            f"judge.function: there is no module {error.name!r} in the working directory ({Path.cwd()}) or "
            "among the installed packages. Correct the name, or write 'path/to/file.py:function'."
        ) from error


@cache
def _beside_others(place: str, source: Source) -> ModuleType:
    importlib.invalidate_caches()
    _check_neighbours(source)
    _FINDER.add(source.folder)
    if not source.package:
        parent = f"verifier_{_digest(source.folder)}"  # relative imports find the folder as its package
        _module(parent, None, source.folder)
        return _module(f"{parent}.{_word(source.file.stem)}_{_digest(source.file)}", source.file)
    folder = source.folder / source.package
    taken = taken_by(source.package, source.folder) is not None
    name = f"verifier_{_digest(folder)}" if taken else source.package
    init = folder / "__init__.py"
    _module(name, init if init.is_file() else None, folder)
    return importlib.import_module(".".join([name, *place.split(".")[1:]]))


def _module(name: str, file: Path | None, package: Path | None = None) -> ModuleType:
    """The module or package of that name, loaded once; a package without a file is a namespace."""
    if name in sys.modules:
        return sys.modules[name]
    search = [str(package)] if package else None
    spec = ModuleSpec(name, None, is_package=True)
    if file is not None:
        found = importlib.util.spec_from_file_location(name, file, submodule_search_locations=search)
        assert found is not None  # of a .py file there always is one
        spec = found
    else:
        spec.submodule_search_locations = search
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    try:
        if file is not None and spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_neighbours(source: Source) -> None:
    """Warns where an installed module comes before one beside the function; refuses where another user's would."""
    modules = source.files()
    wanted = {name for files in modules.values() for file in files for name in imported(file, relative=False)}
    for name, files in modules.items():
        there = taken_by(name, source.folder) if name in wanted and files != [source.file] else None
        if there is None:
            continue
        if SITE & {*Path(there).parts} or there.startswith(STANDARD):
            logger.warning(
                "judge.function: `import %s` gives %s, and not %s. Rename yours if that was meant.",
                *(name, there, files[0]),
            )
            continue
        raise JudgeError(
            f"judge.function: {source.file} imports {name!r} from beside it ({files[0]}), and that name is taken "
            f"here by {there}. Rename yours."
        )


def taken_by(name: str, folder: Path) -> str | None:
    """Where Python finds a module of this name that is not the folder's; None if it finds none."""
    if name in sys.stdlib_module_names:
        return f"{STANDARD} {name}"
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module made by hand, such as __main__
        return f"a module {name}"
    if spec is None:
        return None
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or [])
    if any(_is_of(Path(place).resolve(), name, folder) for place in places):
        return None
    there = Path(next(iter(places), f"a module {name}"))
    return f"{STANDARD} {name}" if there.is_relative_to(LIBRARY) and not SITE & {*there.parts} else str(there)


def _is_of(path: Path, name: str, folder: Path) -> bool:
    return path == folder / f"{name}.py" or path.is_relative_to(folder / name)


def _digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:16]


def _word(name: str) -> str:
    return re.sub(r"\W", "_", name)


class _Finder(MetaPathFinder):
    """Finds modules in the folders of users' functions, for what lies there, after all others found nothing."""

    def __init__(self) -> None:
        self._folders: list[Path] = []

    def add(self, folder: Path) -> None:
        """Looks into this folder too; the innermost first."""
        self._folders = sorted({*self._folders, folder}, key=lambda path: -len(path.parts))
        if self not in sys.meta_path:
            sys.meta_path.append(self)

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,  # noqa: ARG002 - of the protocol
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        importer = _importer() if path is None else None
        for folder in self._folders if importer else ():
            if importer and importer.is_relative_to(folder):
                spec = PathFinder.find_spec(fullname, [str(folder)])
                if spec is not None:
                    return spec
        return None


def _importer() -> Path | None:
    """The file of a user's whose import this is; None if it is none's.

    An environment, or this project, may lie in the folder of a function.
    """
    frame = sys._getframe(2)
    while frame.f_back and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "importlib":
        frame = frame.f_back
    file = Path(frame.f_globals.get("__file__") or LIBRARY)
    others = SITE & {*file.parts} or file.is_relative_to(LIBRARY) or file.is_relative_to(PROJECT)
    return None if others else file


_FINDER = _Finder()
