"""YAML as nodes that know their line; refuses what a policy has no use for.

Nothing is converted: a scalar stays the text that was written, with what YAML takes it for beside
it, so that `on`, `0123` or `1e3` can be asked about instead of silently becoming something else.
Aliases, tags, second documents and deep nesting are problems; no message quotes the file.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

_MAX_DEPTH = 8
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"  # YAML 1.1, §5.1
)
_PLAIN_WORDS = re.compile(r"[a-z ,:'?<>{}\[\]-]+")
_KINDS = {
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "null": "nothing",
    "timestamp": "a date",
    "merge": "a merge key",
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, as written."""

    text: str
    line: int
    taken_for: str | None
    """What YAML 1.1 makes of it if not text: "a number", "true or false", "nothing", …"""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple["Node", ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Pairs in the order of the file; a key may come twice."""

    pairs: tuple[tuple["Node", "Node"], ...]
    line: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Stands where something was that has been reported already."""

    line: int


Node = Scalar | Sequence | Mapping | Refused


class YamlError(Exception):
    """Not YAML, or not YAML that is read here. The message has one line for each problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Document:
    """The one document of a file: `root` is None where there is none. Problems name their line."""

    root: Node | None
    problems: tuple[str, ...]


def read_yaml(text: str) -> Document:
    """Read one document. Raises `YamlError` where reading can't go on.

    The caller bounds the text's size; the time taken is linear in it.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable is not None:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise YamlError(
            [f"line {line}: a character that YAML does not allow, U+{ord(unprintable[0]):04X}"]
        )
    composer = _Composer(yaml.parse(text, Loader=_PARSER))
    try:
        return composer.document()
    except yaml.MarkedYAMLError as error:
        raise YamlError([*composer.problems, _explain(error, text)]) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The pure-Python parser trips over escapes such as "\UFFFFFFFF".
        raise YamlError([*composer.problems, f"not valid YAML ({type(error).__name__})"]) from None


def is_plain_text(word: str) -> bool:
    """Whether YAML takes a word for text without quotes around it; the word has no punctuation."""
    return _taken_for(word) is None


class _Composer:
    """Builds nodes from events itself: PyYAML's own composer recurses without bound."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self.problems: list[str] = []

    def document(self) -> Document:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._problem(event, "a second document begins here; keep one")
                    break
                root = self._node(next(self._events), depth=1)
        return Document(root, tuple(self.problems))

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        if depth > _MAX_DEPTH:
            self._problem(event, "nested too deeply")
            raise YamlError(self.problems)
        if isinstance(event, yaml.AliasEvent):
            self._problem(
                event,
                "YAML aliases (*name) are not read here; a pattern that begins with * needs "
                'quotes around it: "*"',
            )
            return Refused(line)
        self._refuse_properties(event)
        return self._content(event, line, depth)

    def _refuse_properties(self, event: yaml.Event) -> None:
        if getattr(event, "anchor", None) is not None:
            self._problem(event, "YAML anchors (&name) are not read here; leave it out or quote it")
        if getattr(event, "tag", None) is not None:
            self._problem(event, "YAML tags (!name) are not read here; leave it out or quote it")

    def _content(self, event: yaml.Event, line: int, depth: int) -> Node:
        if isinstance(event, yaml.SequenceStartEvent):
            return Sequence(tuple(self._until(yaml.SequenceEndEvent, depth)), line)
        if isinstance(event, yaml.MappingStartEvent):
            nodes = self._until(yaml.MappingEndEvent, depth)
            return Mapping(tuple(zip(nodes, nodes, strict=True)), line)
        assert isinstance(event, yaml.ScalarEvent)  # noqa: S101  (no other event begins a node)
        is_plain = event.implicit[0]
        return Scalar(event.value, line, _taken_for(event.value) if is_plain else None)

    def _until(self, end: type[yaml.Event], depth: int) -> Iterator[Node]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield self._node(event, depth + 1)

    def _problem(self, event: yaml.Event, text: str) -> None:
        self.problems.append(f"line {_line(event)}: {text}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _taken_for(plain: str) -> str | None:
    tag: str = _RESOLVER.resolve(yaml.ScalarNode, plain, (True, False))  # type: ignore[no-untyped-call]
    return _KINDS.get(tag.rpartition(":")[2])


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    if error.context == "while scanning a quoted scalar" and error.context_mark is not None:
        return f"line {error.context_mark.line + 1}: a quote opened here is not closed properly"
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return "not valid YAML"
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
    # The parser's own words, but only where they can't hold a piece of the file.
    return said if _PLAIN_WORDS.fullmatch(said) else "check quotes, brackets and indentation"
