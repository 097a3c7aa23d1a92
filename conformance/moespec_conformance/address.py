"""Finding an adapter by its address."""

import importlib
import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any


class Usage(Exception):  # noqa: N818 - the caller's mistake, exit code 2
    """An address or option that cannot be understood."""


def load(address: str) -> Any:  # noqa: ANN401 - any object is an adapter
    """An adapter by its address: a path (path.py[:Name]), an entry point (NAME[:ARG]) or a module (module:Name)."""
    place, _, name = address.partition(":")
    if "/" in place or place.endswith(".py"):
        return made(from_file(Path(place)), name or "Adapter", address)
    points = {point.name: point for point in entry_points(group="moespec.adapters")}
    if place in points:
        factory = points[place].load()
        return factory(name) if name else factory()
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        known = ", ".join(sorted(points))
        raise Usage(f"no adapter {address!r}: not a file, none of the entry points ({known}), and {error}") from error
    return made(module, name or "Adapter", address)


def from_file(path: Path) -> Any:  # noqa: ANN401 - a module
    """Import a file by its path."""
    if not path.is_file():
        raise Usage(f"no file {path}")
    name = f"moespec_adapter_{path.stem}"  # never a name that the file itself may want to import
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Usage(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def made(module: Any, name: str, address: str) -> Any:  # noqa: ANN401 - any object is an adapter
    """The adapter of that name; a class is called without arguments."""
    if not hasattr(module, name):
        raise Usage(f"{address}: no {name} there")
    found = getattr(module, name)
    return found() if isinstance(found, type) else found
