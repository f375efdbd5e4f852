"""Finds the texts of a catalogue, to compare catalogues."""

from dataclasses import fields, is_dataclass
from string import Formatter
from typing import Any


def texts(words: Any, path: str = "") -> dict[str, str]:
    """Return every text of a catalogue, by its path."""
    if isinstance(words, str):
        return {path: words}
    if is_dataclass(words):
        members = [(field.name, getattr(words, field.name)) for field in fields(words)]
    elif isinstance(words, dict):
        members = list(words.items())
    elif isinstance(words, tuple):
        members = [(str(index), word) for index, word in enumerate(words)]
    else:
        return {}
    return {
        where: text
        for name, value in members
        for where, text in texts(value, f"{path}.{name}").items()
    }


def places(text: str) -> set[str]:
    """Return the `{places}` that are to be filled in."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}
