"""The callback step: Google's authorization response (RFC 6749 §4.1.2), checked, becomes a grant.

It knows nothing of HTTP or pages. Every check comes before what it protects, and a callback that
fails leaves no token behind.
"""

from dataclasses import dataclass, replace

from broker.consent.authorization_requests import (
    AuthorizationParameters,
    AuthorizationRequests,
    ConsumedRequest,
)
from broker.consent.browser_cookies import Browser, BrowserCookies
from broker.consent.code_exchange import CodeExchange
from broker.consent.consent_outcomes import ConsentRefusal, ConsentResult, RedirectToGoogle
from broker.consent.consent_records import ConsentRecords
from broker.consent.consent_storage import ConsentStorage, NotStored
from broker.consent.link_policies import LinkPolicies
from broker.consent.scope_rules import ScopeRules, account_mismatch, limited_to_requested
from broker.database.database import StorageUnavailable
from broker.google.errors import GoogleError
from broker.grants.model import Consent
from broker.pages.browser_input import Cookies
from broker.secret import Secret
from broker.web.parameters import read_query

_LONGEST = {"state": 128, "code": 2048, "iss": 255, "error": 128}


@dataclass(frozen=True, slots=True)
class Callback:
    """An authorization response (RFC 6749 §4.1.2, RFC 9207) as received: anyone can send one."""

    unverified_state: str
    unverified_iss: str | None
    unverified_error: str | None
    code: Secret | None


def read_callback(query_string: bytes) -> Callback | None:
    """Return the authorization response; None if it cannot be one. Ignores unknown parameters."""
    parameters = read_query(query_string)
    if parameters is None or "state" not in parameters:
        return None
    if any(len(parameters.get(name, "")) > limit for name, limit in _LONGEST.items()):
        return None
    code = parameters.get("code")
    return Callback(
        unverified_state=parameters["state"],
        unverified_iss=parameters.get("iss"),
        unverified_error=parameters.get("error"),
        code=Secret(code) if code else None,
    )


class CallbackStep:
    """Turns callbacks into grants.

    Refusals and failures are recorded and returned. `StorageUnavailable` is raised only while no
    authorization request can be read.
    """

    def __init__(
        self,
        *,
        requests: AuthorizationRequests,
        browsers: BrowserCookies,
        policies: LinkPolicies,
        exchange: CodeExchange,
        rules: ScopeRules,
        storage: ConsentStorage,
        records: ConsentRecords,
    ) -> None:
        self._requests = requests
        self._browsers = browsers
        self._policies = policies
        self._exchange = exchange
        self._rules = rules
        self._storage = storage
        self._records = records

    async def complete(
        self, callback: Callback, *, cookies: Cookies, request_id: str | None = None
    ) -> RedirectToGoogle | ConsentResult | ConsentRefusal:
        """Check a callback and store its consent.

        A `RedirectToGoogle` sends the browser there once more, with other parameters.
        """
        if not self._requests.has_issued(callback.unverified_state):
            return self._records.refused_without_link(ConsentRefusal.ANSWER_UNKNOWN, request_id)
        browsers = self._browsers.identify(cookies)
        consumed = await self._requests.consume(
            callback.unverified_state, [browser.hash for browser in browsers]
        )
        if consumed is None:
            return await self._refuse_unknown(callback, request_id)
        if consumed.link.completed_at is not None:
            return self._records.refused(consumed.link, ConsentRefusal.LINK_USED, request_id)
        link = self._policies.apply(consumed.link)
        if link is None:
            without_return = replace(consumed.link, return_to=None)
            reason = ConsentRefusal.LINK_WITHDRAWN.value
            return self._records.failed(without_return, reason, request_id)
        consumed = replace(consumed, link=link)
        browser = next(each for each in browsers if each.hash == consumed.browser_hash)
        try:
            return await self._finish(consumed, callback, browser, request_id)
        except (GoogleError, StorageUnavailable) as error:
            return self._records.failed_by(link, error, request_id)

    async def _refuse_unknown(self, callback: Callback, request_id: str | None) -> ConsentRefusal:
        """Refuse a state of ours that belongs to another browser, or is used or expired."""
        link = await self._requests.find_link(callback.unverified_state)
        if link is not None:
            return self._records.refused(link, ConsentRefusal.ANSWER_UNKNOWN, request_id)
        return self._records.refused_without_link(ConsentRefusal.ANSWER_UNKNOWN, request_id)

    async def _finish(
        self,
        consumed: ConsumedRequest,
        callback: Callback,
        browser: Browser,
        request_id: str | None,
    ) -> RedirectToGoogle | ConsentResult | ConsentRefusal:
        link = consumed.link
        # RFC 9207 §2.4: the issuer is checked before the code goes anywhere.
        if not await self._exchange.accepts_issuer(callback.unverified_iss):
            return self._records.failed(link, "wrong_issuer", request_id)
        if callback.unverified_error is not None:
            return self._records.declined(link, callback.unverified_error, request_id)
        if callback.code is None:
            return self._records.failed(link, "no_code", request_id)
        consent = await self._exchange.exchange(callback.code, consumed)
        earlier = await self._storage.read_earlier_grants(link)
        mismatch = account_mismatch(link, consent, earlier.grants)
        if mismatch is not None:
            await self._storage.reject(consent)
            return self._records.failed(link, mismatch, request_id)
        parameters = self._rules.parameters_to_keep_scopes(consumed, consent, earlier.grants)
        if parameters is not None:
            return await self._restart(consumed, browser, parameters, request_id)
        consent = limited_to_requested(consumed, consent, earlier)
        return await self._store(consumed, consent, browser, request_id)

    async def _store(
        self,
        consumed: ConsumedRequest,
        consent: Consent,
        browser: Browser,
        request_id: str | None,
    ) -> RedirectToGoogle | ConsentResult | ConsentRefusal:
        link = consumed.link
        stored = await self._storage.store(consumed, consent)
        if stored is NotStored.LINK_USED:
            return self._records.refused(link, ConsentRefusal.LINK_USED, request_id)
        if stored is NotStored.REVOCATION_UNDER_WAY:
            return self._records.failed(link, "revocation_under_way", request_id)
        if stored is NotStored.NO_REFRESH_TOKEN:
            if consumed.request.consent_prompted:
                return self._records.failed(link, "no_refresh_token", request_id)
            # Google sends one only if it prompts, so it must prompt this account.
            parameters = AuthorizationParameters(
                consumed.request.scopes, consent.google_sub, prompt_consent=True
            )
            return await self._restart(consumed, browser, parameters, request_id)
        return self._records.stored(stored, request_id)

    async def _restart(
        self,
        consumed: ConsumedRequest,
        browser: Browser,
        parameters: AuthorizationParameters,
        request_id: str | None,
    ) -> RedirectToGoogle | ConsentRefusal:
        redirect = await self._requests.restart(consumed, browser, parameters)
        if redirect is None:
            return self._records.refused(consumed.link, ConsentRefusal.LINK_USED, request_id)
        return redirect
