"""The files of a user's function: its module, what that imports from beside it, and the data that they name."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.config.errors import JudgeError
from components.config.paths import user_path

OURS = "components"  # always this project's own


@dataclass(frozen=True)
class Source:
    """Where a function lies that is no installed module's."""

    file: Path  # absolute
    folder: Path  # absolute; where the modules lie that it may import by their names
    package: str = ""  # the folder's own package that the file is part of, if there is one

    def files(self) -> dict[str, list[Path]]:
        """The function's own files under "", and those of each module beside it by the name that they import it by.

        Of a package, all modules. Raises JudgeError for a file that is no Python.
        """
        found = {"": _beside(self.folder, self.package) if self.package else [self.file]}
        todo = list(found[""])
        while todo:
            file = todo.pop()
            for name in imported(file, relative=not self.package and file.parent == self.folder):
                if name not in found and (files := _beside(self.folder, name)):
                    found[name] = files
                    todo += files
        return found


def locate(place: str) -> Source | None:
    """The module `path/to/file.py`, or `package.module` of the working directory; None for one to look for elsewhere.

    Raises JudgeError for a path without a file.
    """
    if place.endswith(".py"):
        path = user_path(place, "judge.function", JudgeError)
        if not path.is_file():
            raise JudgeError(f"judge.function: there is no file {path.absolute()}. Correct the path.")
        return Source(path.resolve(), path.resolve().parent)
    here, parts = Path.cwd(), place.split(".")
    if parts[0] == OURS:
        return None
    package = here.joinpath(*parts, "__init__.py")
    file = package if package.is_file() else here.joinpath(*parts).with_suffix(".py")
    within = parts[0] if file.parent != here else ""
    return Source(file, here, within) if file.is_file() else None


def imported(file: Path, *, relative: bool) -> set[str]:
    """First names of the modules that a file imports, wherever in it; `relative`: those that it imports so as well."""
    names: set[str] = set()
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (relative or not node.level):
            names |= {node.module} if node.module else {alias.name for alias in node.names}
    return {name.partition(".")[0] for name in names}


def may_define(file: Path, name: str) -> bool:
    """Whether a module has that name, as far as its text tells: yes where it may get names in ways not seen there."""
    module = _parsed(file)
    return any(name in _bound(node) for node in _own(module)) or any(
        _binds_any(node, name) for node in ast.walk(module)
    )


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of a module that are not inside of its functions and classes."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own(child)


def _bound(node: ast.AST) -> list[str]:
    """Names that a part of a module gives to what it stands in."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.alias(name=name, asname=other):
            return [other or name.partition(".")[0]]
    return []


def _binds_any(node: ast.AST, name: str) -> bool:
    """Whether a part of a module may give it that name from wherever it stands."""
    match node:
        case ast.Global(names=names):
            return name in names
        case ast.alias(name="*") | ast.FunctionDef(name="__getattr__"):
            return True
        case ast.Name(id="globals" | "setattr" | "vars" | "locals" | "exec"):
            return True
    return False


def named_data(file: Path) -> Iterator[Path]:
    """Data files that a module names in its text, beside it or from the working directory; absolute paths.

    A name is one text, or several that `/` or the arguments of a call put together.
    """
    for node in ast.walk(_parsed(file)):
        name = "/".join(_texts(node))
        if not name or len(name) > 255 or "\0" in name or "\n" in name or Path(name).is_absolute():
            continue
        for folder in (file.parent, Path.cwd()):
            if (path := folder / name).is_file() and path.suffix not in (".py", ".pyc"):
                yield path


def _texts(node: ast.AST) -> list[str]:
    """The constant parts of a path, in order."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return _texts(node.left) + _texts(node.right)
    if isinstance(node, ast.Call):
        return [text for argument in node.args if isinstance(argument, ast.Constant) for text in _texts(argument)]
    return []


def _beside(folder: Path, name: str) -> list[Path]:
    """The files of a module in a folder, of a package all; none if it is not there."""
    if name == OURS:
        return []
    package, module = folder / name, folder / f"{name}.py"
    if module.is_file() and not (package / "__init__.py").is_file():
        return [module]
    return sorted(package.rglob("*.py")) if package.is_dir() else []


def _parsed(file: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python says them when it imports the file
            return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:  # the latter for null bytes
        raise JudgeError(f"judge.function: {file} is no Python ({error}). Correct it.") from error
    except (RecursionError, MemoryError) as error:  # which Python's parser raises of thousands of levels
        raise JudgeError(
            f"judge.function: {file} nests an expression too deeply for Python. Write it flatter, as a list perhaps."
        ) from error
