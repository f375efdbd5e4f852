"""Which grant and which scopes a token request means, as a table."""

from dataclasses import replace
from typing import Any

import pytest

from broker.grants.model import GrantStatus
from broker.tokens.grant_choice import (
    GrantChoice,
    choose_grant,
    find_grant,
    is_account,
    refused_by_policy,
)
from broker.tokens.results import Denial, NotGranted
from tests.support.scopes import CALENDAR, GMAIL_READONLY
from tests.tokens.samples import caller, request, stored

BOTH = (CALENDAR, GMAIL_READONLY)
WORK = stored(google_sub="1", email="work@example.com", is_default=False)
HOME = stored(google_sub="2", email="home@example.com", is_default=False)
DEFAULT = stored(google_sub="3", email="main@example.com", is_default=True)
DEAD = stored(
    google_sub="4",
    email="home@example.com",
    is_default=False,
    status=GrantStatus.REAUTHORIZATION_REQUIRED,
)
NOT_FOUND = NotGranted(Denial.GRANT_NOT_FOUND)
AMBIGUOUS = NotGranted(Denial.ACCOUNT_AMBIGUOUS)


@pytest.mark.parametrize(
    ("grants", "account", "expected"),
    [
        ([], None, NOT_FOUND),
        ([WORK], None, WORK),
        ([WORK, HOME], None, AMBIGUOUS),
        ([WORK, DEFAULT], None, DEFAULT),
        ([DEAD], None, DEAD),
        ([WORK, HOME], "1", WORK),
        ([WORK, HOME], "home@example.com", HOME),
        ([WORK, HOME], "HOME@example.com", HOME),
        ([WORK, HOME], "3", NOT_FOUND),
        ([WORK, HOME], "nobody@example.com", NOT_FOUND),
        ([HOME, DEAD], "home@example.com", HOME),
        ([DEAD], "home@example.com", DEAD),
        ([DEAD, HOME], "4", DEAD),
        ([HOME, replace(HOME)], "home@example.com", AMBIGUOUS),
        ([WORK, stored(google_sub="5", email="1", is_default=True)], "1", WORK),
    ],
    ids=[
        "none",
        "the only one",
        "several without a default",
        "the default of several",
        "the only one is dead",
        "by sub",
        "by email",
        "by email in other case",
        "another sub",
        "another email",
        "an address that moved: the active account",
        "an address of a dead account only",
        "by sub although dead",
        "one address, two active accounts",
        "a sub before an email",
    ],
)
def test_the_account_names_a_grant_or_the_only_or_default_one_is_meant(
    grants: list[Any], account: str | None, expected: object
) -> None:
    assert find_grant(grants, account) == expected


@pytest.mark.parametrize(
    ("granted", "allowed", "requested", "expected"),
    [
        ((CALENDAR,), (CALENDAR,), None, (CALENDAR,)),
        (BOTH, (CALENDAR,), None, (CALENDAR,)),
        ((CALENDAR,), BOTH, None, (CALENDAR,)),
        (BOTH, BOTH, (GMAIL_READONLY,), (GMAIL_READONLY,)),
        (BOTH, BOTH, BOTH, BOTH),
        ((CALENDAR,), BOTH, BOTH, NotGranted(Denial.SCOPE_NOT_GRANTED, (GMAIL_READONLY,))),
        (
            (CALENDAR,),
            (GMAIL_READONLY,),
            None,
            NotGranted(Denial.SCOPE_NOT_GRANTED, (GMAIL_READONLY,)),
        ),
        ((CALENDAR,), (), None, NotGranted(Denial.SCOPE_NOT_GRANTED)),
        (
            ("https://www.googleapis.com/auth/userinfo.email",),
            ("email",),
            ("email",),
            ("https://www.googleapis.com/auth/userinfo.email",),
        ),
    ],
    ids=[
        "all three are the same",
        "more is granted than allowed",
        "more is allowed than granted",
        "one of two is requested",
        "both are requested",
        "one of the requested is not granted",
        "nothing that is allowed is granted",
        "nothing is allowed",
        "an alias, named as Google does",
    ],
)
def test_the_scopes_are_requested_granted_and_allowed(
    granted: tuple[str, ...],
    allowed: tuple[str, ...],
    requested: tuple[str, ...] | None,
    expected: object,
) -> None:
    only = stored(scopes=granted)

    choice = choose_grant([only], caller(scopes=allowed), request(scopes=requested))

    assert choice == (GrantChoice(only, expected) if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (
            GrantStatus.REAUTHORIZATION_REQUIRED,
            "invalid_rapt",
            NotGranted(Denial.REAUTHORIZATION_REQUIRED, google_reason="invalid_rapt"),
        ),
        (
            GrantStatus.REAUTHORIZATION_REQUIRED,
            None,
            NotGranted(Denial.REAUTHORIZATION_REQUIRED),
        ),
        (GrantStatus.PENDING_CONFIRMATION, None, NotGranted(Denial.CONFIRMATION_PENDING)),
    ],
)
def test_only_an_active_grant_gives_a_token(
    status: GrantStatus, reason: str | None, expected: NotGranted
) -> None:
    grants = [stored(status=status, reason=reason)]

    assert choose_grant(grants, caller(), request(scopes=(GMAIL_READONLY,))) == expected


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        (None, None),
        ((CALENDAR,), None),
        ((GMAIL_READONLY,), NotGranted(Denial.SCOPE_NOT_ALLOWED, (GMAIL_READONLY,))),
        (BOTH, NotGranted(Denial.SCOPE_NOT_ALLOWED, (GMAIL_READONLY,))),
    ],
)
def test_the_policy_refuses_a_requested_scope_that_it_lacks(
    requested: tuple[str, ...] | None, expected: NotGranted | None
) -> None:
    assert refused_by_policy(caller(), request(scopes=requested)) == expected


@pytest.mark.parametrize(
    ("account", "expected"),
    [("108", True), ("ada@example.com", True), ("ADA@Example.com", True), ("109", False)],
)
def test_an_account_is_named_by_sub_or_by_email_in_any_case(account: str, expected: bool) -> None:
    assert is_account(account, "108", "ada@example.com") is expected
