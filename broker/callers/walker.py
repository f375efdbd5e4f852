"""Walks a YAML file's nodes: mappings with known names, lists, texts, and what is wrong.

Knows nothing of callers. Collects problems, each with its place, instead of stopping at the first.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from broker.callers import yaml_nodes
from broker.callers.keys import quote
from broker.callers.yaml_nodes import Node, Refused, Scalar, Sequence

_SUGGESTIBLE_LENGTH = 80
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

Fault = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands: a path as an operator would say it, and its line."""

    path: str
    line: int

    def field(self, name: str, node: Node) -> "Place":
        """The place of a mapping's value."""
        return Place(f"{self.path}.{name}" if self.path else name, node.line)

    def item(self, index: int, node: Node) -> "Place":
        """The place of a list's item."""
        return Place(f"{self.path}[{index}]", node.line)

    def on_line(self, node: Node) -> "Place":
        """The same path, but the line of a node within."""
        return Place(self.path, node.line)

    def __str__(self) -> str:
        return f"{self.path} (line {self.line})" if self.path else f"line {self.line}"


@dataclass(frozen=True, slots=True)
class Field:
    """A mapping's value and where its name stands."""

    node: Node
    place: Place


Fields = Mapping[str, Field]


class Walker:
    """The shapes that every part of the file is made of."""

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self.problems = list(problems)

    def problem(self, place: Place, text: str) -> None:
        """Note what is wrong, and where."""
        self.problems.append(f"{place}: {text}")

    def pairs(self, node: Node, place: Place) -> Iterator[tuple[Scalar, Node]]:
        """A mapping's pairs whose key is a single value, each key once."""
        if isinstance(node, Refused):
            return
        if not isinstance(node, yaml_nodes.Mapping):
            self.problem(place, f"must be a mapping (`name: value` lines), not {describe(node)}")
            return
        first_lines: dict[str, int] = {}
        for key, value in node.pairs:
            if isinstance(key, Refused):
                continue
            if not isinstance(key, Scalar):
                self.problem(place.on_line(key), f"{describe(key)} can't be a name")
            elif key.text in first_lines:
                first = first_lines[key.text]
                self.problem(
                    place.on_line(key), f"{quote(key.text)} is given twice, first on line {first}"
                )
            else:
                first_lines[key.text] = key.line
                yield key, value

    def fields(self, node: Node, place: Place, known: tuple[str, ...]) -> Fields:
        """A mapping's values by name; unknown names are problems."""
        fields: dict[str, Field] = {}
        for key, value in self.pairs(node, place):
            if key.text in known:
                fields[key.text] = Field(value, place.field(key.text, key))
            else:
                self.problem(
                    place.on_line(key),
                    f"unknown setting {quote(key.text)}; {suggest(key.text, known)}",
                )
        return fields

    def items(self, field: Field, example: str) -> tuple[Node, ...] | None:
        """A list's items; None if it isn't one, which has been noted."""
        if isinstance(field.node, Sequence):
            return field.node.items
        if not isinstance(field.node, Refused):
            self.problem(field.place, f"must be a list, not {describe(field.node)}; {example}")
        return None

    def text(self, node: Node, place: Place, fault: Fault | None = None) -> str | None:
        """A value that is text and in which `fault` finds none; otherwise None, noted."""
        if isinstance(node, Refused):
            return None
        if not isinstance(node, Scalar) or node.taken_for == "nothing":
            self.problem(place, f"must be text, not {describe(node)}")
            return None
        if node.taken_for is not None:
            self.problem(place, quotes_needed(node))
            return None
        found = fault(node.text) if fault else None
        if found is None:
            return node.text
        self.problem(place, found)
        return None

    def flag(self, field: Field) -> bool:
        """True or false; YAML 1.1's `yes` and `on`, which YAML 1.2 takes for text, are neither."""
        node = field.node
        if isinstance(node, Scalar) and node.taken_for and node.text.lower() in ("true", "false"):
            return node.text.lower() == "true"
        if not isinstance(node, Refused):
            self.problem(field.place, "must be true or false")
        return False

    def number(self, field: Field, *, least: float, most: float) -> float | None:
        """A number within bounds, written plainly; otherwise None, noted."""
        node = field.node
        if isinstance(node, Refused):
            return None
        if isinstance(node, Scalar) and node.taken_for and _NUMBER.fullmatch(node.text):
            number = float(node.text)
            if least <= number <= most:
                return number
        self.problem(field.place, f"must be a number from {least:g} to {most:g}")
        return None


def describe(node: Node) -> str:
    """The kind of a node, in the operator's words."""
    if isinstance(node, Scalar):
        return node.taken_for or "text"
    return "a list" if isinstance(node, Sequence) else "a mapping"


def quotes_needed(scalar: Scalar) -> str:
    """The complaint about a value that YAML takes for something else than text."""
    return f"YAML takes {quote(scalar.text)} for {scalar.taken_for}; write it in quotes"


def suggest(wrong: str, known: Iterable[str]) -> str:
    """What may have been meant, or all that could have been."""
    names = [str(name) for name in known]
    if len(wrong) <= _SUGGESTIBLE_LENGTH:
        close = get_close_matches(wrong.strip().lower(), names, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
    return "known are " + ", ".join(names)
