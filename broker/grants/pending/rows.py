"""What a consent that waits for its confirmation is, and how its tokens are sealed meanwhile."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class PendingConsent:
    """A consent that its caller has not confirmed, without any token."""

    link_id: UUID
    caller: str
    """The only one that may confirm it."""
    user_id: str
    google_sub: str
    email: str
    client_id: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime

    def as_grant(self, status: GrantStatus = GrantStatus.PENDING_CONFIRMATION) -> Grant:
        """How a list of grants shows it. It is no grant: it has no version and no token."""
        return Grant(
            id=self.link_id,
            user_id=self.user_id,
            google_sub=self.google_sub,
            email=self.email,
            client_id=self.client_id,
            scopes=self.scopes,
            status=status,
            reason=None,
            is_default=False,
            version=0,
            connected_at=self.created_at,
            updated_at=self.created_at,
            last_used_at=None,
            consented_at=self.created_at,
        )


def pending_consent_from(row: asyncpg.Record) -> PendingConsent:
    """The consent of a row of `pending_consents`."""
    return PendingConsent(
        link_id=UUID(bytes=row["link_id"].bytes),
        caller=row["caller"],
        user_id=row["user_id"],
        google_sub=row["google_sub"],
        email=row["email"],
        client_id=row["client_id"],
        scopes=tuple(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


class PendingSealer:
    """Seals each token of a pending consent for its link, user and account."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, column: str, pending: PendingConsent, token: Secret | None) -> Sealed | None:
        """Sealed for one of the columns `refresh_token` and `access_token`; nothing of nothing."""
        if token is None:
            return None
        return self._sealer.seal(token, place=_place(column, pending))

    def open_refresh_token(self, row: asyncpg.Record) -> Secret | None:
        """The refresh token that Google sent, if it did. Raises `UnsealingError`."""
        if row["sealed_refresh_token"] is None:
            return None
        sealed = Sealed(row["refresh_token_key_id"], row["sealed_refresh_token"])
        return self._sealer.open(sealed, place=_place("refresh_token", pending_consent_from(row)))

    def open_access_token(self, row: asyncpg.Record) -> AccessToken | None:
        """The first access token, if such tokens may be written. Raises `UnsealingError`."""
        if row["sealed_access_token"] is None:
            return None
        sealed = Sealed(row["access_token_key_id"], row["sealed_access_token"])
        value = self._sealer.open(sealed, place=_place("access_token", pending_consent_from(row)))
        return AccessToken(
            value,
            tuple(row["access_scopes"]),
            row["access_obtained_at"],
            row["access_expires_at"],
        )


def _place(column: str, pending: PendingConsent) -> tuple[str, ...]:
    row = (str(pending.link_id), pending.caller, pending.user_id, pending.google_sub)
    return ("pending_consents", column, *row)
