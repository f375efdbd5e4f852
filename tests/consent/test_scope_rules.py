"""Which scopes are requested, and which of the granted ones count: tables, without a database."""

import logging

import pytest

from broker.consent.scope_rules import (
    EarlierGrants,
    ScopeRules,
    account_mismatch,
    is_named,
    limited_to_requested,
)
from broker.grants.model import Grant, GrantStatus
from tests.consent.samples import (
    CLIENT_ID,
    EMAIL,
    IDENTITY,
    SUB,
    a_consent,
    a_grant,
    a_link,
    a_pending_consent,
    consumed,
)
from tests.support.scopes import CALENDAR_READONLY, DRIVE_READONLY, TASKS_READONLY

RULES = ScopeRules(lambda: CLIENT_ID, [CALENDAR_READONLY, TASKS_READONLY])

REVOKED = a_grant(CALENDAR_READONLY, TASKS_READONLY, status=GrantStatus.REVOKED)
BROKEN = a_grant(CALENDAR_READONLY, TASKS_READONLY, status=GrantStatus.REAUTHORIZATION_REQUIRED)
OF_OLD_CLIENT = a_grant(CALENDAR_READONLY, TASKS_READONLY, client_id="client-0")


@pytest.mark.parametrize(
    ("hint", "grants", "scopes", "prompts"),
    [
        (None, [a_grant(CALENDAR_READONLY)], [CALENDAR_READONLY], True),
        (EMAIL, [], [CALENDAR_READONLY], True),
        ("grace@example.com", [a_grant(CALENDAR_READONLY)], [CALENDAR_READONLY], True),
        (EMAIL, [a_grant(CALENDAR_READONLY)], [CALENDAR_READONLY], False),
        (EMAIL.upper(), [a_grant(CALENDAR_READONLY)], [CALENDAR_READONLY], False),
        (SUB, [a_grant(CALENDAR_READONLY)], [CALENDAR_READONLY], False),
        (
            SUB,
            [a_grant(CALENDAR_READONLY, TASKS_READONLY)],
            [CALENDAR_READONLY, TASKS_READONLY],
            False,
        ),
        (SUB, [a_grant(TASKS_READONLY)], [CALENDAR_READONLY, TASKS_READONLY], True),
        (SUB, [a_grant(CALENDAR_READONLY, DRIVE_READONLY)], [CALENDAR_READONLY], False),
        (SUB, [REVOKED], [CALENDAR_READONLY], True),
        (SUB, [BROKEN], [CALENDAR_READONLY], True),
        (SUB, [OF_OLD_CLIENT], [CALENDAR_READONLY], True),
    ],
    ids=[
        "no hint",
        "no grant",
        "another account",
        "all granted",
        "email in capitals",
        "by sub",
        "keeps what was granted",
        "beyond the grant",
        "a scope that no link may request",
        "revoked",
        "broken",
        "grant of another client",
    ],
)
def test_first_parameters(
    hint: str | None, grants: list[Grant], scopes: list[str], prompts: bool
) -> None:
    link = a_link(CALENDAR_READONLY, login_hint=hint)
    parameters = RULES.first_parameters(link, grants)
    assert parameters.scopes == (*IDENTITY, *scopes)
    assert parameters.prompt_consent is prompts
    assert parameters.login_hint == hint


def test_a_link_that_forces_consent_requests_a_prompt() -> None:
    link = a_link(CALENDAR_READONLY, login_hint=SUB, force_consent=True)
    assert RULES.first_parameters(link, [a_grant(CALENDAR_READONLY)]).prompt_consent


@pytest.mark.parametrize(
    ("grants", "granted", "requested"),
    [
        ([], [CALENDAR_READONLY], None),
        ([a_grant(TASKS_READONLY)], [CALENDAR_READONLY, TASKS_READONLY], None),
        ([a_grant(TASKS_READONLY)], [CALENDAR_READONLY], [CALENDAR_READONLY, TASKS_READONLY]),
        ([a_grant(CALENDAR_READONLY)], [], None),
        ([a_grant(DRIVE_READONLY)], [CALENDAR_READONLY], None),
        ([a_grant(TASKS_READONLY, google_sub="2002")], [CALENDAR_READONLY], None),
        ([REVOKED], [CALENDAR_READONLY], None),
        ([BROKEN], [CALENDAR_READONLY], None),
        ([OF_OLD_CLIENT], [CALENDAR_READONLY], None),
    ],
    ids=[
        "no grant",
        "nothing is lost",
        "an unrequested scope would be lost",
        "a requested scope was declined",
        "a scope that no link may request",
        "another account",
        "revoked",
        "broken",
        "grant of another client",
    ],
)
def test_a_grant_loses_no_scope_that_was_not_requested(
    grants: list[Grant], granted: list[str], requested: list[str] | None
) -> None:
    request = consumed(a_link(CALENDAR_READONLY))
    parameters = RULES.parameters_to_keep_scopes(request, a_consent(*granted), grants)
    if requested is None:
        assert parameters is None
    else:
        assert parameters is not None
        assert parameters.scopes == (*IDENTITY, *requested)
        assert (parameters.login_hint, parameters.prompt_consent) == (SUB, True)


