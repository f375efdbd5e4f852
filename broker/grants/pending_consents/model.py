"""A pending consent: one that its caller has not confirmed yet; how its tokens are sealed, and what
it becomes when it is confirmed.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.crypto.sealing import Sealed, Sealer
from broker.grants.model import AccessToken, Consent, Grant, GrantStatus
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class PendingConsent:
    """A consent that its caller has not confirmed, without any token."""

    link_id: UUID
    caller: str
    """The only caller that may confirm it."""
    user_id: str
    google_sub: str
    email: str
    client_id: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime

    def as_grant(self, status: GrantStatus = GrantStatus.PENDING_CONFIRMATION) -> Grant:
        """Return it as a list of grants shows it. It is not a grant: no version and no token."""
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
    """Return the consent of a row of `pending_consents`."""
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


def decide_confirmation(
    consent: Consent, live: Grant | None, *, seen_version: int | None, has_same_token: bool
) -> Consent | Grant | None:
    """Decide what a confirmed consent becomes beside the user's usable grant of that account.

    `seen_version` is the grant's version when the consent was given; `has_same_token` is true if
    both have the same refresh token. Returns the consent to store; or the grant, if it already
    includes the consent; or None, if a later consent contradicts this one.
    """
    if live is None or live.version == seen_version:
        return consent
    removed = set(live.scopes) - set(consent.scopes)
    if not removed:
        return consent
    if set(consent.scopes) <= set(live.scopes):
        # A later consent includes all of this, and more: it must not be reduced to this.
        return live
    return _added_to(live, consent) if has_same_token else None


def _added_to(live: Grant, consent: Consent) -> Consent:
    """The common refresh token can fetch the scopes of both; the consent's access token can't."""
    scopes = tuple(dict.fromkeys((*live.scopes, *consent.scopes)))
    return replace(consent, scopes=scopes, refresh_token=None, access_token=None)


class PendingSealer:
    """Seals each token of a pending consent for its link, user and account."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, column: str, pending: PendingConsent, token: Secret | None) -> Sealed | None:
        """Seal for the column `refresh_token` or `access_token`. None remains None."""
        if token is None:
            return None
        return self._sealer.seal(token, place=_place(column, pending))

    def open_refresh_token(self, row: asyncpg.Record) -> Secret | None:
        """Return the refresh token, if Google sent one. Raises `UnsealingError`."""
        if row["sealed_refresh_token"] is None:
            return None
        sealed = Sealed(row["refresh_token_key_id"], row["sealed_refresh_token"])
        return self._sealer.open(sealed, place=_place("refresh_token", pending_consent_from(row)))

    def open_access_token(self, row: asyncpg.Record) -> AccessToken | None:
        """Return the first access token, if such tokens are stored. Raises `UnsealingError`."""
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

    def open_consent(self, row: asyncpg.Record) -> Consent:
        """Return the consent with its tokens. Raises `UnsealingError`."""
        return Consent(
            user_id=row["user_id"],
            google_sub=row["google_sub"],
            email=row["email"],
            client_id=row["client_id"],
            scopes=tuple(row["scopes"]),
            refresh_token=self.open_refresh_token(row),
            access_token=self.open_access_token(row),
            given_at=row["created_at"],
            exchanged_after=row["exchanged_after"],
        )


def _place(column: str, pending: PendingConsent) -> tuple[str, ...]:
    row = (str(pending.link_id), pending.caller, pending.user_id, pending.google_sub)
    return ("pending_consents", column, *row)
