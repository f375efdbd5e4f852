"""Scopes in words."""

import re

import pytest

from broker.connections.connections_pages import CATALOGUES as CONNECTIONS
from broker.consent.consent_pages import CATALOGUES as CONSENT
from broker.wording.catalogue import ConnectionsWords, ConsentWords
from broker.wording.scope_words import ENGLISH, KOREAN, scope_in_words, scopes_in_words

_PREFIX = "https://www.googleapis.com/auth/"


def test_both_languages_have_the_same_scopes() -> None:
    assert KOREAN.keys() == ENGLISH.keys()


@pytest.mark.parametrize("words", [*CONNECTIONS, *CONSENT], ids=lambda words: words.language)
def test_each_language_of_the_pages_has_words_for_scopes(
    words: ConnectionsWords | ConsentWords,
) -> None:
    assert scope_in_words("openid", words.language)


@pytest.mark.parametrize("scope", KOREAN)
def test_each_scope_is_translated(scope: str) -> None:
    assert re.search("[가-힣]", KOREAN[scope])


@pytest.mark.parametrize("words", [ENGLISH, KOREAN], ids=["en", "ko"])
def test_no_two_scopes_have_the_same_words(words: dict[str, str]) -> None:
    assert len(set(words.values())) == len(words)


@pytest.mark.parametrize(
    ("scope", "language", "words"),
    [
        ("email", "en", "See your email address"),
        (_PREFIX + "userinfo.email", "en", "See your email address"),
        (_PREFIX + "tasks.readonly", "ko", "할 일 보기"),
        ("https://mail.google.com/", "ko", "모든 이메일 읽기, 쓰기, 보내기, 영구 삭제"),
        (_PREFIX + "unknown", "en", _PREFIX + "unknown"),
    ],
)
def test_a_scope_in_words(scope: str, language: str, words: str) -> None:
    assert scope_in_words(scope, language) == words


def test_each_text_is_listed_once_and_openid_is_left_out() -> None:
    scopes = ["openid", "email", _PREFIX + "userinfo.email", _PREFIX + "tasks"]
    expected = ["See your email address", "See, change and delete your tasks"]
    assert scopes_in_words(scopes, "en") == expected