def test_a_scope_that_was_requested_once_more_and_declined_is_lost() -> None:
    request = consumed(a_link(CALENDAR_READONLY), CALENDAR_READONLY, TASKS_READONLY)
    assert (
        RULES.parameters_to_keep_scopes(
            request, a_consent(CALENDAR_READONLY), [a_grant(TASKS_READONLY)]
        )
        is None
    )


@pytest.mark.parametrize(
    ("hint", "email_verified", "grants", "reason"),
    [
        (None, True, [], None),
        (SUB, False, [], None),
        (EMAIL, True, [], None),
        (EMAIL.upper(), True, [], None),
        (EMAIL, False, [], "address_not_verified"),
        ("old@example.com", True, [], "account_mismatch"),
        ("old@example.com", True, [a_grant(email="old@example.com")], None),
        ("old@example.com", False, [a_grant(email="old@example.com")], "address_not_verified"),
        (
            "old@example.com",
            True,
            [a_grant(email="old@example.com", google_sub="2002")],
            "account_mismatch",
        ),
        ("2002", True, [a_grant()], "account_mismatch"),
    ],
    ids=[
        "no hint",
        "sub",
        "email",
        "email in capitals",
        "unverified email",
        "another email",
        "former email",
        "former email, unverified",
        "email of another account",
        "another sub",
    ],
)
def test_account_mismatch(
    hint: str | None, email_verified: bool, grants: list[Grant], reason: str | None
) -> None:
    consent = a_consent(is_email_verified=email_verified)
    assert account_mismatch(a_link(login_hint=hint), consent, grants) == reason


_PENDING = a_pending_consent(TASKS_READONLY)


@pytest.mark.parametrize(
    ("confirm", "earlier", "counts"),
    [
        (False, EarlierGrants([]), False),
        (False, EarlierGrants([a_grant(TASKS_READONLY)]), True),
        (False, EarlierGrants([BROKEN]), True),
        (False, EarlierGrants([OF_OLD_CLIENT]), True),
        (False, EarlierGrants([REVOKED]), False),
        (False, EarlierGrants([a_grant(TASKS_READONLY, google_sub="2002")]), False),
        (False, EarlierGrants([], [_PENDING]), False),
        (True, EarlierGrants([], [_PENDING]), True),
        (True, EarlierGrants([], [a_pending_consent(TASKS_READONLY, caller="another")]), False),
        (True, EarlierGrants([], [a_pending_consent(TASKS_READONLY, google_sub="2002")]), False),
    ],
    ids=[
        "never requested",
        "granted",
        "broken grant",
        "grant of another client",
        "revoked",
        "another account",
        "pending, link without confirmation",
        "pending, link with confirmation",
        "pending for another caller",
        "pending for another account",
    ],
)
def test_a_granted_scope_counts_if_this_user_was_asked_for_it(
    confirm: bool, earlier: EarlierGrants, counts: bool
) -> None:
    """Google's answer names CALENDAR_READONLY, as requested, and TASKS_READONLY."""
    consent = a_consent(CALENDAR_READONLY, TASKS_READONLY)
    limited = limited_to_requested(
        consumed(a_link(CALENDAR_READONLY, confirm=confirm)), consent, earlier
    )
    assert limited.scopes == (*IDENTITY, CALENDAR_READONLY, *([TASKS_READONLY] if counts else []))
    assert limited.unrequested_scopes == (() if counts else (TASKS_READONLY,))
    # An access token with more scopes than the grant must not be handed out.
    assert (limited.access_token is not None) is counts
    assert limited.refresh_token == consent.refresh_token


def test_scopes_that_are_left_out_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="broker.consent.scope_rules"):
        limited_to_requested(
            consumed(a_link(CALENDAR_READONLY)),
            a_consent(CALENDAR_READONLY, DRIVE_READONLY),
            EarlierGrants([]),
        )
    (record,) = caplog.records
    assert vars(record)["event"] == "unrequested_scopes_left_out"
    assert vars(record)["scopes"] == DRIVE_READONLY


@pytest.mark.parametrize(
    ("hint", "named"),
    [(SUB, True), (EMAIL, True), (EMAIL.title(), True), ("1002", False), ("", False)],
)
def test_a_hint_names_an_account(hint: str, named: bool) -> None:
    assert is_named(hint, SUB, EMAIL) is named
