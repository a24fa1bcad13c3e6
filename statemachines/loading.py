"""Find the pipelines that a command names: ``package.module``, ``path/to/file.py``, either with ``:NAME``.

What else is named in this way is found as well.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from statemachines.definition import Pipeline
from statemachines.places import Place, place_of
from statemachines.printing import printing_beside
from statemachines.source import NOBODYS
from statemachines.suggest import did_you_mean, nearest


class LoadError(Exception):
    """Pipelines could not be loaded; the message says why, and what was meant perhaps."""


def find_pipelines(target: str) -> list[Pipeline[Any]]:
    """Import what ``target`` names and return its pipelines, in the order of the module, each once.

    A module is looked for in the current directory too, which is added to ``sys.path``; a file in a package
    is imported as a module of that package. ``NAME`` may be a pipeline or a list of pipelines. What is printed
    meanwhile goes to standard error.

    Raises:
        LoadError: there is no such module or file, importing it raised, or there is no such pipeline in it.
    """
    path, name = _split(target)
    module = _import(path)
    if name is not None:
        return _named(module, path, name)
    found = [value for value in vars(module).values() if isinstance(value, Pipeline)]
    if not found:
        raise LoadError(f"There is no pipeline in {path}: no variable of the module holds a Pipeline.")
    return list(dict.fromkeys(found))


def find_value(target: str) -> Any:
    """Import what ``target`` names, and return the value of its variable; what is printed goes to standard error.

    Raises:
        LoadError: there is no such module, file or variable, or importing it raised.
    """
    path, name = _split(target)
    if name is None:
        raise LoadError(f"{target!r} names no variable: write MODULE:NAME or path/to/file.py:NAME.")
    module = _import(path)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise LoadError(f"There is no {name!r} in {path}. {did_you_mean(name, known)}")
    return getattr(module, name)


def _split(target: str) -> tuple[str, str | None]:
    path, colon, name = target.rpartition(":")
    if not colon:
        return target, None
    if name.isidentifier() and path:
        return path, name
    if "/" in name or "\\" in name:  # the colon of a drive: C:\pipelines\orders.py
        return target, None
    raise LoadError(f"{target!r} names no pipeline: write MODULE:NAME or path/to/file.py:NAME.")


def _import(path: str) -> ModuleType:
    with printing_beside():
        return _import_file(path) if _is_file(path) else _import_module(path)


def _is_file(path: str) -> bool:
    return path.endswith(".py") or "/" in path or "\\" in path


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        _refuse_other_file(name)
        raise LoadError(f"{name!r} is neither a module like package.module nor a file like path/to/file.py.")
    _look_in(Path.cwd())
    _OWN.add(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):
            raise _raised(name, error) from None
        _refuse_other_file(name)
        raise LoadError(f"There is no module {name!r}. {_modules_like(name, missing)}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - importing runs the user's code, which may even call sys.exit
        raise _raised(name, error) from None


def _modules_like(name: str, missing: str) -> str:
    """A suggestion among the neighbours of the module that is missing."""
    package, _, last = missing.rpartition(".")
    try:
        where = importlib.import_module(package).__path__ if package else [str(Path.cwd())]
    except (ImportError, AttributeError):
        return f"{package!r} is a module and no package, so nothing is in it."
    near = nearest(last, [module.name for module in pkgutil.iter_modules(where)])
    inside = name[len(missing) :]
    if near is None or not _is_there([near, *inside.split(".")[1:]], where):
        return "Give a module that Python can import from here, or the path of a file."
    meant = (f"{package}." if package else "") + near + inside
    return f"Did you mean {meant!r}?"


def _is_there(names: Iterable[str], where: Iterable[str]) -> bool:
    """Whether there are modules of these names, each in the one before; none of them is imported."""
    for name in names:
        spec = PathFinder.find_spec(name, [*where])
        if spec is None:
            return False
        where = spec.submodule_search_locations or []
    return True


def _refuse_other_file(path: str) -> None:
    """Say so where what is no module is a file. Raises LoadError."""
    if Path(path).is_file():
        raise LoadError(f"{path!r} is no Python file: the name of one ends in .py.")


def _import_file(path: str) -> ModuleType:
    file = Path(path)
    if file.is_dir():
        raise LoadError(f"{path!r} is a folder. Give a file in it, or a module like package.module.")
    if not file.is_file():
        known = [str(one) for one in sorted(file.parent.glob("*.py")) if one.is_file()]
        raise LoadError(f"There is no file {path!r}. {did_you_mean(path, known) if known else ''}".rstrip())
    file = file.resolve()
    parts, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if len(parts) > 1 and all(part.isidentifier() for part in parts):
        _look_in(folder)
        module = _import_module(".".join(part for part in parts if part != "__init__"))
        if Path(module.__file__ or "").resolve() == file:
            return module
    _look_in(file.parent)
    return _run_file(file)


class _AsWritten(SourceFileLoader):
    """Runs the source that stands in the file, and keeps it: the version's hash is made of what runs.

    Python itself would take what it compiled before for a file that was changed within the same second and
    is as long as it was.
    """

    source_that_runs: str | None = None

    def get_code(self, fullname: str) -> CodeType:
        data = self.get_data(self.path)
        code: CodeType = self.source_to_code(data, self.get_filename(fullname))
        self.source_that_runs = importlib.util.decode_source(data)
        return code


class _Own(MetaPathFinder):
    """Has what is loaded here run as it is written, with all of its package: what a version's hash is made of.

    What is in no package is with the others of its folder, which only their modules are.
    """

    def __init__(self) -> None:
        self._packages: set[str] = set()
        self._folders: set[Path] = set()

    def add(self, package: str) -> None:
        """From now on this one's modules, also those that are imported later."""
        self._packages |= {package} - NOBODYS
        self._take_part()

    def add_folder(self, folder: Path) -> None:
        """The same of the modules of a folder that is no package."""
        self._folders.add(folder)
        self._take_part()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        root, dot, _ = fullname.partition(".")
        is_beside = not dot and any((folder / f"{fullname}.py").is_file() for folder in self._folders)
        if root not in self._packages and not is_beside:
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(fullname, path, target) for finder in behind)
        spec = next((one for one in specs if one is not None), None)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _AsWritten(spec.loader.name, spec.loader.path)
            if not dot and spec.submodule_search_locations is None:
                self._folders.add(Path(spec.loader.path).parent)
        return spec

    def _take_part(self) -> None:
        if self not in sys.meta_path:
            # Who has something of his own to do with modules goes first, as pytest does.
            place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
            sys.meta_path.insert(place, self)


