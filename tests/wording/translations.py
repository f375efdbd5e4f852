"""Compares catalogues: a translation has the same words as its original, none left out."""

from dataclasses import fields, is_dataclass
from enum import Enum
from string import Formatter
from typing import Any


def texts(words: Any, path: str = "") -> dict[str, str]:
    """Every text of a catalogue, by where it stands."""
    if isinstance(words, Enum):
        return {}
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
    """The `{places}` that are to be filled in."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def assert_translated(original: Any, translation: Any) -> None:
    """Same keys, same places, nothing empty that has words, and nothing left in the original."""
    here, there = texts(original), texts(translation)
    assert here.keys() == there.keys()
    for where, text in here.items():
        assert places(there[where]) == places(text), where
        assert bool(there[where]) == bool(text), where
        if len(text.split()) > 3:
            assert there[where] != text, where
