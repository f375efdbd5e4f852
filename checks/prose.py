"""Finds terms that docs/glossary.md says to avoid; ends with 1 if there is one.

Checked are the documents, openapi.yaml, alerts, and of every Python module the names, docstrings
and comments; of the product also each text for people: log messages, help, errors, pages. What is
quoted as code is not prose. The glossary says for a term where it is avoided:

- `term`: everywhere;
- `term (in names)`, `term (in prose)`: only there;
- `*term*`: by judgement; it has other meanings, and is not checked.

Spelling is checked by codespell, which `make check` runs besides.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from checks.reference.tables import cells

_ROOT = Path(__file__).resolve().parents[1]
_GLOSSARY = "docs/glossary.md"
_NONE = "\N{EN DASH}"
_HARMLESS = re.compile(r"\bround[ _-]trips?\b", re.IGNORECASE)
"""Holds a term to avoid and means something else."""
_TERM = re.compile(r"(?P<term>[\w' -]+?)(?: \(in (?P<where>names|prose)\))?")


class Kind(StrEnum):
    """Where a text stands."""

    PROSE = "prose"
    NAME = "names"


@dataclass(frozen=True, slots=True)
class Term:
    """A term to avoid, and what to say instead."""

    text: str
    instead: str
    where: Kind | None
    """`None`: everywhere."""

    def pattern(self) -> str:
        """Return it as a regular expression, inflected."""
        words = [re.escape(word) for word in self.text.split()]
        return r"[\s_-]+".join(words) + r"(?:s|es|d|ed|ing)?"


@dataclass(frozen=True, order=True, slots=True)
class Text:
    """A piece of a file."""

    path: str
    line: int
    kind: Kind
    text: str


def read_terms(glossary: str) -> list[Term]:
    """Return the terms of the last column of each table. Raises `ValueError`."""
    terms = []
    for line in glossary.splitlines():
        row = cells(line) if line.startswith("|") else []
        if len(row) != 3 or row[2] in {"avoid", _NONE} or row[0].startswith("-"):
            continue
        for part in re.split(r", (?![^(]*\))", row[2]):
            if part.startswith("*"):
                continue
            match = _TERM.fullmatch(part)
            if match is None:
                raise ValueError(f"{_GLOSSARY}: not a term to avoid: {part!r}")
            where = Kind(match["where"]) if match["where"] else None
            terms.append(Term(match["term"], row[0], where))
    return terms


def find(texts: Iterable[Text], terms: Sequence[Term]) -> Iterator[str]:
    """Return a line for each term that is found."""
    patterns = {kind: _pattern(kind, terms) for kind in Kind}
    by_words = {term.text.lower(): term for term in terms}
    for text in texts:
        pattern = patterns[text.kind]
        searched = _HARMLESS.sub(lambda harmless: "·" * len(harmless[0]), text.text)
        for match in pattern.finditer(searched) if pattern else ():
            name = next(name for name, value in match.groupdict().items() if value)
            term = by_words[_NAMES[name]]
            line = text.line + text.text[: match.start()].count("\n")
            better = f"; say: {term.instead}" if term.instead != _NONE else ""
            yield f"{text.path}:{line}: {match[0]!r}{better}"


_NAMES: dict[str, str] = {}
"""The term of each group of the patterns."""


def _pattern(kind: Kind, terms: Sequence[Term]) -> re.Pattern[str] | None:
    parts = []
    for number, term in enumerate(terms):
        if term.where in {None, kind}:
            _NAMES[f"t{number}"] = term.text.lower()
            parts.append(f"(?P<t{number}>{term.pattern()})")
    # The longest first, and a word's end: "tells" is not "tell" and an "s".
    parts.sort(key=len, reverse=True)
    return (
        re.compile(rf"(?<![\w'])(?:{'|'.join(parts)})(?![\w'])", re.IGNORECASE) if parts else None
    )


def texts_of_markdown(path: str, content: str) -> Iterator[Text]:
    """Return a document's prose: without code, targets of links and comments."""
    for pattern in (
        r"^ *```.*?^ *```$",
        r"<!--.*?-->",
        r"`[^`\n]+(?:\n[^`\n]+)?`",
        r"(?<=\])\([^)\s]+\)",
        r"https?://\S+",
    ):
        content = re.sub(pattern, _blank, content, flags=re.DOTALL | re.MULTILINE)
    yield Text(path, 1, Kind.PROSE, content)


