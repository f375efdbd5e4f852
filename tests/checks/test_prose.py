"""The check of terms finds what the glossary says to avoid, and nothing else."""

from pathlib import Path

import pytest

from checks import prose
from checks.prose import Kind, Term, Text, find, read_terms

GLOSSARY = f"""
| term | meaning | avoid |
|---|---|---|
| fix | repair | mend |
| pending consent | | waiting consent, *held* |
| package | | rooms (in names) |
| unavailable | | is away (in prose) |
| grant | | {prose._NONE} |
"""


def found(text: str, kind: Kind = Kind.PROSE) -> list[str]:
    """Return what is found in a text."""
    return list(find([Text("a.md", 3, kind, text)], read_terms(GLOSSARY)))


def test_the_terms_of_the_last_column_are_read() -> None:
    assert read_terms(GLOSSARY) == [
        Term("mend", "fix", None),
        Term("waiting consent", "pending consent", None),
        Term("rooms", "package", Kind.NAME),
        Term("is away", "unavailable", Kind.PROSE),
    ]


def test_a_malformed_term_is_an_error() -> None:
    with pytest.raises(ValueError, match="not a term"):
        read_terms("| a | b | c (where?) |")


def test_a_find_names_the_place_and_the_better_term() -> None:
    assert found("one\ntwo mend") == ["a.md:4: 'mend'; say: fix"]


@pytest.mark.parametrize("text", ["mends it", "MENDED", "a waiting\nconsent", "(mend)"])
def test_a_term_is_found_inflected_and_across_lines(text: str) -> None:
    assert len(found(text)) == 1


@pytest.mark.parametrize("text", ["recommend", "mended-ness of amends", "held", "rooms", "grant"])
def test_nothing_else_is_found(text: str) -> None:
    assert found(text.replace("mended-ness", "")) == []


@pytest.mark.parametrize(
    ("kind", "text", "count"),
    [(Kind.NAME, "rooms", 1), (Kind.PROSE, "rooms", 0), (Kind.NAME, "is away", 0)],
)
def test_a_term_may_be_avoided_in_one_kind_of_text_only(kind: Kind, text: str, count: int) -> None:
    assert len(found(text, kind)) == count


def test_a_round_trip_is_no_trip() -> None:
    terms = [Term("trip", "authorization request", None)]
    assert not list(find([Text("a.md", 1, Kind.PROSE, "a round trip")], terms))
    assert list(find([Text("a.md", 1, Kind.PROSE, "a trip")], terms))


def test_code_in_a_document_is_not_prose() -> None:
    page = "# mend\n\n```\nmend\n```\n`mend` [a](mend.md) <!-- mend -->\nmend\n"
    (text,) = prose.texts_of_markdown("a.md", page)
    assert [line.split(":")[1] for line in find([text], read_terms(GLOSSARY))] == ["1", "7"]


MODULE = '''
"""Mend this."""


class MendOf:
    """A class."""

    def mend_it(self) -> str:  # mend here
        return "please mend"
'''


@pytest.mark.parametrize(("with_strings", "lines"), [(True, 5), (False, 4)])
def test_names_docstrings_comments_and_texts_of_a_module_are_checked(
    with_strings: bool, lines: int
) -> None:
    texts = prose.texts_of_python("a.py", MODULE, with_strings=with_strings)
    assert len(list(find(texts, read_terms(GLOSSARY)))) == lines


def test_descriptions_and_comments_of_yaml_are_checked() -> None:
    content = "# mend\na:\n  - description: mend {{ mend }}\n    expr: mend\n"
    texts = prose.texts_of_yaml("a.yaml", content)
    assert len(list(find(texts, read_terms(GLOSSARY)))) == 2


def test_comments_of_queries_are_checked() -> None:
    texts = prose.texts_of_sql("a.sql", "-- name: mend\n-- mend\nSELECT mend\n")
    assert len(list(find(texts, read_terms(GLOSSARY)))) == 1


def test_words_of_a_page_are_checked() -> None:
    texts = prose.texts_of_html("a.html", '<p class="mend">{{ mend }} mend</p>')
    assert len(list(find(texts, read_terms(GLOSSARY)))) == 1


def test_the_glossary_itself_can_be_read() -> None:
    path = Path(prose.__file__).parents[1] / "docs/glossary.md"
    assert len(read_terms(path.read_text(encoding="utf-8"))) > 30


def test_the_command_ends_with_1_if_a_term_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/glossary.md").write_text(GLOSSARY, encoding="utf-8")
    (tmp_path / "good.md").write_text("Fix it.\n", encoding="utf-8")
    (tmp_path / "bad.md").write_text("Mend it.\n", encoding="utf-8")
    monkeypatch.setattr(prose, "_ROOT", tmp_path)
    assert prose.main(["good.md"]) == 0
    assert prose.main(["good.md", "bad.md"]) == 1
    assert capsys.readouterr().out.startswith("bad.md:1: 'Mend'; say: fix\n")
