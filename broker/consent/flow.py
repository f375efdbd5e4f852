"""The consent itself: a link opened, a browser sent to Google and taken back, a grant stored.

It knows nothing of HTTP or pages. Every check comes before what it protects, and a trip that fails
leaves no token behind.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from uuid import UUID

from broker.clock import Clock
from broker.consent.browsers import Browser, BrowserCookies
from broker.consent.callbacks import Callback
from broker.consent.exchange import CodeExchange
from broker.consent.links import Link, LinkFault, LinkTokens
from broker.consent.outcomes import (
    Connected,
    ConsentOutcome,
    Departure,
    Ended,
    NotConnected,
    Refusal,
)
from broker.consent.records import ConsentRecords
from broker.consent.store import ConsentStore, Trip
from broker.consent.transactions import Transaction, Transactions
from broker.database.database import StorageUnavailable
from broker.google.authorization_errors import explain
from broker.google.discovery import Discovery
from broker.google.errors import (
    ClientRefused,
    GoogleError,
    GoogleUnavailable,
    GrantRefused,
    IdTokenRefused,
)
from broker.google.oauth import GoogleOAuth
from broker.google.scopes import is_within, missing
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.grants.store import Consent, GrantStore, NoRefreshTokenError, RevocationUnderWayError
from broker.secret_sources.current import CurrentClient

logger = logging.getLogger(__name__)

OnConnected = Callable[[str, Grant, AccessToken], None]
"""Told the user id, the grant and its first access token, once they are stored."""


class ConsentFlow:
    """Both ends of a trip to Google. Refusals and failures are returned, not raised; only while
    storage is away, so that no link can be found or begun, `StorageUnavailable` gets out.
    """

    def __init__(  # noqa: PLR0913  (wired once, by keyword)
        self,
        *,
        store: ConsentStore,
        links: LinkTokens,
        browsers: BrowserCookies,
        transactions: Transactions,
        grants: GrantStore,
        oauth: GoogleOAuth,
        discovery: Discovery,
        exchange: CodeExchange,
        current: CurrentClient,
        records: ConsentRecords,
        clock: Clock,
        on_connected: OnConnected,
    ) -> None:
        self._store = store
        self._links = links
        self._browsers = browsers
        self._transactions = transactions
        self._grants = grants
        self._oauth = oauth
        self._discovery = discovery
        self._exchange = exchange
        self._current = current
        self._records = records
        self._clock = clock
        self._on_connected = on_connected

    async def purge(self) -> None:
        """Remove links and trips that are over. Raises `StorageUnavailable`."""
        await self._store.purge()

    # Going.

    async def depart(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Mapping[str, str],
        request_id: str | None = None,
    ) -> Departure | Ended | Refusal:
        """Open a link: the first browser to do so owns it, and may do so again until it is used."""
        link_id = self._links.read(unverified_token, user_id=user_id, now=self._clock.now())
        if link_id is LinkFault.EXPIRED:
            return Refusal.LINK_EXPIRED
        if not isinstance(link_id, UUID):
            return Refusal.LINK_NOT_OURS
        link = await self._store.find(link_id)
        if link is None:
            return Refusal.LINK_EXPIRED
        if link.completed_at is not None:
            return self._refused(link, Refusal.LINK_USED, request_id)
        browser = self._browsers.known_or_new(cookies, is_https=link.is_https)
        try:
            departure = await self._begin(link, browser)
        except GoogleUnavailable as error:
            return self._not_connected(link, _reason(error), request_id)
        return departure or await self._lost(link, request_id)

    async def _begin(self, link: Link, browser: Browser) -> Departure | None:
        """None if the link is over, or another browser's."""
        prompts = link.force_consent or not await self._has_live_grant(link)
        transaction = self._transactions.new(consent_prompted=prompts)
        # The address comes first: a link must not be bound while Google can't be reached.
        url = await self._address(link, transaction, login_hint=link.login_hint)
        begun = await self._store.begin(link, browser.hash, transaction)
        return Departure(url, browser) if begun else None

    async def _address(
        self, link: Link, transaction: Transaction, *, login_hint: str | None
    ) -> str:
        return await self._oauth.authorization_url(
            client_id=self._current.client.client_id,
            redirect_uri=link.redirect_uri,
            scopes=link.scopes,
            state=transaction.state,
            nonce=transaction.nonce,
            code_verifier=transaction.code_verifier,
            login_hint=login_hint,
            prompt="consent" if transaction.consent_prompted else None,
        )

    async def _has_live_grant(self, link: Link) -> bool:
        """Whether a refresh token for what the link asks is held: then Google need not ask.

        For scopes beyond the grant Google asks anyway, and only with `prompt=consent` is it sure to
        send a refresh token that has them.
        """
        if link.login_hint is None:
            return False
        hint, client_id = link.login_hint.casefold(), self._current.client.client_id
        return any(
            stored.grant.status is GrantStatus.ACTIVE
            and stored.grant.client_id == client_id
            and hint in (stored.grant.google_sub.casefold(), stored.grant.email.casefold())
            and is_within(link.scopes, stored.grant.scopes)
            for stored in await self._grants.find(link.user_id)
        )

    async def _lost(self, link: Link, request_id: str | None) -> Refusal:
        """Why a link that looked good a moment ago could not be opened."""
        now = await self._store.find(link.id)
        if now is None or self._clock.now() >= now.expires_at:
            return Refusal.LINK_EXPIRED
        if now.completed_at is not None:
            return self._refused(link, Refusal.LINK_USED, request_id)
        return self._refused(link, Refusal.LINK_ELSEWHERE, request_id)

    # Coming back.

    async def arrive(
        self, callback: Callback, *, cookies: Mapping[str, str], request_id: str | None = None
    ) -> Departure | Ended | Refusal:
        """Take a browser back. A `Departure` sends it to Google once more, to be asked anew."""
        if not self._transactions.has_made(callback.unverified_state):
            return Refusal.ANSWER_UNKNOWN
        browsers = self._browsers.known(cookies)
        trip = await self._store.take(
            callback.unverified_state, [browser.hash for browser in browsers]
        )
        if trip is None:
            await self._note_stranger(callback, request_id)
            return Refusal.ANSWER_UNKNOWN
        if trip.link.completed_at is not None:
            return self._refused(trip.link, Refusal.LINK_USED, request_id)
        browser = next(browser for browser in browsers if browser.hash == trip.browser_hash)
        try:
            return await self._finish(trip, callback, browser, request_id)
        except (GoogleError, StorageUnavailable) as error:
            return self._not_connected(trip.link, _reason(error), request_id, error)

    async def _note_stranger(self, callback: Callback, request_id: str | None) -> None:
        """A state of ours in a browser that is not the one it was made for."""
        link = await self._store.find_by_state(callback.unverified_state)
        if link is not None:
            self._refused(link, Refusal.ANSWER_UNKNOWN, request_id)

    async def _finish(
        self, trip: Trip, callback: Callback, browser: Browser, request_id: str | None
    ) -> Departure | Ended | Refusal:
        # RFC 9207 §2.4: who answers is settled before the code goes anywhere.
        endpoints = await self._discovery.endpoints()
        if not endpoints.accepts_issuer(callback.unverified_iss):
            return self._not_connected(trip.link, "wrong_issuer", request_id)
        if callback.unverified_error is not None:
            return self._declined(trip.link, callback.unverified_error, request_id)
        if callback.code is None:
            return self._not_connected(trip.link, "no_code", request_id)
        consent = await self._exchange.consent(callback.code, trip)
        if not await self._store.complete(trip.link):
            return self._refused(trip.link, Refusal.LINK_USED, request_id)
        return await self._store_consent(trip, consent, browser, request_id)

    async def _store_consent(
        self, trip: Trip, consent: Consent, browser: Browser, request_id: str | None
    ) -> Departure | Ended | Refusal:
        """The link has been completed for this; it is given back if that was in vain."""
        try:
            grant = await self._grants.connect(consent)
        except NoRefreshTokenError:
            await self._release(trip.link)
            if trip.transaction.consent_prompted:
                return self._not_connected(trip.link, "no_refresh_token", request_id)
            return await self._ask_again(trip, consent, browser)
        except RevocationUnderWayError:
            await self._release(trip.link)
            return self._not_connected(trip.link, "revocation_under_way", request_id)
        except BaseException:
            await self._release(trip.link)
            raise
        self._on_connected(grant.user_id, grant, consent.access_token)
        connected = Connected(trip.link, grant, missing(trip.link.scopes, grant.scopes))
        self._records.ended(connected, request_id=request_id)
        return connected

    async def _ask_again(
        self, trip: Trip, consent: Consent, browser: Browser
    ) -> Departure | Refusal:
        """Google sends a refresh token only if it asks the user, so let it ask this account."""
        transaction = self._transactions.new(consent_prompted=True)
        url = await self._address(trip.link, transaction, login_hint=consent.google_sub)
        begun = await self._store.begin_again(trip, transaction)
        return Departure(url, browser) if begun else Refusal.LINK_USED

    async def _release(self, link: Link) -> None:
        try:
            await self._store.release(link)
        except StorageUnavailable:
            logger.warning("a link stays used up: storage went away while its grant was stored")

    # Ending without a grant.

    def _refused(self, link: Link, refusal: Refusal, request_id: str | None) -> Refusal:
        self._records.refused(link, refusal, request_id=request_id)
        return refusal

    def _declined(self, link: Link, unverified_error: str, request_id: str | None) -> NotConnected:
        error = explain(unverified_error)
        return self._not_connected(
            link, error.code, request_id, outcome=ConsentOutcome(error.outcome.value)
        )

    def _not_connected(
        self,
        link: Link,
        reason: str,
        request_id: str | None,
        error: Exception | None = None,
        *,
        outcome: ConsentOutcome = ConsentOutcome.FAILED,
    ) -> NotConnected:
        can_open = self._clock.now() < link.expires_at - timedelta(seconds=5)
        ended = NotConnected(link, outcome, reason, self._links.url(link) if can_open else None)
        self._records.ended(ended, request_id=request_id)
        if error is not None:
            logger.warning(
                "a consent failed", extra={"cause": str(error), "request_id": request_id}
            )
        return ended


def _reason(error: GoogleError | StorageUnavailable) -> str:
    """Which words a failure deserves; the finer cause goes to the log."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "request_refused"


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (StorageUnavailable, "storage_unavailable"),
    (GoogleUnavailable, "google_unavailable"),
    (GrantRefused, "invalid_grant"),
    (ClientRefused, "client_refused"),
    (IdTokenRefused, "id_token_refused"),
)
