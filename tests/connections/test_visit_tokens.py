"""Tokens of links to the connections page: signed, and valid until they expire."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.connections.visits import VISIT_LINK_LIFETIME, Visit, VisitTokenFault, VisitTokens
from broker.crypto.signing import Signer
from broker.secret import Secret

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
ORIGIN = "https://app.example.com"
TOKENS = VisitTokens(
    Signer([Secret("a secret key for tests, of 32 bytes and more")], "connections links"), ORIGIN
)


def a_visit(*, is_opened: bool = False, ends_in: timedelta = VISIT_LINK_LIFETIME) -> Visit:
    """Return a visit that was created now."""
    return Visit(
        id=UUID(int=7),
        caller="calendar-sync",
        user_id="alice",
        return_to=None,
        link_expires_at=NOW + VISIT_LINK_LIFETIME,
        is_opened=is_opened,
        ends_at=NOW + ends_in,
    )


def test_a_token_names_its_visit() -> None:
    url = TOKENS.url(a_visit())
    start, _, token = url.partition("?link=")
    assert start == f"{ORIGIN}/connections"
    assert TOKENS.verify(token, now=NOW) == UUID(int=7)
    assert TOKENS.verify(token, now=NOW + VISIT_LINK_LIFETIME) is VisitTokenFault.EXPIRED


@pytest.mark.parametrize("unverified", ["", "x", "0" * 32 + ".1." + "A" * 43, "x" * 10_000])
def test_an_unsigned_token_is_rejected(unverified: str) -> None:
    assert TOKENS.verify(unverified, now=NOW) is VisitTokenFault.NOT_OURS


@pytest.mark.parametrize(
    ("is_opened", "ends_in", "is_active"),
    [
        (True, timedelta(seconds=1), True),
        (True, timedelta(0), False),
        (False, timedelta(seconds=1), False),
    ],
)
def test_a_visit_is_active_from_its_opening_to_its_end(
    is_opened: bool, ends_in: timedelta, is_active: bool
) -> None:
    assert a_visit(is_opened=is_opened, ends_in=ends_in).is_active(NOW) is is_active
