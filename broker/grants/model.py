"""What a grant and a held access token are, apart from how they are stored."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from broker.secret import Secret


class GrantStatus(StrEnum):
    """The contract's words for what state a grant is in."""

    ACTIVE = "active"
    PENDING_CONFIRMATION = "pending_confirmation"
    REAUTHORIZATION_REQUIRED = "reauthorization_required"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Grant:
    """What one user allowed for one Google account, without any token."""

    id: UUID
    user_id: str
    google_sub: str
    email: str
    client_id: str
    scopes: tuple[str, ...]
    """As Google named them when it granted them."""
    status: GrantStatus
    reason: str | None
    is_default: bool
    version: int
    connected_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    last_used_by: str | None = None
    """The caller that got the token then; unknown where an older release noted the use."""
    refresh_token_version: int = 1
    """Apart from `version`: access tokens outlive the refresh token that they were fetched with."""
    consented_at: datetime | None = None
    """When the last consent was given; unknown where an older release stored it."""

    @property
    def stands_since(self) -> datetime:
        """When it was consented to, or last changed if that is not known."""
        return self.consented_at or self.updated_at


@dataclass(frozen=True, slots=True)
class LastUse:
    """When a grant's token was last handed out, and to which caller."""

    at: datetime
    by: str | None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that Google handed out for a grant, narrowed to a set of scopes."""

    value: Secret
    scopes: tuple[str, ...]
    """What Google said it carries."""
    obtained_at: datetime
    expires_at: datetime


def scope_set(scopes: Iterable[str]) -> str:
    """The key under which a narrowed token is held: the scopes sorted, spaces between."""
    return " ".join(sorted(set(scopes)))
