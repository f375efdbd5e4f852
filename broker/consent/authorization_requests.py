"""Authorization requests (RFC 6749 §4.1.1): the redirect to Google, with its state, nonce and code
verifier, and the row that its callback consumes.

Each belongs to one link and one browser, and is used once. The table holds the state's hash, and
nonce and verifier sealed: a reader of the table cannot answer in Google's name.
"""

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from broker.clock import Clock
from broker.consent.browser_cookies import Browser
from broker.consent.consent_outcomes import RedirectToGoogle
from broker.consent.links import ConnectLink, link_from
from broker.crypto.sealing import Sealed, Sealer, UnsealingError
from broker.crypto.signing import SIGNATURE_LENGTH, Signer
from broker.database.database import Connection, Database
from broker.database.queries import load_queries
from broker.database.shares import link_lock, state_lock
from broker.google.discovery import Discovery
from broker.google.oauth import GoogleOAuth
from broker.secret import Secret
from broker.secret_sources.current_client import CurrentClient

logger = logging.getLogger(__name__)

_SQL = load_queries("broker.consent")

AUTHORIZATION_REQUEST_LIFETIME = timedelta(minutes=10)

_RANDOM_BYTES = 32
_STATE = re.compile(rf"[A-Za-z0-9_-]{{43}}\.[A-Za-z0-9_-]{{{SIGNATURE_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class AuthorizationParameters:
    """The parameters of an authorization request that depend on the user's grants."""

    scopes: tuple[str, ...]
    """The link's own first, then those that the account's grant has already."""
    login_hint: str | None
    prompt_consent: bool
    """Google must prompt for consent, and so send a refresh token."""


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """What Google must send back unaltered, and what proves to Google who made the request."""

    state: str = field(repr=False)
    """As sent: 256 random bits, signed."""
    nonce: str = field(repr=False)
    code_verifier: Secret
    """RFC 7636 §4.1."""
    scopes: tuple[str, ...]
    """As requested of Google."""
    consent_prompted: bool
    """The request had `prompt=consent`, so Google must send a refresh token."""

    @property
    def state_hash(self) -> bytes:
        """The primary key of its row."""
        return hash_state(self.state)


@dataclass(frozen=True, slots=True)
class ConsumedRequest:
    """An authorization request whose callback has come, with its link."""

    link: ConnectLink
    request: AuthorizationRequest
    browser_hash: bytes
    consumed_at: datetime
    """By the database's clock: other times of that clock can be compared with it."""


class StateTokens:
    """Issues and recognises the `state` of authorization requests."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def issue(self) -> str:
        """Return 256 random bits, signed."""
        return self._signer.sign(secrets.token_urlsafe(_RANDOM_BYTES))

    def has_issued(self, unverified_state: str) -> bool:
        """True if the broker issued this state. It may be used up, or another browser's."""
        return (
            _STATE.fullmatch(unverified_state) is not None
            and self._signer.verify(unverified_state) is not None
        )


def hash_state(state: str) -> bytes:
    """Return the state's SHA-256: a reader of the table cannot answer in Google's name."""
    return hashlib.sha256(state.encode()).digest()


class AuthorizationRequests:
    """Starts authorization requests, and consumes each once.

    Each method is one database transaction: of concurrent calls one succeeds, and the others return
    that they did not. All but `has_issued` raise `StorageUnavailable`.
    """

    def __init__(
        self,
        *,
        database: Database,
        sealer: Sealer,
        states: StateTokens,
        oauth: GoogleOAuth,
        discovery: Discovery,
        client: CurrentClient,
        clock: Clock,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._states = states
        self._oauth = oauth
        self._discovery = discovery
        self._client = client
        self._clock = clock

    async def google_url(self) -> str:
        """Return Google's authorization endpoint. Raises `GoogleUnavailable`."""
        return (await self._discovery.endpoints()).authorization

    async def start(
        self, link: ConnectLink, browser: Browser, parameters: AuthorizationParameters
    ) -> RedirectToGoogle | None:
        """Bind the link to this browser and replace its earlier authorization requests.

        None, and nothing is changed, if the link is used, expired or bound to another browser.
        Raises `GoogleUnavailable`.
        """
        request = self._create(parameters)
        # The URL comes first: a link must not be bound while Google is unavailable.
        url = await self._url(link, request, parameters)
        now = self._clock.now()
        async with (
            self._database.exclusively(link_lock(link.id)),
            self._database.transaction() as connection,
        ):
            if await connection.fetchval(_SQL["bind_link"], link.id, browser.hash, now) is None:
                return None
            await self._insert(connection, link, browser.hash, request)
        return RedirectToGoogle(url, browser)

    async def restart(
        self, consumed: ConsumedRequest, browser: Browser, parameters: AuthorizationParameters
    ) -> RedirectToGoogle | None:
        """Send the same browser to Google once more; from now on its link forces consent.

        None, and nothing is changed, if the link was completed meanwhile. Raises
        `GoogleUnavailable`.
        """
        link, request = consumed.link, self._create(parameters)
        url = await self._url(link, request, parameters)
        async with (
            self._database.exclusively(link_lock(link.id)),
            self._database.transaction() as connection,
        ):
            is_open = await connection.fetchval(
                _SQL["force_consent"], link.id, consumed.browser_hash
            )
            if is_open is None:
                return None
            await self._insert(connection, link, consumed.browser_hash, request)
        return RedirectToGoogle(url, browser)

    def has_issued(self, unverified_state: str) -> bool:
        """True if the broker issued this state; checked without the database."""
        return self._states.has_issued(unverified_state)

    async def consume(self, state: str, browser_hashes: Sequence[bytes]) -> ConsumedRequest | None:
        """End the request with this state if one of these browsers began it. Works once."""
        state_hash = hash_state(state)
        async with self._database.exclusively(state_lock(state_hash)):
            row = await self._database.fetchrow(
                _SQL["consume_request"], state_hash, list(browser_hashes), self._clock.now()
            )
        if row is None:
            return None
        sealed = Sealed(row["secrets_key_id"], row["sealed_secrets"])
        try:
            link, stored = self._open(link_from(row), state_hash, sealed)
        except UnsealingError:
            logger.exception(
                "an authorization request cannot be opened; it is treated as unknown",
                extra={"event": "authorization_request_unreadable"},
            )
            return None
        browser_hash = row["request_browser_hash"]
        request = _restored(
            state,
            stored,
            owner=_owner(link, browser_hash),
            scopes=tuple(row["asked_scopes"] or link.scopes),
            consent_prompted=row["consent_prompted"],
        )
        if request is None:
            logger.error(
                "an authorization request was sealed for another owner than its row names; it is "
                "treated as unknown",
                extra={"event": "authorization_request_owner_changed"},
            )
            return None
        return ConsumedRequest(link, request, browser_hash, row["consumed_at"])

    async def find_link(self, state: str) -> ConnectLink | None:
        """Return the link of an open authorization request, for the audit record only."""
        row = await self._database.fetchrow(
            _SQL["find_link_by_state"], hash_state(state), self._clock.now()
        )
        return link_from(row) if row is not None else None

    async def purge(self) -> None:
        """Delete expired authorization requests."""
        await self._database.execute(_SQL["purge_requests"], self._clock.now())

    def _create(self, parameters: AuthorizationParameters) -> AuthorizationRequest:
        return AuthorizationRequest(
            state=self._states.issue(),
            nonce=secrets.token_urlsafe(_RANDOM_BYTES),
            code_verifier=Secret(secrets.token_urlsafe(_RANDOM_BYTES)),
            scopes=parameters.scopes,
            consent_prompted=parameters.prompt_consent,
        )

    async def _url(
        self, link: ConnectLink, request: AuthorizationRequest, parameters: AuthorizationParameters
    ) -> str:
        return await self._oauth.authorization_url(
            client_id=self._client.client.client_id,
            redirect_uri=link.redirect_uri,
            scopes=request.scopes,
            state=request.state,
            nonce=request.nonce,
            code_verifier=request.code_verifier,
            login_hint=parameters.login_hint,
            prompt="consent" if request.consent_prompted else None,
        )

    async def _insert(
        self,
        connection: Connection,
        link: ConnectLink,
        browser_hash: bytes,
        request: AuthorizationRequest,
    ) -> None:
        now = self._clock.now()
        place = _secrets_place(request.state_hash, link)
        stored = _to_store(request, _owner(link, browser_hash))
        sealed = self._sealer.seal(stored, place=place)
        await connection.execute(_SQL["delete_requests_of_link"], link.id)
        await connection.execute(
            _SQL["insert_request"],
            request.state_hash,
            link.id,
            browser_hash,
            request.consent_prompted,
            sealed.ciphertext,
            sealed.key_id,
            now,
            now + AUTHORIZATION_REQUEST_LIFETIME,
            list(request.scopes),
        )

    def _open(
        self, link: ConnectLink, state_hash: bytes, sealed: Sealed
    ) -> tuple[ConnectLink, Secret]:
        """Return the link as it was at the start, and the secrets. Raises `UnsealingError`."""
        confirmed = replace(link, confirm=True)
        try:
            stored = self._sealer.open(sealed, place=_secrets_place(state_hash, confirmed))
        except UnsealingError:
            return link, self._sealer.open(sealed, place=_secrets_place(state_hash, link))
        return confirmed, stored


def _to_store(request: AuthorizationRequest, owner: Sequence[str]) -> Secret:
    """Return nonce and verifier for sealing, with the owner that the row also names in plain."""
    members = {
        "nonce": request.nonce,
        "code_verifier": request.code_verifier.reveal(),
        "owner": list(owner),
    }
    return Secret(json.dumps(members))


def _restored(
    state: str,
    stored: Secret,
    *,
    owner: Sequence[str],
    scopes: tuple[str, ...],
    consent_prompted: bool,
) -> AuthorizationRequest | None:
    """Return the request as it was started. None if it was started for another owner."""
    members = json.loads(stored.reveal())
    # A replica of 0.1.0 stores no owner.
    if members.get("owner", list(owner)) != list(owner):
        return None
    verifier = Secret(members["code_verifier"])
    return AuthorizationRequest(state, members["nonce"], verifier, scopes, consent_prompted)


def _owner(link: ConnectLink, browser_hash: bytes) -> tuple[str, str]:
    """The user whose account is connected, and the browser in which that happens."""
    return link.user_id, browser_hash.hex()


def _secrets_place(state_hash: bytes, link: ConnectLink) -> tuple[str, ...]:
    # A request that needs a confirmation has other associated data: a replica of a release without
    # confirmation cannot open it, and so cannot let it take effect without one.
    place = ("consent_transactions", "secrets", state_hash.hex(), str(link.id))
    return (*place, "confirm") if link.confirm else place
