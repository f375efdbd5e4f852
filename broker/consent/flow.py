"""The consent itself: a browser taken back from Google, its answer checked, a grant stored.

It knows nothing of HTTP or pages. Every check comes before what it protects, and a trip that fails
leaves no token behind.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from broker.consent.browsers import Browser, BrowserCookies
from broker.consent.callbacks import Callback
from broker.consent.departures import Departures
from broker.consent.endings import TripEndings
from broker.consent.exchange import CodeExchange
from broker.consent.outcomes import Connected, Departure, Ended, Refusal, Waiting
from broker.consent.policies import LinkPolicies
from broker.consent.questions import Question, Questions
from broker.consent.reach import Reach
from broker.consent.records import ConsentRecords
from broker.consent.store import ConsentStore, Trip
from broker.consent.transactions import Transactions
from broker.database.database import StorageUnavailable
from broker.google.discovery import Discovery
from broker.google.errors import GoogleError
from broker.google.scopes import missing
from broker.grants.model import AccessToken, Grant
from broker.grants.pending.store import PendingConsents
from broker.grants.store import Consent, GrantStore, NoRefreshTokenError, RevocationUnderWayError
from broker.pages.cookies import Cookies

logger = logging.getLogger(__name__)

OnConnected = Callable[[str, Grant, AccessToken | None], None]
"""Told the user id, the grant and its first access token if there is one, once it is stored."""


class ConsentFlow:
    """The way back. Refusals and failures are returned, not raised; only while storage is away, so
    that no trip can be found, `StorageUnavailable` gets out.
    """

    def __init__(  # noqa: PLR0913  (wired once, by keyword)
        self,
        *,
        departures: Departures,
        store: ConsentStore,
        browsers: BrowserCookies,
        transactions: Transactions,
        questions: Questions,
        policies: LinkPolicies,
        grants: GrantStore,
        pending: PendingConsents,
        discovery: Discovery,
        exchange: CodeExchange,
        endings: TripEndings,
        records: ConsentRecords,
        on_connected: OnConnected,
    ) -> None:
        self.departures = departures
        self._store = store
        self._browsers = browsers
        self._transactions = transactions
        self._questions = questions
        self._policies = policies
        self._grants = grants
        self._pending = pending
        self._reach = Reach(grants, pending)
        self._discovery = discovery
        self._exchange = exchange
        self._endings = endings
        self._records = records
        self._on_connected = on_connected

    async def purge(self) -> None:
        """End what was not confirmed in time, remove links and trips that are over.

        Raises `StorageUnavailable`.
        """
        for pending in await self._pending.expire():
            self._records.unconfirmed(pending)
        await self._store.purge()

    async def arrive(
        self, callback: Callback, *, cookies: Cookies, request_id: str | None = None
    ) -> Departure | Ended | Refusal:
        """Take a browser back. A `Departure` sends it to Google once more, to be asked anew."""
        if not self._transactions.has_made(callback.unverified_state):
            return self._endings.refused_stranger(Refusal.ANSWER_UNKNOWN, request_id)
        browsers = self._browsers.known(cookies)
        trip = await self._store.take(
            callback.unverified_state, [browser.hash for browser in browsers]
        )
        if trip is None:
            return await self._refuse_stranger(callback, request_id)
        if trip.link.completed_at is not None:
            return self._endings.refused(trip.link, Refusal.LINK_USED, request_id)
        link = self._policies.applied(trip.link)
        if link is None:
            gone = replace(trip.link, return_to=None)
            return self._endings.failed(gone, Refusal.LINK_WITHDRAWN.value, request_id)
        browser = next(browser for browser in browsers if browser.hash == trip.browser_hash)
        try:
            return await self._finish(replace(trip, link=link), callback, browser, request_id)
        except (GoogleError, StorageUnavailable) as error:
            return self._endings.broken(link, error, request_id)

    async def _refuse_stranger(self, callback: Callback, request_id: str | None) -> Refusal:
        """A state of ours that another browser was given, or whose trip is over."""
        link = await self._store.find_by_state(callback.unverified_state)
        if link is not None:
            return self._endings.refused(link, Refusal.ANSWER_UNKNOWN, request_id)
        return self._endings.refused_stranger(Refusal.ANSWER_UNKNOWN, request_id)

    async def _finish(
        self, trip: Trip, callback: Callback, browser: Browser, request_id: str | None
    ) -> Departure | Ended | Refusal:
        # RFC 9207 §2.4: who answers is settled before the code goes anywhere.
        endpoints = await self._discovery.endpoints()
        if not endpoints.accepts_issuer(callback.unverified_iss):
            return self._endings.failed(trip.link, "wrong_issuer", request_id)
        if callback.unverified_error is not None:
            return self._endings.declined(trip.link, callback.unverified_error, request_id)
        if callback.code is None:
            return self._endings.failed(trip.link, "no_code", request_id)
        consent = await self._exchange.consent(callback.code, trip)
        mismatch = await self._questions.mismatch(trip.link, consent)
        if mismatch is not None:
            await self._pending.refuse(consent)
            return self._endings.failed(trip.link, mismatch, request_id)
        question = await self._questions.again(trip, consent)
        if question is not None:
            return await self.departures.depart_again(trip, browser, question)
        consent = await self._reach.of(trip, consent)
        if not await self._store.complete(trip.link):
            return self._endings.refused(trip.link, Refusal.LINK_USED, request_id)
        return await self._store_consent(trip, consent, browser, request_id)

    async def _store_consent(
        self, trip: Trip, consent: Consent, browser: Browser, request_id: str | None
    ) -> Departure | Ended | Refusal:
        """The link has been completed for this; it is given back if that was in vain."""
        try:
            ended = await (self._hold if trip.link.confirm else self._connect)(trip, consent)
        except NoRefreshTokenError:
            await self._release(trip)
            if trip.transaction.consent_prompted:
                return self._endings.failed(trip.link, "no_refresh_token", request_id)
            # Google sends one only if it asks the person, so let it ask this account.
            question = Question(trip.transaction.scopes, consent.google_sub, prompts=True)
            return await self.departures.depart_again(trip, browser, question)
        except RevocationUnderWayError:
            await self._release(trip)
            return self._endings.failed(trip.link, "revocation_under_way", request_id)
        except BaseException:
            await self._release(trip)
            raise
        self._records.ended(ended, request_id=request_id)
        return ended

    async def _connect(self, trip: Trip, consent: Consent) -> Connected:
        grant = await self._grants.connect(consent)
        self._on_connected(grant.user_id, grant, consent.access_token)
        return Connected(trip.link, grant, missing(trip.transaction.scopes, grant.scopes))

    async def _hold(self, trip: Trip, consent: Consent) -> Waiting:
        return_to = trip.link.return_to
        assert return_to is not None  # noqa: S101  (the policy lets no other link be confirmed)
        pending, code = await self._pending.hold(
            consent, link_id=trip.link.id, caller=trip.link.caller
        )
        return Waiting(trip.link, return_to, pending.as_grant(), code)

    async def _release(self, trip: Trip) -> None:
        try:
            await self._store.release(trip.link)
        except StorageUnavailable:
            logger.warning("a link stays used up: storage went away while its grant was stored")
