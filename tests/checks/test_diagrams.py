"""Diagrams become SVG, and unknown syntax is an error."""

import xml.etree.ElementTree as ET

import pytest

from checks.diagrams import DiagramError, fence, render
from tests.docs.documents import DOCUMENTS, blocks

SEQUENCE = """
sequenceDiagram
    participant C as caller
    participant B as broker
    C->>B: GET …/token <now>
    loop until it answers
        B->>B: wait
    end
    alt it is cached
        B-->>C: 200
    else it is not
        Note over C,B: a note
        B-->>C: 503
    end
"""
FLOWCHART = """
flowchart TB
    A[first, second] -->|a label| B[(PostgreSQL)]
    A --> C
"""


def texts(svg: str) -> str:
    """Return all text of a diagram."""
    return " ".join(ET.fromstring(svg).itertext())


@pytest.mark.parametrize("part", ["caller", "broker", "GET …/token <now>", "wait", "200", "503"])
def test_a_sequence_diagram_shows_participants_and_messages(part: str) -> None:
    assert part in texts(render(SEQUENCE))


@pytest.mark.parametrize("part", ["loop: until it answers", "alt: it is cached", "a note"])
def test_a_sequence_diagram_shows_blocks_and_notes(part: str) -> None:
    assert part in texts(render(SEQUENCE))


@pytest.mark.parametrize("part", ["first, second", "PostgreSQL", "a label", "C"])
def test_a_flowchart_shows_nodes_and_labels(part: str) -> None:
    assert part in texts(render(FLOWCHART))


def test_a_diagram_has_an_accessible_name() -> None:
    assert ET.fromstring(render(SEQUENCE)).get("aria-label") == "Sequence diagram: caller, broker"


@pytest.mark.parametrize(
    "source",
    [
        "",
        "pie",
        "sequenceDiagram\nA->B: another arrow",
        "sequenceDiagram\nparticipant A\nA->>B: to nobody",
        "sequenceDiagram\nparticipant A\nend",
        "sequenceDiagram\nparticipant A\nelse x",
        "sequenceDiagram\nparticipant A\nloop x",
        "flowchart RL\nA --> B",
        "flowchart TB\nA --- B",
        "flowchart TB\nA --> B\nB --> A",
    ],
)
def test_unknown_syntax_is_an_error(source: str) -> None:
    with pytest.raises(DiagramError):
        render(source)


def test_a_fence_is_wrapped_in_its_class() -> None:
    html = fence(FLOWCHART, "mermaid", "diagram", {}, None)
    assert html.startswith('<div class="diagram"><svg ')


def all_diagrams() -> list[str]:
    """Return each diagram of the documents."""
    return [
        diagram
        for path in DOCUMENTS
        for diagram in blocks(path.read_text(encoding="utf-8"), "mermaid")
    ]


@pytest.mark.parametrize("diagram", all_diagrams(), ids=range(len(all_diagrams())))
def test_each_diagram_is_valid_here_and_in_mermaid(diagram: str) -> None:
    """Mermaid takes a semicolon for the end of a line, and a hash for the start of an entity."""
    ET.fromstring(render(diagram))
    assert not set(diagram) & {";", "#"}
