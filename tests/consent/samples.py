"""Links, grants and consents for tests that need no table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from broker.callers.model import Caller, Permission
from broker.consent.authorization_requests import AuthorizationRequest, ConsumedRequest
from broker.consent.links import ConnectLink
from broker.grants.model import AccessToken, Consent, Grant, GrantStatus
from broker.grants.pending_consents.model import PendingConsent
from broker.secret import Secret
from tests.support.scopes import CALENDAR_READONLY, TASKS_READONLY

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
CLIENT_ID = "client-1"
SUB, EMAIL = "1001", "ada@example.com"
IDENTITY = ("openid", "email")


def a_link(*scopes: str, **changes: Any) -> ConnectLink:
    """Return a link of the caller `calendar-sync` for the user `alice`."""
    link = ConnectLink(
        id=UUID(int=1),
        caller="calendar-sync",
        user_id="alice",
        scopes=(*IDENTITY, *scopes),
        redirect_uri="https://app.example.com/auth/google/callback",
        return_to=None,
        login_hint=None,
        force_consent=False,
        expires_at=NOW + timedelta(minutes=10),
        completed_at=None,
    )
    return replace(link, **changes)


def a_grant(*scopes: str, **changes: Any) -> Grant:
    """Return an active grant of `alice` for the account `SUB`."""
    grant = Grant(
        id=UUID(int=2),
        user_id="alice",
        google_sub=SUB,
        email=EMAIL,
        client_id=CLIENT_ID,
        scopes=(*IDENTITY, *scopes),
        status=GrantStatus.ACTIVE,
        reason=None,
        is_default=True,
        version=1,
        connected_at=NOW,
        updated_at=NOW,
        last_used_at=None,
    )
    return replace(grant, **changes)


def a_pending_consent(*scopes: str, **changes: Any) -> PendingConsent:
    """Return a pending consent of `alice` for the account `SUB`."""
    pending = PendingConsent(
        link_id=UUID(int=3),
        caller="calendar-sync",
        user_id="alice",
        google_sub=SUB,
        email=EMAIL,
        client_id=CLIENT_ID,
        scopes=(*IDENTITY, *scopes),
        created_at=NOW,
        expires_at=NOW + timedelta(minutes=10),
    )
    return replace(pending, **changes)


def a_consent(*scopes: str, **changes: Any) -> Consent:
    """Return what Google answered for the account `SUB`."""
    granted = (*IDENTITY, *scopes)
    consent = Consent(
        user_id="alice",
        google_sub=SUB,
        email=EMAIL,
        client_id=CLIENT_ID,
        scopes=granted,
        refresh_token=Secret("1//refresh"),
        access_token=AccessToken(Secret("ya29.access"), granted, NOW, NOW + timedelta(hours=1)),
    )
    return replace(consent, **changes)


def consumed(link: ConnectLink, *scopes: str) -> ConsumedRequest:
    """Return the link's authorization request, for its own scopes or for others."""
    request = AuthorizationRequest(
        state="state",
        nonce="nonce",
        code_verifier=Secret("verifier"),
        scopes=(*IDENTITY, *scopes) if scopes else link.scopes,
        consent_prompted=True,
    )
    return ConsumedRequest(link, request, b"browser", NOW)


def a_caller(**changes: Any) -> Caller:
    """Return the caller `calendar-sync`, which may do everything."""
    policy: dict[str, Any] = {
        "name": "calendar-sync",
        "key_hashes": frozenset(),
        "permissions": frozenset(Permission),
        "scopes": (CALENDAR_READONLY, TASKS_READONLY),
        "users": ("*",),
        "return_to": ("https://product.example.com/settings",),
    }
    return Caller(**{**policy, **changes})
