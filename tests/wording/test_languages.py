"""Which language a page is in."""

import pytest

from broker.wording.catalogue import preferred_language


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("ko", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-GB,en;q=0.9,ko;q=0.8", "en"),
        ("de-DE,de;q=0.9,ko;q=0.5,en;q=0.3", "ko"),
        ("de, fr;q=0.5", "en"),
        ("en;q=0.2, ko;q=0.9", "ko"),
        ("KO-kr", "ko"),
        ("ko;Q=0.9", "ko"),
        ("ko;q=0, *", "en"),
        ("ko;q=0", "en"),
        ("*, ko;q=0.1", "en"),
        ("*;q=0.1, ko;q=0.2", "ko"),
        ("kok, en;q=0.1", "en"),
        ("ko;q=2, en", "en"),
        ("ko;q=abc", "en"),
        (";;;,,,ko;;", "en"),
        ("\x00ko", "en"),
        ("x" * 10_000 + ",ko", "en"),
    ],
)
def test_the_language_that_is_liked_best_is_chosen(header: str | None, language: str) -> None:
    assert preferred_language(header, ("en", "ko")) == language