def texts_of_yaml(path: str, content: str) -> Iterator[Text]:
    """Return comments and what people read: descriptions, summaries; without code in them."""
    for key in yaml.compose_all(content):
        yield from _descriptions(path, key)
    for number, line in enumerate(content.splitlines(), start=1):
        if line.lstrip().startswith("#"):
            yield Text(path, number, Kind.PROSE, _without_code(line))


def _descriptions(path: str, node: yaml.Node) -> Iterator[Text]:
    for part in node.value if isinstance(node, yaml.CollectionNode) else ():
        key, value = part if isinstance(part, tuple) else (None, part)
        if isinstance(value, yaml.CollectionNode):
            yield from _descriptions(path, value)
        elif key is not None and key.value in {"description", "summary"}:
            text = re.sub(r"\{\{.*?\}\}", _blank, value.value)
            yield Text(path, value.start_mark.line + 1, Kind.PROSE, _without_code(text))


def texts_of_sql(path: str, content: str) -> Iterator[Text]:
    """Return the comments of a file of queries, without the names of the queries."""
    for number, line in enumerate(content.splitlines(), start=1):
        if line.startswith("--") and not line.startswith("-- name:"):
            yield Text(path, number, Kind.PROSE, _without_code(line))


def texts_of_python(path: str, content: str, *, with_strings: bool) -> Iterator[Text]:
    """Return names, docstrings and comments; with strings, also each that has a space."""
    yield Text(path, 1, Kind.NAME, _words(Path(path).stem))
    tree = ast.parse(content)
    docstrings, labels = set(), set()
    for node in ast.walk(tree):
        match node:
            # Labels of key derivation are part of every signature: they stay as they are.
            case ast.Call(func=ast.Name(id="Signer"), args=arguments):
                labels |= {id(each) for each in arguments}
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Text(path, node.lineno, Kind.NAME, _words(node.name))
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if with_strings or id(node) in docstrings:
                if " " in text and id(node) not in labels:
                    yield Text(path, node.lineno, Kind.PROSE, _without_code(text))
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], Kind.PROSE, _without_code(token.string))


def texts_of_html(path: str, content: str) -> Iterator[Text]:
    """Return a page's own words, without tags and placeholders."""
    for pattern in (r"\{[{%#].*?[}%#]\}", r"<[^>]*>"):
        content = re.sub(pattern, _blank, content, flags=re.DOTALL)
    yield Text(path, 1, Kind.PROSE, content)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", _blank, text)


def _blank(match: re.Match[str]) -> str:
    """Lines keep their numbers."""
    return "·" + "\n" * match[0].count("\n")


def _words(name: str) -> str:
    """`_SomeName` and `some_name` become `some name`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").strip().lower()


_NOT_CHECKED = (
    "CHANGELOG.md",  # History.
    _GLOSSARY,
    "checks/prose.py",
    "tests/checks/test_prose.py",
    "broker/database/migrations/",  # Never changed.
    "broker/wording/connections_ko.py",
    "broker/wording/consent_ko.py",
    "broker/wording/scopes_ko.py",
    "devstack/google_standin/",  # Words of Google's.
    "LICENSE",
)


def texts_of(path: str) -> Iterator[Text]:
    """Return what is checked of a file, by its kind."""
    if path.startswith(_NOT_CHECKED) or not (_ROOT / path).is_file():
        return
    content = (_ROOT / path).read_text(encoding="utf-8", errors="replace")
    if path.endswith(".md"):
        yield from texts_of_markdown(path, content)
    elif path.endswith(".py"):
        yield from texts_of_python(path, content, with_strings=path.startswith("broker/"))
    elif path == "openapi.yaml" or path.startswith("deploy/alerts/"):
        yield from texts_of_yaml(path, content)
    elif path.endswith(".sql"):
        yield from texts_of_sql(path, content)
    elif path.endswith(".html") and path.startswith("broker/"):
        yield from texts_of_html(path, content)


def tracked_files() -> list[str]:
    """Return the files of the repository. Raises `CalledProcessError` outside of one."""
    listing = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"),  # noqa: S607
        cwd=_ROOT,
        capture_output=True,
        check=True,
    ).stdout
    return [path for path in listing.decode().split("\0") if path]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: check the files that are named, or all."""
    paths = list(sys.argv[1:] if arguments is None else arguments) or tracked_files()
    terms = read_terms((_ROOT / _GLOSSARY).read_text(encoding="utf-8"))
    found = sorted(find((text for path in paths for text in texts_of(path)), terms))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    if found:
        sys.stdout.write(f"{len(found)} terms that {_GLOSSARY} says to avoid.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
