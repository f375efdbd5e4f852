"""The consent's pages speak English and Korean, as the browser prefers."""

import re

import pytest

from broker.consent.pages import CATALOGUES
from broker.wording import scopes_en as scope_words
from broker.wording.consent_en import ENGLISH
from broker.wording.scopes_ko import KOREAN as KOREAN_SCOPES
from tests.wording.translations import assert_translated, texts

_HANGUL = re.compile("[가-힣]")


@pytest.mark.parametrize("catalogue", CATALOGUES[1:], ids=lambda catalogue: catalogue.language)
def test_every_word_is_translated(catalogue: object) -> None:
    assert_translated(ENGLISH, catalogue)


def test_every_korean_sentence_is_korean_and_polite() -> None:
    (korean,) = [words for words in CATALOGUES if words.language == "ko"]
    for where, text in texts(korean).items():
        if where == ".language" or not text:
            continue
        assert _HANGUL.search(text), where
        for sentence in re.findall(r"([^.!?]+)[.](?:\s|$)", text):
            assert sentence.endswith("요"), (where, sentence)


def test_every_right_is_translated() -> None:
    assert KOREAN_SCOPES.keys() == scope_words.ENGLISH.keys()
    assert all(_HANGUL.search(words) for words in KOREAN_SCOPES.values())
    assert len(set(KOREAN_SCOPES.values())) == len(KOREAN_SCOPES)
