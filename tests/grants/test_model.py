"""Decisions of the model, without a database."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from broker.grants.model import AccessToken, Consent, Grant, GrantStatus, to_scope_set
from broker.secret import Secret

_NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)

GRANT = Grant(
    id=UUID(int=1),
    user_id="user-1",
    google_sub="sub-1",
    email="ada@example.com",
    client_id="client",
    scopes=("openid", "calendar"),
    status=GrantStatus.ACTIVE,
    reason=None,
    is_default=True,
    version=3,
    connected_at=_NOW,
    updated_at=_NOW,
    last_used_at=None,
)
CONSENT = Consent(
    user_id="user-1",
    google_sub="sub-1",
    email="ada@example.com",
    client_id="client",
    scopes=("openid",),
    refresh_token=Secret("1//refresh"),
    access_token=AccessToken(Secret("ya29"), ("openid",), _NOW, _NOW + timedelta(hours=1)),
)


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ([], ""),
        (["b", "a"], "a b"),
        (["a", "b", "a"], "a b"),
    ],
)
def test_a_scope_set_is_sorted_without_duplicates(scopes: Sequence[str], expected: str) -> None:
    assert to_scope_set(scopes) == expected


@pytest.mark.parametrize(
    ("refresh_token", "access_token", "expected"),
    [
        (Secret("1//refresh"), CONSENT.access_token, Secret("1//refresh")),
        (None, CONSENT.access_token, Secret("ya29")),
        (Secret("1//refresh"), None, Secret("1//refresh")),
        (None, None, None),
    ],
)
def test_a_consent_is_revoked_by_its_refresh_token_or_else_its_access_token(
    refresh_token: Secret | None, access_token: AccessToken | None, expected: Secret | None
) -> None:
    consent = replace(CONSENT, refresh_token=refresh_token, access_token=access_token)
    assert consent.any_token == expected


@pytest.mark.parametrize(
    ("unrequested", "grant", "scopes", "remaining"),
    [
        (("calendar",), None, ("openid",), ("calendar",)),
        (("calendar",), GRANT, ("openid", "calendar"), ()),
        (("calendar", "drive"), GRANT, ("openid", "calendar"), ("drive",)),
        (("drive",), GRANT, ("openid",), ("drive",)),
        (
            ("calendar",),
            replace(GRANT, status=GrantStatus.REVOKED),
            ("openid",),
            ("calendar",),
        ),
        (
            ("calendar",),
            replace(GRANT, status=GrantStatus.REAUTHORIZATION_REQUIRED),
            ("openid", "calendar"),
            (),
        ),
    ],
    ids=["no grant", "all", "some", "none", "revoked", "reauthorization required"],
)
def test_a_consent_includes_the_scopes_that_the_grant_has_gained(
    unrequested: tuple[str, ...],
    grant: Grant | None,
    scopes: tuple[str, ...],
    remaining: tuple[str, ...],
) -> None:
    consent = replace(CONSENT, unrequested_scopes=unrequested).with_scopes_by(grant)
    assert (consent.scopes, consent.unrequested_scopes) == (scopes, remaining)


@pytest.mark.parametrize(
    ("grant", "scopes", "unrequested"),
    [
        (GRANT, ("openid", "calendar"), ()),
        (
            replace(GRANT, status=GrantStatus.REAUTHORIZATION_REQUIRED),
            ("openid", "calendar"),
            (),
        ),
        (None, ("openid",), ("calendar",)),
        (replace(GRANT, status=GrantStatus.REVOKED), ("openid",), ("calendar",)),
    ],
    ids=["active", "reauthorization required", "no grant", "revoked"],
)
def test_a_scope_of_an_earlier_consent_needs_its_grant(
    grant: Grant | None, scopes: tuple[str, ...], unrequested: tuple[str, ...]
) -> None:
    """The grant may be revoked between the callback's read and its lock."""
    token = AccessToken(Secret("a"), ("openid", "calendar"), _NOW, _NOW)
    consent = replace(
        CONSENT, scopes=("openid", "calendar"), earlier_scopes=("calendar",), access_token=token
    ).with_scopes_by(grant)
    assert (consent.scopes, consent.unrequested_scopes) == (scopes, unrequested)
    assert (consent.access_token is not None) is ("calendar" in scopes)


@pytest.mark.parametrize(
    ("grant", "expected"),
    [
        (None, False),
        (GRANT, True),
        (replace(GRANT, client_id="another"), False),
        (replace(GRANT, status=GrantStatus.REVOKED), False),
        (replace(GRANT, status=GrantStatus.REAUTHORIZATION_REQUIRED), False),
    ],
    ids=["no grant", "active", "another client", "revoked", "reauthorization required"],
)
def test_only_an_active_grant_of_the_same_client_has_a_token_to_keep(
    grant: Grant | None, expected: bool
) -> None:
    assert CONSENT.can_keep_token_of(grant) is expected


@pytest.mark.parametrize(
    ("consented_at", "expected"),
    [(None, _NOW), (_NOW - timedelta(days=1), _NOW - timedelta(days=1))],
)
def test_a_grant_stands_since_its_consent_or_else_its_last_change(
    consented_at: datetime | None, expected: datetime
) -> None:
    assert replace(GRANT, consented_at=consented_at).stands_since == expected
