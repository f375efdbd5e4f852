"""The authorize step: from a connect link to the interstitial, and from there to Google.

It knows nothing of HTTP or pages. Showing the interstitial binds nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from broker.clock import Clock
from broker.consent.authorization_requests import AuthorizationRequests
from broker.consent.browser_cookies import Browser, BrowserCookies
from broker.consent.consent_outcomes import (
    ConsentRefusal,
    Interstitial,
    NotConnected,
    RedirectToGoogle,
)
from broker.consent.consent_records import ConsentRecords
from broker.consent.link_policies import LinkPolicies
from broker.consent.links import ConnectLink, ConnectLinks, LinkTokenFault, LinkTokens
from broker.consent.scope_rules import ScopeRules
from broker.crypto.signing import Signer
from broker.google.errors import GoogleUnavailable
from broker.grants.model import Grant
from broker.grants.store import GrantStore
from broker.pages.browser_input import Cookies
from broker.scopes import missing


class LinkOpener:
    """Finds the link of a token, and refuses one that may not be used now.

    Refusals are recorded and returned; only `StorageUnavailable` is raised.
    """

    def __init__(
        self,
        *,
        tokens: LinkTokens,
        links: ConnectLinks,
        policies: LinkPolicies,
        records: ConsentRecords,
        clock: Clock,
    ) -> None:
        self._tokens = tokens
        self._links = links
        self._policies = policies
        self._records = records
        self._clock = clock

    async def open(
        self, unverified_token: str, user_id: str, request_id: str | None
    ) -> ConnectLink | ConsentRefusal:
        """Return the link under its current policy."""
        link_id = self._tokens.verify(unverified_token, user_id=user_id, now=self._clock.now())
        if link_id is LinkTokenFault.NOT_OURS:
            return self._records.refused_without_link(ConsentRefusal.LINK_NOT_OURS, request_id)
        link = await self._links.find(link_id) if isinstance(link_id, UUID) else None
        if link is None:
            # The signature proves that the link was made for this user.
            return self._records.refused_without_link(
                ConsentRefusal.LINK_EXPIRED, request_id, user_id=user_id
            )
        if link.user_id != user_id:
            # The row was changed: the link's holder must not connect for another user.
            return self._records.refused(link, ConsentRefusal.LINK_NOT_OURS, request_id)
        if self._tokens.requires_confirmation(unverified_token, user_id=user_id):
            link = replace(link, confirm=True)
        if link.completed_at is not None:
            return self._records.refused(link, ConsentRefusal.LINK_USED, request_id)
        usable = self._policies.apply(link)
        return usable or self._records.refused(link, ConsentRefusal.LINK_WITHDRAWN, request_id)

    async def refuse_lost(self, link: ConnectLink, request_id: str | None) -> ConsentRefusal:
        """Return why a link that `open` has just returned cannot be bound to a browser any more."""
        now = await self._links.find(link.id)
        if now is None or self._clock.now() >= now.expires_at:
            return self._records.refused(link, ConsentRefusal.LINK_EXPIRED, request_id)
        is_used = now.completed_at is not None
        refusal = ConsentRefusal.LINK_USED if is_used else ConsentRefusal.LINK_ELSEWHERE
        return self._records.refused(link, refusal, request_id)

    def asked_by(self, link: ConnectLink) -> str:
        """Return the display name of the link's caller."""
        return self._policies.shown_name(link.caller)

    def returns_to_caller(self, link: ConnectLink) -> bool:
        """True if the browser finally returns to the caller, not to a page of the broker's."""
        return link.return_to is not None and not self._policies.is_own_page(link.return_to)


