"""Connect links: what one asks for, the signed token that names it in a URL, and their table.

The token proves that the broker made the link for this user, and says when it expires. The table
guarantees that a link is used once, in the browser that opened it first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import asyncpg

from broker.clock import Clock
from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.database.database import Database
from broker.database.queries import load_queries
from broker.database.shares import link_lock

CONNECT_LINK_LIFETIME = timedelta(minutes=10)

LINK_TOKEN_LIMIT = 128
"""Characters. A longer token is not the broker's, and not worth an HMAC."""

_KEPT_AFTER_EXPIRY = timedelta(hours=1)
"""Within it, a link that is opened again is reported as used, not as unknown."""

_TOKEN = re.compile(
    rf"(?P<id>[0-9a-f]{{32}})\.(?P<expiry>[0-9]{{1,12}})\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}"
)
_SQL = load_queries("broker.consent")


@dataclass(frozen=True, slots=True)
class ConnectLink:
    """One row of `connect_links`."""

    id: UUID
    caller: str
    """The caller that created it."""
    user_id: str
    scopes: tuple[str, ...]
    """To be requested of Google, identity scopes included."""
    redirect_uri: str
    return_to: str | None
    login_hint: str | None
    force_consent: bool
    """Google must prompt for consent: otherwise it would send no refresh token."""
    expires_at: datetime
    """It can be opened until then. A browser that is at Google at that time may still return."""
    completed_at: datetime | None
    confirm: bool = False
    """The consent takes effect once the caller has confirmed whose session it was."""
    browser_hash: bytes | None = None
    """The browser that it is bound to, once a browser has opened it."""

    @property
    def origin(self) -> str:
        """The origin of its URL, to which Google also sends the browser back."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def is_https(self) -> bool:
        """True if its browser returns over https, False for plain http on loopback."""
        return urlsplit(self.redirect_uri).scheme == "https"


class LinkTokenFault(Enum):
    """Why a link token is rejected."""

    NOT_OURS = auto()
    EXPIRED = auto()


class LinkTokens:
    """Signs and verifies the `link=` parameter of connect links."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def issue(self, link: ConnectLink) -> str:
        """Return the token: the link's id and expiry, signed together with the user id."""
        expiry = str(int(link.expires_at.timestamp()))
        bindings = _bindings(link.user_id)
        return self._signer.sign(f"{link.id.hex}.{expiry}", bound_to=bindings[link.confirm])

    def url(self, link: ConnectLink) -> str:
        """Return the URL for the user's browser, on the origin of the link's redirect URI."""
        user = quote(link.user_id, safe="")
        return f"{link.origin}/auth/google/authorize/{user}?link={self.issue(link)}"

    def verify(self, unverified: str, *, user_id: str, now: datetime) -> UUID | LinkTokenFault:
        """Return the link's id if the broker signed the token for this user and it is valid."""
        if len(unverified) > LINK_TOKEN_LIMIT:
            return LinkTokenFault.NOT_OURS
        match = _TOKEN.fullmatch(unverified)
        if match is None or not any(
            self._signer.verify(unverified, bound_to=binding) for binding in _bindings(user_id)
        ):
            return LinkTokenFault.NOT_OURS
        if now >= datetime.fromtimestamp(int(match["expiry"]), UTC):
            return LinkTokenFault.EXPIRED
        return UUID(hex=match["id"])

    def requires_confirmation(self, unverified: str, *, user_id: str) -> bool:
        """True if the broker signed this token, for this user, as one that must be confirmed."""
        plain_and_confirmed = _bindings(user_id)
        return self._signer.verify(unverified, bound_to=plain_and_confirmed[True]) is not None


class ConnectLinks:
    """The table `connect_links`. All methods raise `StorageUnavailable`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        *,
        caller: str,
        user_id: str,
        scopes: Sequence[str],
        redirect_uri: str,
        return_to: str | None,
        login_hint: str | None,
        confirm: bool = False,
    ) -> ConnectLink:
        """Store a new link and return it."""
        now = self._clock.now()
        link = ConnectLink(
            id=uuid4(),
            caller=caller,
            user_id=user_id,
            scopes=tuple(scopes),
            redirect_uri=redirect_uri,
            return_to=return_to,
            login_hint=login_hint,
            force_consent=False,
            # Whole seconds, so that token, table and API response agree.
            expires_at=(now + CONNECT_LINK_LIFETIME).replace(microsecond=0),
            completed_at=None,
            confirm=confirm,
        )
        await self._database.execute(
            _SQL["insert_link"],
            link.id,
            link.caller,
            link.user_id,
            list(link.scopes),
            link.redirect_uri,
            link.return_to,
            link.login_hint,
            now,
            link.expires_at,
            link.confirm,
        )
        return link

    async def find(self, link_id: UUID) -> ConnectLink | None:
        """Return a link in any state. None if it was never created or is purged."""
        row = await self._database.fetchrow(_SQL["find_link"], link_id)
        return link_from(row) if row is not None else None

    async def complete(self, link: ConnectLink) -> bool:
        """Mark the link as used. False if another callback was faster."""
        async with self._database.exclusively(link_lock(link.id)):
            done = await self._database.fetchval(_SQL["complete_link"], link.id, self._clock.now())
        return done is not None

    async def release(self, link: ConnectLink) -> None:
        """Undo `complete`, for the callback that completed it and could not store the consent."""
        async with self._database.exclusively(link_lock(link.id)):
            await self._database.execute(_SQL["release_link"], link.id)

    async def purge(self) -> None:
        """Delete links an hour after their expiry, except those with an authorization request."""
        await self._database.execute(_SQL["purge_links"], self._clock.now() - _KEPT_AFTER_EXPIRY)


def link_from(row: asyncpg.Record) -> ConnectLink:
    """Return the link of a row that has all columns of `connect_links`."""
    return ConnectLink(
        id=UUID(bytes=row["id"].bytes),
        caller=row["caller"],
        user_id=row["user_id"],
        scopes=tuple(row["scopes"]),
        redirect_uri=row["redirect_uri"],
        return_to=row["return_to"],
        login_hint=row["login_hint"],
        force_consent=row["force_consent"],
        expires_at=row["expires_at"],
        completed_at=row["completed_at"],
        confirm=row["confirm"],
        browser_hash=row["browser_hash"],
    )


def _bindings(user_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a plain link, and one with confirmation, are bound to by their signature.

    They differ so that a replica of a release without confirmation rejects links that need one.
    """
    return (user_id,), (user_id, "confirm")
