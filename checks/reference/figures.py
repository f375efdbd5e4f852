"""The figures of docs/reference/limits.md, read from the constants that each row names."""

import importlib
import inspect
import re
from datetime import timedelta
from types import ModuleType

from checks.reference.sources import ROOT
from checks.reference.tables import MalformedPageError, ticked, with_column

_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_BYTES = {"MiB": 1024 * 1024, "KiB": 1024}
_COLUMNS = 3


def fill(page: str) -> str:
    """Return the page with the figure of each row as the code has it."""
    return with_column(page, 1, _figure, columns=_COLUMNS)


def _figure(row: list[str]) -> str:
    figure, (path, name) = row[1], ticked(row[2])
    source = (ROOT / path).read_text(encoding="utf-8") if (ROOT / path).is_file() else ""
    if name not in source:
        raise MalformedPageError(f"{path} has no {name}")
    is_constant = name.isidentifier() and path.endswith(".py") and re.match(r"\d", figure)
    return stated(value(path, name), figure) if is_constant else figure


def value(path: str, name: str) -> timedelta | float:
    """Return a constant of a module, or the default of a parameter of one of its classes."""
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    found: timedelta | float
    if hasattr(module, name):
        found = getattr(module, name)
        return found
    for made in _classes(module):
        parameter = inspect.signature(made).parameters.get(name)
        if parameter is not None:
            found = parameter.default
            return found
    raise MalformedPageError(f"{path} has no {name}")


def _classes(module: ModuleType) -> list[type]:
    return [
        made
        for _, made in inspect.getmembers(module, inspect.isclass)
        if made.__module__ == module.__name__
    ]


def stated(found: timedelta | float, like: str) -> str:
    """Write a value in the unit of the figure it replaces, such as `10 s`."""
    _, _, unit = like.partition(" ")
    if unit and unit not in _SECONDS | _BYTES:
        raise MalformedPageError(f"{like!r}: not a unit")
    number = found.total_seconds() if isinstance(found, timedelta) else float(found)
    number /= (_SECONDS | _BYTES).get(unit, 1)
    return f"{number:g} {unit}".strip() if number < 1_000_000 else f"{number:.0f} {unit}".strip()