class AuthorizeStep:
    """Shows the interstitial, and starts the authorization request that follows it.

    Refusals and failures are recorded and returned; only `StorageUnavailable` is raised.
    """

    def __init__(
        self,
        *,
        opener: LinkOpener,
        browsers: BrowserCookies,
        proofs: Signer,
        rules: ScopeRules,
        grants: GrantStore,
        requests: AuthorizationRequests,
        records: ConsentRecords,
    ) -> None:
        """`proofs` signs what proves that a browser was shown the interstitial."""
        self._opener = opener
        self._browsers = browsers
        self._proofs = proofs
        self._rules = rules
        self._grants = grants
        self._requests = requests
        self._records = records

    async def show_interstitial(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Cookies,
        request_id: str | None = None,
    ) -> Interstitial | NotConnected | ConsentRefusal:
        """Return what a link asks for, for the user to decide. It stays open to any browser."""
        link = await self._opener.open(unverified_token, user_id, request_id)
        if isinstance(link, ConsentRefusal):
            return link
        browser = self._browsers.identify_or_create(cookies, is_https=link.is_https)
        if link.browser_hash not in (None, browser.hash):
            return self._records.refused(link, ConsentRefusal.LINK_ELSEWHERE, request_id)
        try:
            google = await self._requests.google_url()
        except GoogleUnavailable as error:
            return self._records.failed_by(link, error, request_id)
        grants = await self._live_grants(link)
        parameters = self._rules.first_parameters(link, grants)
        named = self._rules.named_grant(link, grants)
        return Interstitial(
            browser=browser,
            proof=self._proofs.sign(link.id.hex, bound_to=(browser.hash.hex(),)),
            asked_by=self._opener.asked_by(link),
            scopes=link.scopes,
            kept=missing(parameters.scopes, link.scopes),
            account=named.email if named is not None else link.login_hint,
            return_to=link.return_to,
            returns_to_caller=self._opener.returns_to_caller(link),
            google=google,
        )

    async def start(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Cookies,
        request_id: str | None = None,
    ) -> RedirectToGoogle | NotConnected | ConsentRefusal:
        """Open a link without the interstitial, for a client that is not a browser.

        The first client that opens a link owns it, and may open it again until it is used.
        """
        link = await self._opener.open(unverified_token, user_id, request_id)
        if isinstance(link, ConsentRefusal):
            return link
        browser = self._browsers.identify_or_create(cookies, is_https=link.is_https)
        return await self._start(link, browser, request_id)

    async def start_from_interstitial(
        self,
        unverified_token: str,
        *,
        user_id: str,
        cookies: Cookies,
        unverified_proof: str,
        request_id: str | None = None,
    ) -> Interstitial | RedirectToGoogle | NotConnected | ConsentRefusal:
        """Open a link for a browser that was shown the interstitial.

        Without that proof another site's page could send the browser to Google with the attacker's
        own link, and the user would connect an account to the attacker's user id (login CSRF, RFC
        9700 §4.7).
        """
        link = await self._opener.open(unverified_token, user_id, request_id)
        if isinstance(link, ConsentRefusal):
            return link
        known = self._browsers.identify(cookies)
        for browser in known:
            bound_to = (browser.hash.hex(),)
            if self._proofs.verify(unverified_proof, bound_to=bound_to) == link.id.hex:
                return await self._start(link, browser, request_id)
        refusal = self._records.refused(link, ConsentRefusal.NOT_FROM_OUR_PAGE, request_id)
        if not known:
            return refusal
        # Two tabs of a new browser each got a cookie, and the later one stayed. The user of the
        # other tab sees the interstitial once more, as anyone may who has the link.
        page = await self.show_interstitial(
            unverified_token, user_id=user_id, cookies=cookies, request_id=request_id
        )
        return replace(page, is_again=True) if isinstance(page, Interstitial) else page

    def refuse(self, refusal: ConsentRefusal, request_id: str | None = None) -> ConsentRefusal:
        """Record a refusal that was decided before a link was read."""
        return self._records.refused_without_link(refusal, request_id)

    async def _start(
        self, link: ConnectLink, browser: Browser, request_id: str | None
    ) -> RedirectToGoogle | NotConnected | ConsentRefusal:
        parameters = self._rules.first_parameters(link, await self._live_grants(link))
        try:
            redirect = await self._requests.start(link, browser, parameters)
        except GoogleUnavailable as error:
            return self._records.failed_by(link, error, request_id)
        return redirect or await self._opener.refuse_lost(link, request_id)

    async def _live_grants(self, link: ConnectLink) -> Sequence[Grant]:
        return [stored.grant for stored in await self._grants.find(link.user_id)]
