"""The project's documents as tests read them: text, headings, links, tables, code blocks."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)

_FENCED = re.compile(r"^( *)```(?P<kind>\w*)\n(?P<text>.*?)^\1```$", re.DOTALL | re.MULTILINE)
_SHELLS = {"sh", "bash", "console"}
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def text_of(name: str) -> str:
    """Return a document, by its path from the project's root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """Return the code blocks of one kind."""
    return [match["text"] for match in _FENCED.finditer(text) if match["kind"] == kind]


def commands(text: str, program: str) -> list[str]:
    """Return what stands after the program's name, in code blocks and in code within prose."""
    shells = [match["text"] for match in _FENCED.finditer(text) if match["kind"] in _SHELLS]
    lines = "\n".join(shells)
    pattern = rf"{program} ((?:[a-z]+ ?)+)"
    inline = re.findall(rf"`{pattern}", prose(text))
    return inline + re.findall(rf"^{pattern}", lines, re.MULTILINE)


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return _FENCED.sub("", text)


def links(text: str) -> list[str]:
    """Return the targets of the text's links."""
    return [match["target"] for match in _LINK.finditer(prose(text))]


def anchors(text: str) -> set[str]:
    """Return its anchors, as GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, heading: str) -> str:
    """Return the text below a heading, up to the next of its level or above."""
    level = heading.split(" ", 1)[0]
    body = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", body, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> Iterator[list[str]]:
    """Return the cells of each row of each table, without heads and rulers."""
    lines = prose(text).splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        is_row = line.startswith("|") and not re.fullmatch(r"[|\- :]+", line)
        if is_row and not re.fullmatch(r"\|[|\- :]+", following):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def ticked(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)
