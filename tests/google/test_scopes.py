"""Scope names, compared as Google means them."""

import pytest

from broker.google.scopes import (
    IDENTITY_SCOPES,
    canonical,
    is_scope_name,
    is_within,
    missing,
    parse_scopes,
    shared,
)
from broker.wording.scopes_en import plain_words

EMAIL = "https://www.googleapis.com/auth/userinfo.email"
PROFILE = "https://www.googleapis.com/auth/userinfo.profile"
CALENDAR = "https://www.googleapis.com/auth/calendar"
CALENDAR_READONLY = CALENDAR + ".readonly"


@pytest.mark.parametrize(("short", "long"), [("email", EMAIL), ("profile", PROFILE)])
def test_a_short_name_is_the_same_scope_as_its_long_one(short: str, long: str) -> None:
    assert canonical(short) == canonical(long) == long


def test_the_identity_scopes_are_canonical() -> None:
    assert {canonical("openid"), canonical("email")} == IDENTITY_SCOPES


def test_parsing_keeps_names_as_written_in_order_and_once() -> None:
    assert parse_scopes(" email  openid email ") == ("email", "openid")


@pytest.mark.parametrize("other", ["\t", "\n", "\x1c", "\u00a0", "\u3000"])
def test_only_a_space_separates_names_and_no_name_has_another_white_space(other: str) -> None:
    names = parse_scopes(f"openid{other}email")
    assert not all(map(is_scope_name, names))


def test_an_empty_list_parses_to_nothing() -> None:
    assert parse_scopes("  ") == ()


def test_missing_names_are_told_as_asked() -> None:
    assert missing(["email", "profile", CALENDAR], [EMAIL, "openid"]) == ("profile", CALENDAR)


def test_nothing_is_missing_when_names_come_back_differently() -> None:
    assert missing(["openid", "email"], [EMAIL, "openid"]) == ()


def test_shared_names_are_told_as_the_first_list_has_them() -> None:
    assert shared([EMAIL, CALENDAR], ["email", "openid"]) == (EMAIL,)


def test_a_wider_scope_does_not_contain_a_narrower_one_by_name() -> None:
    assert not is_within([CALENDAR_READONLY], [CALENDAR])


def test_a_subset_under_other_names_is_within() -> None:
    assert is_within(["email"], [EMAIL, CALENDAR])


@pytest.mark.parametrize("text", ["", "two words", 'quo"te', "back\\slash", "é", "a\n", "x" * 513])
def test_what_no_scope_may_be_called_is_seen(text: str) -> None:
    assert not is_scope_name(text)


@pytest.mark.parametrize(
    "scope",
    [
        "openid",
        "email",
        "profile",
        CALENDAR,
        CALENDAR_READONLY,
        "https://mail.google.com/",
        *(
            f"https://www.googleapis.com/auth/{name}"
            for name in (
                "gmail.readonly",
                "gmail.send",
                "drive",
                "drive.file",
                "contacts",
                "contacts.readonly",
                "tasks",
                "spreadsheets",
                "documents",
                "meetings.space.created",
                "youtube.readonly",
            )
        ),
    ],
)
def test_well_known_scopes_have_plain_words(scope: str) -> None:
    words = plain_words(scope)
    assert words[0].isupper()
    assert "googleapis" not in words


def test_an_unknown_scope_is_told_by_its_own_name() -> None:
    assert plain_words("https://example.com/auth/other") == "https://example.com/auth/other"
