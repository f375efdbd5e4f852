"""The table of log events, from the calls of the loggers."""

import ast
from dataclasses import dataclass
from functools import cache

from checks.reference.sources import calls, keyword, modules, name_of
from checks.reference.tables import table

_LEVELS = ("critical", "error", "exception", "warning", "info", "debug")

_FORWARDED = {"reporting": "about"}
"""Methods that log an error with their second argument as message, and with these fields."""


@dataclass(frozen=True, order=True, slots=True)
class LogCall:
    """One call of a logger."""

    event: str
    """Empty where the call names none."""
    level: str
    message: str
    module: str


def log_calls() -> list[LogCall]:
    """Return every call of a logger in the product."""
    return sorted(
        LogCall(event, _level(call), message, module)
        for module, tree in modules()
        for call in calls(tree)
        if is_log_call(call) or _is_forwarded(call)
        for event, message in _events(call)
    )


def is_log_call(call: ast.Call) -> bool:
    """Return True for a call of a logger whose event is at the call itself."""
    match call.func:
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            is_logger = name.strip("_") in {"logger", "log"} and attribute in {*_LEVELS, "log"}
            return is_logger and not _forwards(call)
    return False


def _is_forwarded(call: ast.Call) -> bool:
    """Return True for a call of a method in `_FORWARDED`."""
    fields = _FORWARDED.get(name_of(call))
    return fields is not None and keyword(call, fields) is not None


def _forwards(call: ast.Call) -> bool:
    """Return True for the log call inside such a method."""
    extra = keyword(call, "extra")
    return isinstance(extra, ast.Dict) and any(
        key is None and isinstance(value, ast.Name) and value.id in _FORWARDED.values()
        for key, value in zip(extra.keys, extra.values, strict=True)
    )


def _level(call: ast.Call) -> str:
    name = name_of(call)
    if name == "log":
        levels = [node.attr for node in ast.walk(call.args[0]) if isinstance(node, ast.Attribute)]
        return (
            " or ".join(level.lower() for level in levels if level.lower() in _LEVELS) or "varies"
        )
    return "error" if name in {"exception", *_FORWARDED} else name


def _message(call: ast.Call) -> str:
    place = 1 if name_of(call) in {"log", *_FORWARDED} else 0
    message = call.args[place] if len(call.args) > place else None
    match message:
        case ast.Constant(value=str(text)):
            return text
        case ast.IfExp(body=ast.Constant(value=str(one)), orelse=ast.Constant(value=str(other))):
            return f"{one} / {other}"
        case None:
            return ""
    return f"`{ast.unparse(message)}`"


def _events(call: ast.Call) -> list[tuple[str, str]]:
    """Return each event that the call may log, with its message."""
    message = _message(call)
    extra = keyword(call, _FORWARDED.get(name_of(call), "extra"))
    for node in ast.walk(extra) if extra is not None else ():
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "event":
                    return _values(value, message)
    return [("", message)]


def _values(value: ast.expr, message: str) -> list[tuple[str, str]]:
    match value:
        case ast.Constant(value=str(text)):
            return [(text, message)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_values(body, message), *_values(orelse, message)]
        case ast.Attribute(attr="event"):
            return _of_classes()
    return [("", message)]


@cache
def _of_classes() -> list[tuple[str, str]]:
    """Return the events of exceptions that carry one, with their headlines."""
    found = []
    for _, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                texts = {
                    each.targets[0].id: each.value.value
                    for each in node.body
                    if isinstance(each, ast.Assign)
                    and isinstance(each.targets[0], ast.Name)
                    and isinstance(each.value, ast.Constant)
                }
                if {"event", "headline"} <= set(texts):
                    found.append((str(texts["event"]), str(texts["headline"])))
    return found


def block() -> str:
    """Return the table: a row for each event and message."""
    found: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    for each in log_calls():
        if each.event:
            levels, places = found.setdefault((each.event, each.message), ([], []))
            levels.append(each.level)
            places.append(f"`{each.module}`")
    rows = [
        (f"`{event}`", " or ".join(dict.fromkeys(levels)), message, " ".join(dict.fromkeys(places)))
        for (event, message), (levels, places) in found.items()
    ]
    return table(["event", "level", "message", "module"], rows)
