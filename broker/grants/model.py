"""Grants, consents and access tokens, independent of how they are stored."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from broker.secret import Secret


class GrantStatus(StrEnum):
    """A grant's status, as the API names it."""

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
    """The caller that received a token then; unknown if an older release recorded the use."""
    refresh_token_version: int = 1
    """Separate from `version`: access tokens outlive the refresh token that they came from."""
    consented_at: datetime | None = None
    """The time of the last consent; unknown if an older release stored it."""

    @property
    def stands_since(self) -> datetime:
        """The time of the last consent, or of the last change if that is unknown."""
        return self.consented_at or self.updated_at


@dataclass(frozen=True, slots=True)
class LastUse:
    """When a token of a grant was last served, and to which caller."""

    at: datetime
    by: str | None


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token that Google issued for a grant, narrowed to a set of scopes."""

    value: Secret
    scopes: tuple[str, ...]
    """The scopes that Google's answer named."""
    obtained_at: datetime
    expires_at: datetime


def to_scope_set(scopes: Iterable[str]) -> str:
    """Return the key under which a narrowed token is stored: the scopes sorted, space-separated."""
    return " ".join(sorted(set(scopes)))


@dataclass(frozen=True, slots=True)
class Consent:
    """Google's answer to a consent, after the ID token was verified."""

    user_id: str
    google_sub: str
    email: str
    client_id: str
    scopes: tuple[str, ...]
    """The granted scopes that this user was asked for, in this consent or an earlier one."""
    refresh_token: Secret | None
    access_token: AccessToken | None
    """None if it was not kept while the consent was pending."""
    given_at: datetime | None = None
    """Set if the consent was pending since; otherwise it is given now."""
    unrequested_scopes: tuple[str, ...] = ()
    """Scopes that Google's answer names although the user was not asked for them. Its tokens can
    fetch them."""
    earlier_scopes: tuple[str, ...] = ()
    """Those of `scopes` that only an earlier consent asked for: they need its grant."""
    is_email_verified: bool = True
    """False if Google says that the address is not verified: it then identifies no account."""
    exchanged_after: datetime | None = None
    """A time before the code exchange, by the database's clock. A revocation that Google received
    since then may have revoked this consent's tokens."""

    @property
    def any_token(self) -> Secret | None:
        """A token by which Google can revoke the consent."""
        if self.refresh_token is None and self.access_token is not None:
            return self.access_token.value
        return self.refresh_token

    def with_scopes_by(self, grant: Grant | None) -> "Consent":
        """Return the consent with the scopes that count by the user's grant as it is now.

        The grant may have changed since it was read: another consent may have added scopes that are
        unrequested here, or a revocation may have ended what only an earlier consent asked for. An
        access token with more than the remaining scopes is dropped.
        """
        if grant is None or grant.status is GrantStatus.REVOKED:
            if not self.earlier_scopes:
                return self
            scopes = tuple(scope for scope in self.scopes if scope not in self.earlier_scopes)
            unrequested = (*self.unrequested_scopes, *self.earlier_scopes)
            return replace(
                self,
                scopes=scopes,
                access_token=None,
                unrequested_scopes=unrequested,
                earlier_scopes=(),
            )
        requested = [scope for scope in self.unrequested_scopes if scope in grant.scopes]
        unrequested = tuple(scope for scope in self.unrequested_scopes if scope not in requested)
        return replace(self, scopes=(*self.scopes, *requested), unrequested_scopes=unrequested)

    def can_keep_token_of(self, grant: Grant | None) -> bool:
        """True if the grant's refresh token works for this consent, which brought none itself."""
        return (
            grant is not None
            and grant.status is GrantStatus.ACTIVE
            and grant.client_id == self.client_id
        )


class NoRefreshTokenError(Exception):
    """Google sent no refresh token and no working one is stored: the grant would not last."""


class RevocationUnderWayError(Exception):
    """A call to Google that revokes this account is under way, or was made since the code exchange:
    the tokens of the exchange are revoked too, or may be.
    """
