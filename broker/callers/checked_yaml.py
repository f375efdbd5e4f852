"""YAML as nodes that know their line, and checks that collect problems with their place.

Nothing is converted: a scalar stays the text that was written, and what YAML takes it for is known,
so that `on`, `0123` or `1e3` are reported instead of becoming something else. Aliases, tags, second
documents and deep nesting are problems. Knows nothing of callers; no message quotes the file but by
`quote`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import yaml
from yaml.composer import Composer
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from broker.callers.keys import quote

_MAX_DEPTH = 8
_REFUSED: Final = "refused"
"""The tag of a node that has been reported."""
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # YAML 1.1, §5.1
)
_PLAIN_WORDS = re.compile(r"[a-z ,:'?<>{}\[\]-]+")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_SUGGESTIBLE_LENGTH = 80
_KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
    "merge": "a merge key",
}

Fault = Callable[[str], str | None]
"""Returns what is wrong with a text, or None."""


class YamlError(Exception):
    """Not YAML, or not YAML that is accepted here. `problems` has one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Document:
    """The only document of a file; `root` is None if there is none. Problems name their line."""

    root: Node | None
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a node: a path as an operator would write it, and the line."""

    path: str
    line: int

    def field(self, name: str, node: Node) -> "Place":
        """Return the place of a mapping's value."""
        return Place(f"{self.path}.{name}" if self.path else name, line_of(node))

    def item(self, index: int, node: Node) -> "Place":
        """Return the place of a list's item."""
        return Place(f"{self.path}[{index}]", line_of(node))

    def on_line(self, node: Node) -> "Place":
        """Return the same path with the line of a node inside."""
        return Place(self.path, line_of(node))

    def __str__(self) -> str:
        return f"{self.path} (line {self.line})" if self.path else f"line {self.line}"


@dataclass(frozen=True, slots=True)
class Field:
    """A mapping's value, and the place of its name."""

    node: Node
    place: Place


Fields = Mapping[str, Field]


def read_yaml(text: str) -> Document:
    """Parse one document. Raises `YamlError` if parsing cannot go on.

    The caller bounds the size of the text; the time is linear in it.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable is not None:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise YamlError(
            [f"line {line}: a character that YAML does not allow, U+{ord(unprintable[0]):04X}"]
        )
    loader = LOADER(text)
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise YamlError([*loader.problems, _explain(error, text)]) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The pure-Python parser fails at escapes such as "\UFFFFFFFF".
        raise YamlError([*loader.problems, f"not valid YAML ({type(error).__name__})"]) from None
    finally:
        loader.dispose()
    return Document(root, tuple(loader.problems))


def is_plain_text(word: str) -> bool:
    """True if YAML takes a word without punctuation for text, also without quotes."""
    return _KINDS.get(_kind(_RESOLVER.resolve(ScalarNode, word, (True, False)))) is None


def line_of(node: Node) -> int:
    """Return the line on which a node begins, from 1."""
    return node.start_mark.line + 1 if node.start_mark else 1


def taken_for(node: Node) -> str | None:
    """Return what YAML 1.1 makes of a scalar that is not text, such as "a number"; else None."""
    return _KINDS.get(_kind(node.tag)) if isinstance(node, ScalarNode) else None


def describe(node: Node) -> str:
    """Return the kind of a node in the operator's words."""
    if isinstance(node, ScalarNode):
        return taken_for(node) or "text"
    return "a list" if isinstance(node, SequenceNode) else "a mapping"


