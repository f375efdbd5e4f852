"""Callers' keys: random, identified by their hash, kept out of messages."""

import hashlib
import secrets

import pytest

from broker.callers.keys import could_be_key, hash_key, key_fault, new_key, parse_key_hash, quote


def test_a_new_key_has_256_random_bits_after_its_prefix() -> None:
    first, second = new_key(), new_key()

    assert first.startswith("tb_")
    assert len(first) == len("tb_") + 43
    assert first != second


def test_a_new_key_can_be_used_as_a_bearer_credential() -> None:
    assert key_fault(new_key()) is None


def test_a_hash_is_sha256_of_the_keys_bytes() -> None:
    digest = hashlib.sha256(b"some-key").digest()

    assert hash_key("some-key") == "sha256:" + digest.hex()
    assert parse_key_hash(hash_key("some-key")) == digest


@pytest.mark.parametrize(
    "text",
    ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "g" * 64, "0" * 64, "sha256: " + "0" * 64],
)
def test_anything_but_a_hash_is_refused(text: str) -> None:
    assert parse_key_hash(text) is None


@pytest.mark.parametrize(
    "key", ["short", "", "with space in it, and long", "ключ" * 10, "a" * 30 + "\n"]
)
def test_a_guessable_or_unsendable_key_is_refused(key: str) -> None:
    fault = key_fault(key)

    assert fault is not None
    assert not key or key not in fault


@pytest.mark.parametrize(
    "text",
    [
        new_key(),
        "prefix-" + new_key(),
        "GOCSPX-" + secrets.token_hex(16),
        "sha256:" + secrets.token_hex(32),
        "AKIAIOSFODNN7EXAMPLE1234",  # pragma: allowlist secret
    ],
    ids=["ours", "ours in a word", "Google's", "a digest", "AWS's"],
)
def test_a_possible_key_is_not_quoted(text: str) -> None:
    assert text not in quote(text)
    assert str(len(text)) in quote(text)


@pytest.mark.parametrize(
    "text",
    [
        "tokens:read",
        "calendar-sync-for-the-whole-company-v2",
        "https://www.googleapis.com/auth/calendar.readonly",
        "https://www.googleapis.com/auth/admin.directory.group.member.readonly",
        "https://app.example.com/settings/connections?tab=google",
        "system:serviceaccount:prod:calendar-sync",
        "tb_x",
    ],
)
def test_ordinary_words_are_quoted(text: str) -> None:
    assert not could_be_key(text)
    assert quote(text) == repr(text)


def test_a_quoted_text_is_short_and_printable() -> None:
    assert len(quote("long " * 1000)) < 100
    assert quote("bell\x07") == r"'bell\x07'"