_OWN = _Own()


def _run_file(file: Path) -> ModuleType:
    """Import a file by its path, under a name that no other module has."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(file) and module.__name__ != "__main__":
            return module
    _OWN.add_folder(file.parent)
    name = file.stem
    while name in sys.modules or name in sys.stdlib_module_names:
        name += "_"
    loader = _AsWritten(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    if spec is None or file.suffix != ".py":
        raise LoadError(f"{str(file)!r} is no Python file: the name of one ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks classes' modules up there
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _raised(str(file), error) from None
    return module


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _raised(what: str, error: BaseException) -> LoadError:
    if isinstance(error, SyntaxError):
        place, message = Place(error.filename or "", error.lineno or 0), error.msg
    else:
        place, message = place_of(error), " ".join(str(error).split())
    where = f" ({place})" if place.line else ""
    return LoadError(f"Importing {what} raised {type(error).__name__}: {message}{where}.")


def _named(module: ModuleType, path: str, name: str) -> list[Pipeline[Any]]:
    pipelines = {key: value for key, value in vars(module).items() if isinstance(value, Pipeline)}
    if not hasattr(module, name):
        raise LoadError(f"There is no {name!r} in {path}. {did_you_mean(name, pipelines)}")
    value = getattr(module, name)
    if isinstance(value, Pipeline):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(one, Pipeline) for one in value):
        return list(dict.fromkeys(value))
    kind = type(value).__name__
    raise LoadError(f"{name!r} in {path} is no pipeline but {kind}. {did_you_mean(name, pipelines)}")