def quotes_needed(scalar: Node) -> str:
    """Return the problem of a value that YAML does not take for text."""
    return f"YAML takes {quote(scalar.value)} for {taken_for(scalar)}; write it in quotes"


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Return the name that may be meant, or all known names."""
    names = [str(name) for name in known]
    if len(wrong) <= _SUGGESTIBLE_LENGTH:
        close = get_close_matches(wrong.strip().lower(), names, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
    return "known are " + ", ".join(names)


class NodeChecks:
    """Checks of nodes. Each collects problems with their place instead of stopping at the first."""

    def __init__(self, problems: Iterable[str] = ()) -> None:
        self.problems = list(problems)

    def problem(self, place: Place, text: str) -> None:
        """Add a problem."""
        self.problems.append(f"{place}: {text}")

    def pairs(self, node: Node, place: Place) -> Iterator[tuple[ScalarNode, Node]]:
        """Yield a mapping's pairs whose key is a single value, each key once."""
        if node.tag == _REFUSED:
            return
        if not isinstance(node, MappingNode):
            self.problem(place, f"must be a mapping (`name: value` lines), not {describe(node)}")
            return
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _REFUSED:
                continue
            if not isinstance(key, ScalarNode):
                self.problem(place.on_line(key), f"{describe(key)} can't be a name")
            elif key.value in first_lines:
                first = first_lines[key.value]
                self.problem(
                    place.on_line(key), f"{quote(key.value)} is given twice, first on line {first}"
                )
            else:
                first_lines[key.value] = line_of(key)
                yield key, value

    def fields(self, node: Node, place: Place, known: tuple[str, ...]) -> Fields:
        """Return a mapping's values by name; unknown names are problems."""
        fields: dict[str, Field] = {}
        for key, value in self.pairs(node, place):
            if key.value in known:
                fields[key.value] = Field(value, place.field(key.value, key))
            else:
                self.problem(
                    place.on_line(key),
                    f"unknown setting {quote(key.value)}; {suggest(key.value, known)}",
                )
        return fields

    def items(self, field: Field, example: str) -> tuple[Node, ...] | None:
        """Return a list's items, or None for anything else."""
        if isinstance(field.node, SequenceNode):
            return tuple(field.node.value)
        if field.node.tag != _REFUSED:
            self.problem(field.place, f"must be a list, not {describe(field.node)}; {example}")
        return None

    def texts(
        self,
        fields: Fields,
        name: str,
        fault: Fault,
        example: str,
        required_by: Place | None = None,
    ) -> tuple[str, ...]:
        """Return the distinct texts of a list. A required one must be present and not empty."""
        if name not in fields:
            if required_by is not None:
                self.problem(required_by, f"`{name}` is missing; {example}")
            return ()
        field = fields[name]
        items = self.items(field, example)
        if required_by is not None and items == ():
            self.problem(field.place, f"must not be empty; {example}")
        texts = (
            self.text(item, field.place.item(index, item), fault)
            for index, item in enumerate(items or ())
        )
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    def text(self, node: Node, place: Place, fault: Fault | None = None) -> str | None:
        """Return a text in which `fault` finds nothing wrong, else None."""
        if node.tag == _REFUSED:
            return None
        kind = taken_for(node)
        if not isinstance(node, ScalarNode) or kind == "nothing":
            self.problem(place, f"must be text, not {describe(node)}")
            return None
        if kind is not None:
            self.problem(place, quotes_needed(node))
            return None
        text: str = node.value
        found = fault(text) if fault else None
        if found is None:
            return text
        self.problem(place, found)
        return None

    def optional_text(self, fields: Fields, name: str, fault: Fault) -> str | None:
        """Return the text of a field, or None if it is absent or wrong."""
        return self.text(fields[name].node, fields[name].place, fault) if name in fields else None

    def required_text(self, fields: Fields, name: str, place: Place, fault: Fault) -> str:
        """Return the text of a field that must be present; empty if it is wrong."""
        if name in fields:
            return self.optional_text(fields, name, fault) or ""
        self.problem(place, f"`{name}` is missing")
        return ""

    def flag(self, fields: Fields, name: str) -> bool:
        """Return true or false; false if absent.

        YAML 1.1's `yes` and `on`, which are text in YAML 1.2, are neither.
        """
        if name not in fields:
            return False
        node, place = fields[name].node, fields[name].place
        if taken_for(node) and node.value.lower() in ("true", "false"):
            return bool(node.value.lower() == "true")
        if node.tag != _REFUSED:
            self.problem(place, "must be true or false")
        return False

    def number(self, field: Field, *, least: float, most: float) -> float | None:
        """Return a number within bounds, written in plain digits, else None."""
        node = field.node
        if node.tag == _REFUSED:
            return None
        if taken_for(node) and _NUMBER.fullmatch(node.value):
            number = float(node.value)
            if least <= number <= most:
                return number
        self.problem(field.place, f"must be a number from {least:g} to {most:g}")
        return None


class _BoundedComposer(Composer):
    """PyYAML's composer, without aliases, anchors and tags, and with a bounded recursion."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self._depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[attr-defined]
        marks: Any = (event.start_mark, event.end_mark)
        if isinstance(event, yaml.AliasEvent):
            self.get_event()  # type: ignore[attr-defined]
            self._report(
                event,
                "YAML aliases (*name) are not accepted; a pattern that begins with * needs "
                'quotes around it: "*"',
            )
            return ScalarNode(_REFUSED, "", *marks)
        if event.anchor is not None:
            self._report(event, "YAML anchors (&name) are not accepted; omit it or quote it")
            event.anchor = None
        if event.tag is not None:
            self._report(event, "YAML tags (!name) are not accepted; omit it or quote it")
            event.tag = None
        if self._depth == _MAX_DEPTH:
            self._report(event, "nested too deeply")
            raise YamlError(self.problems)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _report(self, event: Any, text: str) -> None:
        self.problems.append(f"line {event.start_mark.line + 1}: {text}")


class PythonLoader(_BoundedComposer, Reader, Scanner, Parser, Resolver):
    """Parses in Python; for an installation of PyYAML without its C library."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        _BoundedComposer.__init__(self)
        Resolver.__init__(self)


if yaml.__with_libyaml__:
    from yaml._yaml import CParser

    class CLoader(_BoundedComposer, CParser, Resolver):
        """Parses in C."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            _BoundedComposer.__init__(self)
            Resolver.__init__(self)

    LOADER: Any = CLoader
else:
    LOADER = PythonLoader

_RESOLVER: Any = Resolver()


def _kind(tag: str) -> str:
    return tag.rpartition(":")[2]


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    if error.context == "while scanning a quoted scalar" and error.context_mark is not None:
        return f"line {error.context_mark.line + 1}: a quote opened here is not closed properly"
    if mark is None:
        return "not valid YAML"
    if error.context == "expected a single document in the stream":
        return f"line {mark.line + 1}: a second document begins here; keep one"
    lines = text.splitlines()
    if mark.line >= len(lines):
        return "not valid YAML: the file ends where more is expected; is a bracket not closed?"
    here = lines[mark.line]
    return f"line {mark.line + 1}, column {mark.column + 1}: not valid YAML: " + (
        _likely_cause(error, here, here[mark.column : mark.column + 1])
    )


def _likely_cause(error: yaml.MarkedYAMLError, here: str, character: str) -> str:
    said = error.problem or ""
    if "\t" in here[: len(here) - len(here.lstrip())] or character == "\t":
        return "indent with spaces, not with tabs"
    if error.context == "while scanning an alias":
        return 'a pattern that begins with * needs quotes around it: "*"'
    if "cannot start any token" in said:
        return f"a value that begins with {character!r} needs quotes around it"
    if "mapping values are not allowed" in said:
        return "a colon where none may be; check the indentation, and quote a value that has ': '"
    # The parser's own words, but only where they cannot contain a piece of the file.
    return said if _PLAIN_WORDS.fullmatch(said) else "check quotes, brackets and indentation"
