"""Which consents an event concerns, and what it does to them, without a database."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.google.security_events import AccountSubject, EventKind, SecurityEvent
from broker.google.security_events import SecurityEventToken as Token
from broker.grants.model import Grant, GrantStatus
from broker.security_events.decisions import (
    CLOCK_TOLERANCE,
    MAX_SIGNING_DELAY,
    Effect,
    grant_effect,
    is_newer_than_event,
    is_same_project,
    may_concern_older_token,
    pending_consent_effect,
)

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
LONG_BEFORE, SINCE = AT - 24 * HOUR, AT + MINUTE
OURS, OTHER = "12-ours.apps.example", "34-other.apps.example"


def token(*, is_dated: bool = True, audience: str = OURS) -> Token:
    return Token("jti", (audience,), AT, AT, is_dated, ())


def event(kind: EventKind, reason: str | None = None) -> SecurityEvent:
    return SecurityEvent(kind, AccountSubject("108"), reason)


def grant(status: GrantStatus, consented_at: datetime) -> Grant:
    return Grant(
        id=UUID(int=1),
        user_id="user-1",
        google_sub="108",
        email="ada@example.com",
        client_id=OURS,
        scopes=(),
        status=status,
        reason=None,
        is_default=True,
        version=1,
        connected_at=LONG_BEFORE,
        updated_at=LONG_BEFORE,
        last_used_at=None,
        consented_at=consented_at,
    )


@pytest.mark.parametrize(
    ("since", "is_newer"),
    [(AT - SECOND, False), (AT, False), (AT + 0.999 * SECOND, False), (AT + SECOND, True)],
)
def test_a_consent_is_newer_a_second_after_the_event(since: datetime, *, is_newer: bool) -> None:
    assert is_newer_than_event(since, token()) is is_newer


@pytest.mark.parametrize(
    ("since", "given_up_at", "is_dated", "expected"),
    [
        # A consent after the event is never concerned.
        (AT + SECOND, None, True, True),
        (AT + SECOND, None, False, True),
        # Without a token that was given up, the event concerns the current one.
        (AT - SECOND, None, True, False),
        (AT - SECOND, None, False, False),
        # A token given up about when the event happened may be the one that it concerns.
        (AT - SECOND, AT - SECOND, True, True),
        (AT - SECOND, AT - 2 * CLOCK_TOLERANCE, True, False),
        (AT - SECOND, AT - 2 * CLOCK_TOLERANCE, False, True),
        (AT - SECOND, AT - MAX_SIGNING_DELAY, False, False),
        # The older of the two dates counts.
        (AT - 2 * MAX_SIGNING_DELAY, AT - SECOND, False, False),
        (AT - 2 * CLOCK_TOLERANCE, AT - SECOND, True, False),
    ],
)
def test_an_event_may_concern_an_older_token(
    since: datetime, given_up_at: datetime | None, *, is_dated: bool, expected: bool
) -> None:
    assert may_concern_older_token(since, given_up_at, token(is_dated=is_dated)) is expected


@pytest.mark.parametrize(
    ("client_id", "audience", "expected"),
    [
        ("12-a.apps.example", ["12-b.apps.example"], True),
        ("12-a.apps.example", ["34-a.apps.example", "12-b.apps.example"], True),
        ("12-a.apps.example", ["34-a.apps.example"], False),
        ("12.apps.example", ["12-b.apps.example"], True),
        ("demo.apps.example", ["demo.apps.example"], True),
        ("demo.apps.example", ["other.apps.example"], False),
        ("12-a.apps.example", [], False),
    ],
)
def test_clients_of_one_project_have_its_number(
    client_id: str, audience: list[str], *, expected: bool
) -> None:
    assert is_same_project(client_id, audience) is expected


ACTIVE, BROKEN = GrantStatus.ACTIVE, GrantStatus.REAUTHORIZATION_REQUIRED


@pytest.mark.parametrize(
    ("happened", "status", "consented_at", "is_outdated", "expected"),
    [
        (event(EventKind.TOKENS_REVOKED), ACTIVE, LONG_BEFORE, False, Effect.ERASED),
        (event(EventKind.TOKENS_REVOKED), ACTIVE, SINCE, False, Effect.REFRESH_REQUIRED),
        (event(EventKind.TOKENS_REVOKED), BROKEN, SINCE, False, Effect.ERASED),
        (event(EventKind.ACCOUNT_DISABLED), ACTIVE, LONG_BEFORE, False, Effect.SUSPENDED),
        (event(EventKind.ACCOUNT_DISABLED), ACTIVE, SINCE, False, Effect.REFRESH_REQUIRED),
        (event(EventKind.ACCOUNT_DISABLED), BROKEN, SINCE, False, Effect.SUSPENDED),
        (event(EventKind.ACCOUNT_DISABLED), ACTIVE, LONG_BEFORE, True, Effect.OUTDATED),
        (event(EventKind.ACCOUNT_DISABLED, "hijacking"), ACTIVE, LONG_BEFORE, True, Effect.ERASED),
        (
            event(EventKind.ACCOUNT_DISABLED, "hijacking"),
            ACTIVE,
            SINCE,
            False,
            Effect.REFRESH_REQUIRED,
        ),
        (event(EventKind.ACCOUNT_DISABLED, "hijacking"), BROKEN, SINCE, False, Effect.ERASED),
        (event(EventKind.ACCOUNT_ENABLED), BROKEN, LONG_BEFORE, False, Effect.RESUMED),
        (event(EventKind.ACCOUNT_ENABLED), BROKEN, LONG_BEFORE, True, Effect.OUTDATED),
        (event(EventKind.SESSIONS_REVOKED), ACTIVE, LONG_BEFORE, False, Effect.REFRESH_REQUIRED),
        (event(EventKind.SESSIONS_REVOKED), ACTIVE, SINCE, False, Effect.REFRESH_REQUIRED),
        (
            event(EventKind.CREDENTIAL_CHANGE_REQUIRED),
            ACTIVE,
            LONG_BEFORE,
            False,
            Effect.REFRESH_REQUIRED,
        ),
    ],
)
def test_the_effect_of_an_event_on_a_grant(
    happened: SecurityEvent,
    status: GrantStatus,
    consented_at: datetime,
    *,
    is_outdated: bool,
    expected: Effect,
) -> None:
    effect = grant_effect(
        token(), happened, grant(status, consented_at), given_up_at=None, is_outdated=is_outdated
    )
    assert effect is expected


def test_revoked_tokens_of_another_project_have_no_effect_on_a_grant() -> None:
    effect = grant_effect(
        token(audience=OTHER),
        event(EventKind.TOKENS_REVOKED),
        grant(ACTIVE, LONG_BEFORE),
        given_up_at=None,
        is_outdated=False,
    )
    assert effect is None


@pytest.mark.parametrize(
    ("kind", "audience", "created_at", "given_up_at", "expected"),
    [
        (EventKind.ACCOUNT_ENABLED, OURS, LONG_BEFORE, None, None),
        (EventKind.TOKENS_REVOKED, OURS, LONG_BEFORE, None, Effect.CONSENT_ENDED),
        (EventKind.TOKENS_REVOKED, OTHER, LONG_BEFORE, None, None),
        (EventKind.TOKENS_REVOKED, OURS, SINCE, None, Effect.REFRESH_REQUIRED),
        (EventKind.TOKENS_REVOKED, OURS, AT - SECOND, AT - SECOND, Effect.REFRESH_REQUIRED),
        (EventKind.ACCOUNT_DISABLED, OURS, LONG_BEFORE, None, Effect.CONSENT_ENDED),
        (EventKind.ACCOUNT_DISABLED, OTHER, LONG_BEFORE, None, Effect.CONSENT_ENDED),
        (EventKind.ACCOUNT_DISABLED, OURS, SINCE, None, Effect.REFRESH_REQUIRED),
        (EventKind.SESSIONS_REVOKED, OURS, LONG_BEFORE, None, Effect.CONSENT_ENDED),
        (EventKind.SESSIONS_REVOKED, OURS, AT - SECOND, AT - SECOND, Effect.CONSENT_ENDED),
        (EventKind.CREDENTIAL_CHANGE_REQUIRED, OURS, LONG_BEFORE, None, Effect.CONSENT_ENDED),
    ],
)
def test_the_effect_of_an_event_on_a_pending_consent(
    kind: EventKind,
    audience: str,
    created_at: datetime,
    given_up_at: datetime | None,
    expected: Effect | None,
) -> None:
    effect = pending_consent_effect(
        token(audience=audience),
        event(kind),
        client_id=OURS,
        created_at=created_at,
        given_up_at=given_up_at,
    )
    assert effect is expected
