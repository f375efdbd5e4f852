"""Going to Google: a link is looked at, the person decides to go on, and the link gets its browser.

It knows nothing of HTTP or pages. Looking binds nothing.
"""

from dataclasses import replace
from uuid import UUID

from broker.clock import Clock
from broker.consent.browsers import Browser, BrowserCookies
from broker.consent.endings import TripEndings
from broker.consent.links import Link, LinkFault, LinkTokens
from broker.consent.outcomes import Departure, Ended, Leaving, Refusal
from broker.consent.policies import LinkPolicies
from broker.consent.questions import Question, Questions
from broker.consent.store import ConsentStore, Trip
from broker.consent.transactions import Transaction, Transactions
from broker.crypto.signing import Signer
from broker.google.discovery import Discovery
from broker.google.errors import GoogleUnavailable
from broker.google.oauth import GoogleOAuth
from broker.google.scopes import missing
from broker.pages.cookies import Cookies
from broker.secret_sources.current import CurrentClient


class Departures:
    """Refusals and failures are returned; only `StorageUnavailable` gets out."""

    def __init__(  # noqa: PLR0913  (wired once, by keyword)
        self,
        *,
        store: ConsentStore,
        links: LinkTokens,
        browsers: BrowserCookies,
        proofs: Signer,
        transactions: Transactions,
        questions: Questions,
        policies: LinkPolicies,
        oauth: GoogleOAuth,
        discovery: Discovery,
        current: CurrentClient,
        endings: TripEndings,
        clock: Clock,
    ) -> None:
        """`proofs` signs what shows that a browser was on the page before."""
        self._store = store
        self._links = links
        self._browsers = browsers
        self._proofs = proofs
        self._transactions = transactions
        self._questions = questions
        self._policies = policies
        self._oauth = oauth
        self._discovery = discovery
        self._current = current
        self._endings = endings
        self._clock = clock

    # The page before.

    async def look(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Cookies,
        request_id: str | None = None,
    ) -> Leaving | Ended | Refusal:
        """What a link is about, for the person to decide. It stays open to any browser."""
        link = await self._open(unverified_token, user_id, request_id)
        if isinstance(link, Refusal):
            return link
        browser = self._browsers.known_or_new(cookies, is_https=link.is_https)
        if link.browser_hash not in (None, browser.hash):
            return self._endings.refused(link, Refusal.LINK_ELSEWHERE, request_id)
        try:
            endpoints = await self._discovery.endpoints()
        except GoogleUnavailable as error:
            return self._endings.broken(link, error, request_id)
        question = await self._questions.about(link)
        return Leaving(
            browser=browser,
            proof=self._proofs.sign(link.id.hex, bound_to=(browser.hash.hex(),)),
            asked_by=self._policies.shown_name(link),
            scopes=link.scopes,
            kept=missing(question.scopes, link.scopes),
            account=await self._account(link),
            return_to=link.return_to,
            google=endpoints.authorization,
        )

    async def _account(self, link: Link) -> str | None:
        """The account that the link names, as a person knows it."""
        named = await self._questions.named_account(link)
        return named.email if named is not None else link.login_hint

    # The way to Google.

    async def depart(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Cookies,
        request_id: str | None = None,
    ) -> Departure | Ended | Refusal:
        """Open a link: the first browser to do so owns it, and may do so again until it is used."""
        link = await self._open(unverified_token, user_id, request_id)
        if isinstance(link, Refusal):
            return link
        browser = self._browsers.known_or_new(cookies, is_https=link.is_https)
        return await self._depart(link, browser, request_id)

    async def depart_from_page(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Cookies,
        unverified_proof: str,
        request_id: str | None = None,
    ) -> Leaving | Departure | Ended | Refusal:
        """The same for a person who has read the page before, in this very browser.

        Without that proof a page of somebody else's could send a browser off with a link of its
        own, and have the person consent in a stranger's name (login CSRF, RFC 9700 §4.7).
        """
        link = await self._open(unverified_token, user_id, request_id)
        if isinstance(link, Refusal):
            return link
        known = self._browsers.known(cookies)
        for browser in known:
            bound_to = (browser.hash.hex(),)
            if self._proofs.verify(unverified_proof, bound_to=bound_to) == link.id.hex:
                return await self._depart(link, browser, request_id)
        refusal = self._endings.refused(link, Refusal.NOT_FROM_OUR_PAGE, request_id)
        if not known:
            return refusal
        # Of two tabs of a new browser, each is given a cookie, and the later one stays. Whoever
        # goes on in the other tab reads the page once more, as anybody may who has the link.
        page = await self.look(
            unverified_token, user_id=user_id, cookies=cookies, request_id=request_id
        )
        return replace(page, is_again=True) if isinstance(page, Leaving) else page

    def refuse(self, refusal: Refusal, request_id: str | None = None) -> Refusal:
        """Put on record what was refused before a link was looked for."""
        return self._endings.refused_stranger(refusal, request_id)

    async def depart_again(
        self, trip: Trip, browser: Browser, question: Question
    ) -> Departure | Refusal:
        """Send the browser of a trip off once more, to be asked anew."""
        transaction = self._transaction(question)
        url = await self._address(trip.link, transaction, question)
        begun = await self._store.begin_again(trip, transaction)
        return Departure(url, browser) if begun else Refusal.LINK_USED

    async def _open(
        self, unverified_token: str, user_id: str, request_id: str | None
    ) -> Link | Refusal:
        """The link, as it may be used now."""
        link_id = self._links.read(unverified_token, user_id=user_id, now=self._clock.now())
        if link_id is LinkFault.NOT_OURS:
            return self._endings.refused_stranger(Refusal.LINK_NOT_OURS, request_id)
        link = await self._store.find(link_id) if isinstance(link_id, UUID) else None
        if link is None:
            # The signature has proved that the link was made for this user.
            expired = Refusal.LINK_EXPIRED
            return self._endings.refused_stranger(expired, request_id, user_id=user_id)
        if link.user_id != user_id:
            # The row was changed: whoever opens this link must not connect for somebody else.
            return self._endings.refused(link, Refusal.LINK_NOT_OURS, request_id)
        if self._links.must_be_confirmed(unverified_token, user_id=user_id):
            link = replace(link, confirm=True)
        if link.completed_at is not None:
            return self._endings.refused(link, Refusal.LINK_USED, request_id)
        usable = self._policies.applied(link)
        return usable or self._endings.refused(link, Refusal.LINK_WITHDRAWN, request_id)

    async def _depart(
        self, link: Link, browser: Browser, request_id: str | None
    ) -> Departure | Ended | Refusal:
        question = await self._questions.about(link)
        transaction = self._transaction(question)
        try:
            # The address comes first: a link must not be bound while Google can't be reached.
            url = await self._address(link, transaction, question)
        except GoogleUnavailable as error:
            return self._endings.broken(link, error, request_id)
        if await self._store.begin(link, browser.hash, transaction):
            return Departure(url, browser)
        return await self._lost(link, request_id)

    def _transaction(self, question: Question) -> Transaction:
        return self._transactions.new(scopes=question.scopes, consent_prompted=question.prompts)

    async def _address(self, link: Link, transaction: Transaction, question: Question) -> str:
        return await self._oauth.authorization_url(
            client_id=self._current.client.client_id,
            redirect_uri=link.redirect_uri,
            scopes=transaction.scopes,
            state=transaction.state,
            nonce=transaction.nonce,
            code_verifier=transaction.code_verifier,
            login_hint=question.login_hint,
            prompt="consent" if transaction.consent_prompted else None,
        )

    async def _lost(self, link: Link, request_id: str | None) -> Refusal:
        """Why a link that looked good a moment ago could not be opened."""
        now = await self._store.find(link.id)
        if now is None or self._clock.now() >= now.expires_at:
            return self._endings.refused(link, Refusal.LINK_EXPIRED, request_id)
        used = now.completed_at is not None
        refusal = Refusal.LINK_USED if used else Refusal.LINK_ELSEWHERE
        return self._endings.refused(link, refusal, request_id)
