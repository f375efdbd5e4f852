"""Google, the OAuth client, leases and the table, for refreshes without any of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from broker.crypto.sealing import UnsealingError
from broker.google.errors import GoogleError
from broker.google.oauth import TokenResponse
from broker.grants.model import AccessToken, Grant
from broker.grants.refresh_lease import Lease, LeaseHeld
from broker.grants.rows import StoredGrant
from broker.secret import Secret
from broker.secret_sources.source import OAuthClient
from broker.tokens.refresh.google_refresh import Refresh
from tests.tokens.samples import START, stored

CLIENT = OAuthClient(client_id="client", client_secret=Secret("secret"), version=1)
HOUR = timedelta(hours=1)


def response(
    scopes: tuple[str, ...] | None = None, refresh_token: str | None = None
) -> TokenResponse:
    """Google's answer to a refresh."""
    return TokenResponse(
        access_token=Secret("ya29.new"),
        expires_at=START + HOUR,
        scopes=scopes,
        refresh_token=Secret(refresh_token) if refresh_token else None,
        id_token=None,
    )


@dataclass
class Google:
    """Answers one refresh after the other."""

    answers: list[TokenResponse | GoogleError] = field(default_factory=list)
    sent: list[tuple[OAuthClient, str, tuple[str, ...]]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def refresh(
        self, *, client: OAuthClient, refresh_token: Secret, scopes: tuple[str, ...]
    ) -> TokenResponse:
        self.sent.append((client, refresh_token.reveal(), scopes))
        await self.may_answer.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, GoogleError):
            raise answer
        return answer


@dataclass
class Client:
    """The configured OAuth client, and the one that a new reading gives."""

    client: OAuthClient = CLIENT
    next_client: OAuthClient | None = None
    reads: int = 0

    async def reread(self, _used: OAuthClient) -> bool:
        self.reads += 1
        if self.next_client is None:
            return False
        self.client, self.next_client = self.next_client, None
        return True


@dataclass
class Grants:
    """The table of grants."""

    rows: list[StoredGrant] = field(default_factory=lambda: [stored()])
    is_changed: bool = False
    failure: Exception | None = None
    """Raised by every method that uses the database."""
    is_unreadable: bool = False
    saved: list[tuple[str, AccessToken, Secret | None, Lease | None]] = field(default_factory=list)
    marked: list[str] = field(default_factory=list)

    async def find(self, _user_id: str) -> Sequence[StoredGrant]:
        self._fail()
        return self.rows

    def open_refresh_token(self, _stored: StoredGrant) -> Secret:
        if self.is_unreadable:
            raise UnsealingError
        return Secret("1//stored")

    async def save_refresh(
        self,
        grant: Grant,
        *,
        scope_set: str,
        access_token: AccessToken,
        refresh_token: Secret | None,
        lease: Lease | None,
    ) -> Grant | None:
        self._fail()
        self.saved.append((scope_set, access_token, refresh_token, lease))
        return None if self.is_changed else grant

    async def mark_reauthorization_required(self, _grant: Grant, reason: str) -> bool:
        self._fail()
        self.marked.append(reason)
        return not self.is_changed

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@dataclass
class Leases:
    """The leases of all replicas."""

    acquired: list[Lease | LeaseHeld | Exception] = field(default_factory=list)
    """The results of `acquire`, one after the other."""
    released: list[tuple[timedelta, str | None]] = field(default_factory=list)
    is_unsettled: bool = False

    async def acquire(
        self, grant_id: UUID, scope_set: str, *, duration: timedelta
    ) -> Lease | LeaseHeld:
        assert duration > timedelta(0)
        result = self.acquired.pop(0) if self.acquired else Lease(grant_id, scope_set, 1)
        if isinstance(result, Exception):
            raise result
        return result

    async def is_refreshing_other_scopes(self, _grant_id: UUID, _scope_set: str) -> bool:
        return False

    async def release(self, _lease: Lease, *, back_off: timedelta, problem: str | None) -> None:
        self.released.append((back_off, problem))

    def was_unavailable_within(self, _seconds: float) -> bool:
        return self.is_unsettled


@dataclass
class Records:
    """The outcomes of the refreshes."""

    outcomes: list[str] = field(default_factory=list)

    def record(self, _refresh: Refresh, outcome: str) -> None:
        self.outcomes.append(outcome)


@dataclass
class WriteBehind:
    """Unwritten refreshes."""

    rotated: Secret | None = None
    added: list[tuple[str, AccessToken, Secret | None]] = field(default_factory=list)
    late: list[Secret] = field(default_factory=list)

    def refresh_token(self, _grant: Grant) -> Secret | None:
        return self.rotated

    def add(
        self, _grant: Grant, scope_set: str, token: AccessToken, refresh_token: Secret | None
    ) -> None:
        self.added.append((scope_set, token, refresh_token))

    async def revoke_late(self, _grant: Grant, refresh_token: Secret) -> None:
        self.late.append(refresh_token)
