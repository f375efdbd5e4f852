"""Scope names: the grammar, and comparison under Google's aliases."""

import pytest

from broker.scopes import (
    IDENTITY_SCOPES,
    canonical,
    is_scope_name,
    is_within,
    missing,
    parse_scopes,
    shared,
)
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, EMAIL

PROFILE = "https://www.googleapis.com/auth/userinfo.profile"


@pytest.mark.parametrize(("short", "long"), [("email", EMAIL), ("profile", PROFILE)])
def test_a_short_name_is_the_same_scope_as_its_long_one(short: str, long: str) -> None:
    assert canonical(short) == canonical(long) == long


def test_the_identity_scopes_are_canonical() -> None:
    assert {canonical("openid"), canonical("email")} == IDENTITY_SCOPES


def test_parsing_keeps_names_as_written_in_order_and_once() -> None:
    assert parse_scopes(" email  openid email ") == ("email", "openid")


@pytest.mark.parametrize("other", ["\t", "\n", "\x1c", "\u00a0", "\u3000"])
def test_only_a_space_separates_names(other: str) -> None:
    names = parse_scopes(f"openid{other}email")
    assert not all(map(is_scope_name, names))


def test_an_empty_list_parses_to_nothing() -> None:
    assert parse_scopes("  ") == ()


def test_missing_scopes_are_named_as_requested() -> None:
    assert missing(["email", "profile", CALENDAR], [EMAIL, "openid"]) == ("profile", CALENDAR)


def test_an_alias_is_not_missing() -> None:
    assert missing(["openid", "email"], [EMAIL, "openid"]) == ()


def test_shared_scopes_are_named_as_in_the_first_list() -> None:
    assert shared([EMAIL, CALENDAR], ["email", "openid"]) == (EMAIL,)


def test_a_wider_scope_does_not_include_a_narrower_one() -> None:
    assert not is_within([CALENDAR_READONLY], [CALENDAR])


def test_a_subset_with_aliases_is_within() -> None:
    assert is_within(["email"], [EMAIL, CALENDAR])


@pytest.mark.parametrize("text", ["", "two words", 'quo"te', "back\\slash", "é", "a\n", "x" * 513])
def test_an_invalid_scope_name_is_refused(text: str) -> None:
    assert not is_scope_name(text)
