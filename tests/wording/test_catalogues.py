"""The catalogues: complete in each language, and consistent in their words."""

import re
from typing import Any

import pytest

from broker.connections.connections_pages import CATALOGUES as CONNECTIONS
from broker.connections.connections_pages import MESSAGE_PAGES
from broker.connections.visitor_cookies import Notice
from broker.consent.consent_pages import CATALOGUES as CONSENT
from broker.grants.model import GrantStatus
from broker.wording.catalogue import ConnectionsWords
from tests.wording.texts import places, texts

of_each_translation = pytest.mark.parametrize(
    ("original", "translation"),
    [(group[0], words) for group in (CONSENT, CONNECTIONS) for words in group[1:]],
    ids=["consent ko", "connections ko"],
)
of_each_connections_catalogue = pytest.mark.parametrize(
    "catalogue", CONNECTIONS, ids=lambda words: words.language
)
of_each_korean_catalogue = pytest.mark.parametrize(
    "catalogue", [CONSENT[1], CONNECTIONS[1]], ids=["consent", "connections"]
)


@of_each_translation
def test_a_translation_has_the_same_texts(original: Any, translation: Any) -> None:
    assert texts(translation).keys() == texts(original).keys()


@of_each_translation
def test_a_translation_fills_in_the_same_places(original: Any, translation: Any) -> None:
    expected = {where: places(text) for where, text in texts(original).items()}
    assert {where: places(text) for where, text in texts(translation).items()} == expected


@of_each_translation
def test_a_text_is_empty_in_all_languages_or_none(original: Any, translation: Any) -> None:
    expected = {where: bool(text) for where, text in texts(original).items()}
    assert {where: bool(text) for where, text in texts(translation).items()} == expected


@of_each_translation
def test_no_sentence_is_left_in_english(original: Any, translation: Any) -> None:
    translated = texts(translation)
    left = [
        where
        for where, text in texts(original).items()
        if len(text.split()) > 3 and translated[where] == text
    ]
    assert left == []


@of_each_korean_catalogue
def test_each_korean_text_is_in_korean(catalogue: Any) -> None:
    assert [text for text in _sentences(catalogue) if not re.search("[가-힣]", text)] == []


@of_each_korean_catalogue
def test_each_korean_sentence_has_the_polite_ending(catalogue: Any) -> None:
    sentences = [
        sentence
        for text in _sentences(catalogue)
        for sentence in re.findall(r"([^.!?]+)[.](?:\s|$)", text)
    ]
    assert len(sentences) > 20
    assert [sentence for sentence in sentences if not sentence.endswith("요")] == []


@of_each_korean_catalogue
@pytest.mark.parametrize(
    "avoided",
    [
        r"[가-힣]셨|하시|으시|오신|고객님",
        r"고르|골라|골랐",
        "취소",
        r"\{service\} 서비스",
        r"\{service\}[이가을를은는]",
    ],
    ids=["honorific", "another word for 선택", "another word for 해제", "서비스", "particle"],
)
def test_a_korean_text_avoids(catalogue: Any, avoided: str) -> None:
    """One level of politeness, one word per concept, no particle that depends on a name."""
    assert [text for text in _sentences(catalogue) if re.search(avoided, text)] == []


@of_each_connections_catalogue
def test_every_status_and_notice_has_words(catalogue: ConnectionsWords) -> None:
    assert catalogue.statuses.keys() == {status.value for status in GrantStatus}
    assert catalogue.notices.keys() == {notice.value for notice in Notice}


@of_each_connections_catalogue
def test_each_catalogue_has_the_text_of_each_page(catalogue: ConnectionsWords) -> None:
    assert set(catalogue.messages) == set(MESSAGE_PAGES)


def _sentences(catalogue: Any) -> list[str]:
    """Return all texts but the language's code."""
    return [text for where, text in texts(catalogue).items() if text and where != ".language"]
