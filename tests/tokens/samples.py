"""Grants, callers and tokens for tests without a database."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from broker.callers.model import Caller, Permission
from broker.crypto.sealing import Sealed
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.grants.rows import SealedAccessToken, StoredGrant
from broker.secret import Secret
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.token_request import TokenRequest
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR

START = ManualClock().now()


def grant(user_id: str = "user-1", **changes: Any) -> Grant:
    """A grant of the calendar scope."""
    usual: dict[str, Any] = {
        "id": uuid4(),
        "user_id": user_id,
        "google_sub": f"sub of {user_id}",
        "email": f"{user_id}@example.com",
        "client_id": "client",
        "scopes": (CALENDAR,),
        "status": GrantStatus.ACTIVE,
        "reason": None,
        "is_default": True,
        "version": 1,
        "connected_at": START,
        "updated_at": START,
        "last_used_at": None,
    }
    return Grant(**(usual | changes))


def stored(user_id: str = "user-1", **changes: Any) -> StoredGrant:
    """The same as it is read from the table, without any token."""
    return StoredGrant(grant(user_id, **changes), None, {})


def sealed_token(expires_at: datetime) -> SealedAccessToken:
    """An access token that only a fake can open."""
    return SealedAccessToken(
        Sealed("key", b""), (CALENDAR,), expires_at - timedelta(hours=1), expires_at
    )


def caller(**changes: Any) -> Caller:
    """A caller that may have the calendar scope of every user."""
    usual: dict[str, Any] = {
        "name": "calendar-sync",
        "key_hashes": frozenset(),
        "permissions": frozenset({Permission.TOKENS_READ}),
        "scopes": (CALENDAR,),
        "users": ("*",),
    }
    return Caller(**(usual | changes))


def request(user_id: str = "user-1", **changes: Any) -> TokenRequest:
    """A request for all that grant and caller share."""
    usual: dict[str, Any] = {"scopes": None, "account": None, "min_ttl": 60}
    return TokenRequest(user_id, **(usual | changes))


def cached(
    clock: ManualClock,
    of: Grant | None = None,
    *,
    left: timedelta = timedelta(hours=1),
    age: timedelta = timedelta(0),
    scopes: tuple[str, ...] = (CALENDAR,),
) -> CachedToken:
    """A token that was obtained `age` ago and is valid for `left`."""
    now = clock.now()
    return CachedToken(of or grant(), AccessToken(Secret("ya29.x"), scopes, now - age, now + left))
