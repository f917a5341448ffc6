"""A user's own functions, named in a recipe as `package.module:function`: a reward, a loss.

Only what the recipe names is imported. Its module is found as `python -m` would find it: installed, on PYTHONPATH or in
the current folder, which comes last here, so that no file there hides a package. Until a stage runs it, its file is
hashed and not executed; the hash enters the fingerprint, the file's path is recorded nowhere. What that file imports in
its turn is not hashed: keep what decides a result in the one file.
"""

import ast
import functools
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from erpd_hub.errors import ConfigError
from erpd_hub.fields import Config, check_function_path, function_paths


def code_identity(config: Config) -> dict[str, str]:
    """Import path to sha256 of the file, for every function of the user's that a config names.

    Raises:
        ConfigError: a module is not found, or has no file, or its file does not have the function.
    """
    paths = sorted(set(function_paths(config)))
    for path in paths:
        _check_defined(path, source_file(path))
    return {path: source_hash(path) for path in paths}


_recorded: dict[str, str] = {}
"""Hashes that the planning process went by, in one that was started for a stage."""


def expect(hashes: Mapping[str, str]) -> None:
    """Hold `load` in this process to the code that another has recorded."""
    _recorded.update(hashes)


@functools.cache
def source_hash(path: str) -> str:
    """The sha256 of the file that holds a function, found without running it. One value as long as the process lives:
    a run records the code that it went by, and `load` refuses another.

    Raises:
        ConfigError: see `source_file`.
    """
    return _hash(source_file(path))


def recorded_hash(path: str) -> str:
    """What the run has recorded of a function's file, in whichever process.

    Raises:
        ConfigError: see `source_file`.
    """
    return _recorded.get(path) or source_hash(path)


def source_file(path: str) -> Path:
    """The file of a function's module, which is not executed, nor are the packages it lies in.

    Raises:
        ConfigError: not of the form, no such module, or a module without a file of its own.
    """
    module = _split(path)[0]
    _search_current_folder()
    importlib.invalidate_caches()
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for index in range(len(parts)):
        name, within = ".".join(parts[: index + 1]), spec.submodule_search_locations if spec else None
        if index and within is None:
            raise ConfigError(f"{path}: expected a package {'.'.join(parts[:index])}, got a module without parts")
        spec = _find(name, None if within is None else list(within))
        if spec is None:
            raise ConfigError(
                f"{path}: expected a module {name}, found none; install it, or start from the folder that holds it"
            )
    if spec is None or spec.origin is None or not spec.has_location:
        raise ConfigError(f"{path}: expected a module with a file, got {module}, which has none")
    return Path(spec.origin)


def load(path: str) -> Callable[..., Any]:
    """Import the module and return the function.

    Raises:
        ConfigError: as `source_file`; the module raises when imported, or its file is no longer the one that was
            hashed; it has no such attribute, or one that cannot be called.
    """
    module, attribute = _split(path)
    file = source_file(path)
    if _hash(file) != recorded_hash(path):
        raise ConfigError(
            f"{path}: its file changed while the run was going on, or this environment has another one; start the run "
            "again"
        )
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # the user's code runs here, so whatever it raises is news for the user
        raise ConfigError(f"{path}: importing {module} failed: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(f"{path}: expected {attribute} in {module}, found none")
        found = getattr(found, name)
    if not callable(found):
        raise ConfigError(f"{path}: expected a function, got {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def _split(path: str) -> tuple[str, str]:
    try:
        module, _, attribute = check_function_path(path).partition(":")
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return module, attribute


def _check_defined(path: str, file: Path) -> None:
    """Read, as it is not executed: what defines its names otherwise (a star import, `__getattr__`) is let pass.

    Raises:
        ConfigError: the file is not Python, or binds no such name at its top level.
    """
    if file.suffix != ".py":
        return
    module, attribute = _split(path)
    try:
        names = set(_bound(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{path}: expected Python in the file of {module}, got {error}") from None
    wanted = attribute.partition(".")[0]
    if wanted not in names and not {"*", "__getattr__"} & names:
        raise ConfigError(f"{path}: expected {wanted} in {module}, found none")


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a module binds outside of its functions and classes, `*` for an import of whatever there is."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.alias):
            yield (child.asname or child.name).partition(".")[0]
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        else:
            yield from _bound(child)


def _find(name: str, within: list[str] | None) -> ModuleSpec | None:
    """What `importlib.util.find_spec` finds, without importing the packages above."""
    for finder in sys.meta_path:
        with suppress(AttributeError):  # finders of before Python 3.4 have no find_spec
            if spec := finder.find_spec(name, within):
                return spec
    return None


def _search_current_folder() -> None:
    """Workers and the installed command do not have it on their path; `python -m` does."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
