"""The page's words: all there in each language."""

import re

import pytest

from broker.connections.pages import CATALOGUES
from broker.connections.visitors import Notice
from broker.grants.model import GrantStatus
from broker.wording.connections_en import ENGLISH, PageWords
from tests.wording.translations import assert_translated, texts


@pytest.mark.parametrize("catalogue", CATALOGUES[1:], ids=lambda words: words.language)
def test_every_word_is_translated(catalogue: PageWords) -> None:
    assert_translated(ENGLISH, catalogue)


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda words: words.language)
def test_every_status_and_notice_has_words(catalogue: PageWords) -> None:
    assert catalogue.statuses.keys() == {status.value for status in GrantStatus}
    assert catalogue.notices.keys() == {notice.value for notice in Notice}


def test_every_korean_sentence_is_polite() -> None:
    (korean,) = [words for words in CATALOGUES if words.language == "ko"]
    for where, text in texts(korean).items():
        if where != ".language" and text:
            assert re.search("[가-힣]", text), where
        for sentence in re.findall(r"([^.!?]+)[.](?:\s|$)", text):
            assert sentence.endswith("요"), (where, sentence)
