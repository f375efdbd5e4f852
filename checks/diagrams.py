"""Renders the documents' Mermaid diagrams as SVG when the site is built.

The site then needs no script and no request to show one. Supports what the documents use: sequence
diagrams with messages, notes and blocks (`loop`, `alt`, `opt`), and flowcharts that run from top to
bottom or from left to right. Anything else is a `DiagramError`, so `mkdocs build` fails.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

_CHARACTER = 7.2
"""Width of an average character at the site's diagram font size, in pixels."""
_LINE = 18
_PADDING = 12


class DiagramError(ValueError):
    """The text is not a diagram of a supported kind."""


def fence(source: str, _language: str, css_class: str, *_: Any, **__: Any) -> str:
    """Format a fenced block, as `pymdownx.superfences` calls it."""
    return f'<div class="{css_class}">{render(source)}</div>'


def render(source: str) -> str:
    """Return the diagram as an `<svg>` element. Raises `DiagramError`."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    kind = lines[0].split(" ")[0] if lines else ""
    if kind == "sequenceDiagram":
        return _Sequence(lines[1:]).svg()
    if kind == "flowchart":
        return _Flowchart(lines[0].split(" ")[1], lines[1:]).svg()
    raise DiagramError(f"not a supported kind of diagram: {kind!r}")


def _wrapped(text: str, width: int) -> list[str]:
    """Break a text at spaces into lines of at most `width` characters, and at `<br>`."""
    lines: list[str] = []
    for part in re.split(r"<br/?>", text):
        line = ""
        for word in part.split():
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines.append(line)
    return lines


def _text(x: float, y: float, lines: list[str], anchor: str = "middle", css: str = "") -> str:
    rows = "".join(
        f'<tspan x="{x:.0f}" dy="{0 if number == 0 else _LINE}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    attribute = f' class="{css}"' if css else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{attribute}>{rows}</text>'


def _box(x: float, y: float, width: float, height: float, css: str) -> str:
    return (
        f'<rect class="{css}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" rx="4"/>'
    )


def _svg(width: float, height: float, parts: list[str], label: str) -> str:
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L10 5 L0 10 z"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">{arrow}{"".join(parts)}</svg>'
    )


_MESSAGE = re.compile(r"(?P<source>\w+)(?P<dashed>-?)->>(?P<target>\w+): (?P<text>.+)")
_NOTE = re.compile(r"Note over (?P<over>\w+(?:,\w+)?): (?P<text>.+)")
_PARTICIPANT = re.compile(r"participant (?P<id>\w+)(?: as (?P<name>.+))?")
_BLOCK = re.compile(r"(?P<kind>loop|alt|opt|else) ?(?P<text>.*)")


@dataclass(slots=True)
class _OpenBlock:
    kind: str
    top: float
    text: str
    dividers: list[tuple[float, str]] = field(default_factory=list)


class _Sequence:
    """A sequence diagram: participants in columns, messages in rows."""

    _COLUMN = 190
    _MARGIN = 20

    def __init__(self, lines: list[str]) -> None:
        self._names: dict[str, str] = {}
        self._steps: list[re.Match[str] | str] = []
        for line in lines:
            if participant := _PARTICIPANT.fullmatch(line):
                self._names[participant["id"]] = participant["name"] or participant["id"]
            elif line == "end":
                self._steps.append(line)
            elif step := (
                _MESSAGE.fullmatch(line) or _NOTE.fullmatch(line) or _BLOCK.fullmatch(line)
            ):
                self._steps.append(step)
            else:
                raise DiagramError(f"not a line of a sequence diagram: {line}")
        self._y = 0.0
        self._parts: list[str] = []
        self._blocks: list[_OpenBlock] = []

    def svg(self) -> str:
        self._y = 70
        for step in self._steps:
            if isinstance(step, str):
                self._close_block()
            elif step.re is _MESSAGE:
                self._draw_message(step)
            elif step.re is _NOTE:
                self._draw_note(step)
            else:
                self._open_block(step)
        if self._blocks:
            raise DiagramError("a block has no end")
        width = self._width()
        label = "Sequence diagram: " + ", ".join(self._names.values())
        return _svg(width, self._y + 16, [*self._columns(), *self._parts], label)

    def _width(self) -> float:
        """Leaves room for the texts beside the last column."""
        last = list(self._names)[-1]
        is_crowded = any(
            step.re is _MESSAGE and step["source"] == step["target"] == last
            for step in self._steps
            if isinstance(step, re.Match)
        )
        return 2 * self._MARGIN + self._COLUMN * len(self._names) + (110 if is_crowded else 0)

    def _x(self, participant: str) -> float:
        try:
            return self._MARGIN + self._COLUMN * (list(self._names).index(participant) + 0.5)
        except ValueError:
            raise DiagramError(f"no participant {participant}") from None

    def _columns(self) -> Iterator[str]:
        for participant, name in self._names.items():
            x = self._x(participant)
            yield f'<path class="life" d="M{x:.0f} 46 V{self._y:.0f}"/>'
            yield _box(x - 80, 8, 160, 38, "participant")
            lines = _wrapped(name, 22)
            yield _text(x, 32 - _LINE / 2 * (len(lines) - 1), lines)

    def _draw_message(self, step: re.Match[str]) -> None:
        start, end = self._x(step["source"]), self._x(step["target"])
        css = "message dashed" if step["dashed"] else "message"
        if start == end:
            lines = _wrapped(step["text"], 24)
            self._parts.append(
                f'<path class="{css}" marker-end="url(#arrow)" '
                f'd="M{start:.0f} {self._y:.0f} h22 v14 h-20"/>'
            )
            self._parts.append(_text(start + 28, self._y + 4, lines, "start"))
            self._y += max(34, _LINE * len(lines) + 14)
            return
        lines = _wrapped(step["text"], int(abs(end - start) / _CHARACTER) - 1)
        self._y += _LINE * (len(lines) - 1)
        top = self._y - _LINE * (len(lines) - 1)
        self._parts.append(_text((start + end) / 2, top - 4, lines))
        gap = 2 if end > start else -2
        self._parts.append(
            f'<path class="{css}" marker-end="url(#arrow)" '
            f'd="M{start:.0f} {self._y + 4:.0f} H{end - gap:.0f}"/>'
        )
        self._y += 36

    def _draw_note(self, step: re.Match[str]) -> None:
        first, _, last = step["over"].partition(",")
        left, right = sorted((self._x(first), self._x(last or first)))
        width = right - left + 170
        lines = _wrapped(step["text"], int(width / _CHARACTER) - 2)
        height = _LINE * len(lines) + 10
        self._parts.append(_box(left - 85, self._y - 14, width, height, "note"))
        self._parts.append(_text((left + right) / 2, self._y + 4, lines))
        self._y += height + 18

    def _open_block(self, step: re.Match[str]) -> None:
        if step["kind"] == "else":
            if not self._blocks:
                raise DiagramError("`else` outside of a block")
            self._blocks[-1].dividers.append((self._y - 8, step["text"]))
        else:
            self._blocks.append(_OpenBlock(step["kind"], self._y - 14, step["text"]))
        self._y += 30

    def _close_block(self) -> None:
        if not self._blocks:
            raise DiagramError("`end` outside of a block")
        block = self._blocks.pop()
        left = 6.0 + 6 * len(self._blocks)
        width = self._width() - 2 * left
        self._parts.append(_box(left, block.top, width, self._y - block.top, "block"))
        label = f"{block.kind}: {block.text}"
        self._parts.append(_text(left + 8, block.top + 16, [label], "start", "label"))
        for y, text in block.dividers:
            self._parts.append(f'<path class="divider" d="M{left:.0f} {y:.0f} h{width:.0f}"/>')
            self._parts.append(
                _text(left + 8, y + 16, [f"else: {text}" if text else "else"], "start", "label")
            )
        self._y += 22


_NODE = r"(?P<{0}>\w+)(?:\[\(?(?P<{0}_text>[^\])]+)\)?\])?"
_EDGE = re.compile(
    _NODE.format("source") + r" -->(?:\|(?P<label>[^|]+)\|)? " + _NODE.format("target")
)
_ALONE = re.compile(_NODE.format("source"))


class _Flowchart:
    """A flowchart: each node is in a rank, by its longest way from a node without predecessor."""

    _WIDTH, _HEIGHT, _GAP = 170, 54, 34

    def __init__(self, direction: str, lines: list[str]) -> None:
        if direction not in {"TB", "LR"}:
            raise DiagramError(f"not a supported direction: {direction}")
        self._is_vertical = direction == "TB"
        self._names: dict[str, str] = {}
        self._edges: list[tuple[str, str, str]] = []
        for line in lines:
            if edge := _EDGE.fullmatch(line):
                source, target = self._node(edge, "source"), self._node(edge, "target")
                self._edges.append((source, target, edge["label"] or ""))
            elif alone := _ALONE.fullmatch(line):
                self._node(alone, "source")
            else:
                raise DiagramError(f"not a line of a flowchart: {line}")

    def _node(self, match: re.Match[str], part: str) -> str:
        name, text = match[part], match[f"{part}_text"]
        if text or name not in self._names:
            self._names[name] = text or name
        return name

    def _ranks(self) -> dict[str, int]:
        rank = dict.fromkeys(self._names, 0)
        for _ in self._names:
            for source, target, _label in self._edges:
                rank[target] = max(rank[target], rank[source] + 1)
        if max(rank.values()) >= len(rank):
            raise DiagramError("the edges make a circle")
        return rank

    def svg(self) -> str:
        places = self._places()
        parts = [self._edge(places[a], places[b], text) for a, b, text in self._edges]
        for name, (x, y) in places.items():
            lines = _wrapped(self._names[name], 24)
            parts.append(_box(x, y, self._WIDTH, self._HEIGHT, "participant"))
            middle = y + self._HEIGHT / 2 + 5 - _LINE / 2 * (len(lines) - 1)
            parts.append(_text(x + self._WIDTH / 2, middle, lines))
        width = max(x for x, _ in places.values()) + self._WIDTH + 2 * _PADDING
        height = max(y for _, y in places.values()) + self._HEIGHT + _PADDING
        return _svg(width, height, parts, "Diagram: " + ", ".join(self._names.values()))

    def _places(self) -> dict[str, tuple[float, float]]:
        columns: dict[int, list[str]] = {}
        for name, rank in self._ranks().items():
            columns.setdefault(rank, []).append(name)
        longest = max(len(names) for names in columns.values())
        along = self._HEIGHT + 30 if self._is_vertical else self._WIDTH + 170
        across = self._WIDTH + self._GAP if self._is_vertical else self._HEIGHT + self._GAP
        places: dict[str, tuple[float, float]] = {}
        for rank, names in columns.items():
            shift = (longest - len(names)) * across / 2
            for number, name in enumerate(names):
                one, other = rank * along, shift + number * across
                x, y = (other, one) if self._is_vertical else (one, other)
                places[name] = (x + _PADDING, y + _PADDING)
        return places

    def _edge(self, start: tuple[float, float], end: tuple[float, float], text: str) -> str:
        if self._is_vertical:
            x1, y1 = start[0] + self._WIDTH / 2, start[1] + self._HEIGHT
            x2, y2 = end[0] + self._WIDTH / 2, end[1] - 1
        else:
            x1, y1 = start[0] + self._WIDTH, start[1] + self._HEIGHT / 2
            x2, y2 = end[0] - 1, end[1] + self._HEIGHT / 2
        path = (
            f'<path class="message" marker-end="url(#arrow)" '
            f'd="M{x1:.0f} {y1:.0f} L{x2:.0f} {y2:.0f}"/>'
        )
        if not text:
            return path
        lines = _wrapped(text, 20)
        # Nearer to the end at which the edges are farther apart.
        x, y = x1 + (x2 - x1) * 0.5, y1 + (y2 - y1) * 0.5
        return path + _text(x, y - 4 - _LINE / 2 * (len(lines) - 1), lines, css="label")
