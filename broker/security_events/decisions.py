"""Pure decisions about security events: which consents an event concerns, and what it does to them.

Events arrive late, and many state no more than when they were signed. Where an event may concern a
token that was given up before, it does not count against the token that came after.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from broker.google.security_events import EventKind, SecurityEvent, SecurityEventToken
from broker.grants.model import Grant, GrantStatus

DATE_RESOLUTION = timedelta(seconds=1)
"""Events are dated in whole seconds."""

MAX_SIGNING_DELAY = timedelta(hours=1)
"""An event without a date of its own may be signed this long after it happened."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Google's date of an event may differ from the broker's clock by this much."""


class Effect(StrEnum):
    """The effect of an event on a grant or a pending consent, or the reason why there is none."""

    ERASED = "erased"
    SUSPENDED = "held_back"
    RESUMED = "brought_back"
    REFRESH_REQUIRED = "asked_anew"
    CONSENT_ENDED = "consent_ended"
    """The pending consent is deleted."""
    UNCHANGED = "unchanged"
    OUTDATED = "outdated"
    NO_GRANT = "no_grant"
    NOTED = "noted"
    NOT_UNDERSTOOD = "not_understood"


@dataclass(frozen=True, slots=True)
class AppliedEffect:
    """One event's effect on one grant, on one pending consent, or on none."""

    kind: EventKind
    effect: Effect
    grant: Grant | None = None
    """The grant before the effect."""
    google_sub: str | None = None


def grant_effect(
    token: SecurityEventToken,
    event: SecurityEvent,
    grant: Grant,
    *,
    given_up_at: datetime | None,
    is_outdated: bool,
) -> Effect | None:
    """Return the effect that an account's event demands on one of its grants; None for no effect.

    `given_up_at` is when a token of the account was last revoked or replaced. `is_outdated` is true
    if a newer event has stated whether the account is disabled.
    """
    is_active = grant.status is GrantStatus.ACTIVE
    if event.kind is EventKind.TOKENS_REVOKED:
        if not is_same_project(grant.client_id, token.audience):
            return None
        is_spared = is_active and may_concern_older_token(grant.stands_since, given_up_at, token)
        return Effect.REFRESH_REQUIRED if is_spared else Effect.ERASED
    is_spared = is_active and is_newer_than_event(grant.stands_since, token)
    if event.kind is EventKind.ACCOUNT_DISABLED and event.reason == "hijacking":
        return Effect.REFRESH_REQUIRED if is_spared else Effect.ERASED
    if is_outdated:
        return Effect.OUTDATED
    if event.kind is EventKind.ACCOUNT_ENABLED:
        return Effect.RESUMED
    if event.kind is EventKind.ACCOUNT_DISABLED and not is_spared:
        return Effect.SUSPENDED
    return Effect.REFRESH_REQUIRED


def pending_consent_effect(
    token: SecurityEventToken,
    event: SecurityEvent,
    *,
    client_id: str,
    created_at: datetime,
    given_up_at: datetime | None,
) -> Effect | None:
    """Return the effect that an account's event demands on a pending consent; None for no effect.

    Any event but `account-enabled` may end it: connecting again costs less than trusting a stolen
    account.
    """
    if event.kind is EventKind.ACCOUNT_ENABLED:
        return None
    if event.kind is not EventKind.TOKENS_REVOKED:
        is_spared = is_newer_than_event(created_at, token)
    elif is_same_project(client_id, token.audience):
        is_spared = may_concern_older_token(created_at, given_up_at, token)
    else:
        return None
    return Effect.REFRESH_REQUIRED if is_spared else Effect.CONSENT_ENDED


def is_newer_than_event(since: datetime, token: SecurityEventToken) -> bool:
    """True if the consent was given after the event, so that the event can't concern it."""
    return since >= token.happened_at + DATE_RESOLUTION


def may_concern_older_token(
    since: datetime, given_up_at: datetime | None, token: SecurityEventToken
) -> bool:
    """True if the event may concern the token given up around then, not the current one."""
    if is_newer_than_event(since, token):
        return True
    earliest = token.happened_at - (CLOCK_TOLERANCE if token.is_dated else MAX_SIGNING_DELAY)
    return given_up_at is not None and min(given_up_at, since) > earliest


def is_same_project(client_id: str, audience: Iterable[str]) -> bool:
    """True if the client belongs to the project of one of these clients.

    Google revokes what an account has granted to a project.
    """
    return any(_project(client_id) == _project(each) for each in audience)


def _project(client_id: str) -> str:
    """Return the project number that Google's client ids begin with; the oldest are little more."""
    number = re.match(r"([0-9]+)[-.]", client_id)
    return number[1] if number else client_id
