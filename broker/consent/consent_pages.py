"""The consent's pages: the interstitial, the result, and a page for each refusal and failure."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from broker.consent.consent_outcomes import Connected, ConsentRefusal, Interstitial, NotConnected
from broker.pages.frame import Frame, MessagePage, Tone
from broker.pages.user_agents import LINK_VARY
from broker.wording.catalogue import ConsentWords, preferred_language
from broker.wording.consent_en import ENGLISH
from broker.wording.consent_ko import KOREAN
from broker.wording.scope_words import scopes_in_words

CATALOGUES = (ENGLISH, KOREAN)
"""The first is the default for other languages."""

WITHDRAW_URL = "https://myaccount.google.com/connections"

PROOF_FIELD = "proof"

_UNKNOWN = "unknown_error"

_SET_UP = MessagePage(400, can_retry=False)
_TEMPORARY = MessagePage(503)
_STEP_MISSING = MessagePage(400, Tone.CALM)

MESSAGE_PAGES: Mapping[str, MessagePage] = {
    # The decision of the user or of an administrator.
    "access_denied": MessagePage(200, Tone.CALM),
    "admin_policy_enforced": MessagePage(400),
    "org_internal": MessagePage(400),
    "disallowed_useragent": MessagePage(400, can_retry=False),
    "login_required": _STEP_MISSING,
    "account_selection_required": _STEP_MISSING,
    "consent_required": _STEP_MISSING,
    "interaction_required": _STEP_MISSING,
    # What only the operator can fix.
    "invalid_client": _SET_UP,
    "deleted_client": _SET_UP,
    "disabled_client": _SET_UP,
    "unauthorized_client": _SET_UP,
    "redirect_uri_mismatch": _SET_UP,
    "invalid_request": _SET_UP,
    "invalid_scope": _SET_UP,
    "unsupported_response_type": _SET_UP,
    "client_refused": MessagePage(503, can_retry=False),
    "request_refused": _SET_UP,
    # Temporary failures.
    "server_error": _TEMPORARY,
    "temporarily_unavailable": _TEMPORARY,
    "internal_failure": _TEMPORARY,
    "google_unavailable": _TEMPORARY,
    "storage_unavailable": _TEMPORARY,
    "revocation_under_way": MessagePage(503, Tone.CALM),
    # Faults of Google's response.
    "invalid_grant": MessagePage(400, Tone.CALM),
    "id_token_refused": MessagePage(400),
    "wrong_issuer": MessagePage(400, can_retry=False),
    "no_code": MessagePage(400),
    "no_refresh_token": MessagePage(400),
    _UNKNOWN: MessagePage(400),
    # Links, and browsers that return.
    ConsentRefusal.LINK_NOT_OURS: MessagePage(400),
    ConsentRefusal.LINK_EXPIRED: MessagePage(410, Tone.CALM),
    ConsentRefusal.LINK_USED: MessagePage(410, Tone.CALM),
    ConsentRefusal.LINK_ELSEWHERE: MessagePage(403),
    ConsentRefusal.LINK_WITHDRAWN: MessagePage(410, can_retry=False),
    ConsentRefusal.NOT_FROM_OUR_PAGE: MessagePage(403),
    "account_mismatch": MessagePage(400, Tone.CALM),
    "address_not_verified": MessagePage(400, Tone.CALM),
    ConsentRefusal.ANSWER_UNKNOWN: MessagePage(400, Tone.CALM),
    ConsentRefusal.MALFORMED: MessagePage(400),
    # By HTTP status.
    "404": MessagePage(404, Tone.CALM),
    "405": MessagePage(405, Tone.CALM),
    "429": MessagePage(429, Tone.CALM),
    "500": MessagePage(500),
    "503": MessagePage(503),
}
"""By reason, refusal or HTTP status. Each catalogue has the text under the same key."""

_NEAREST_STATUS = {403: "404", 410: "404"}


class TranslatedPages:
    """The pages in every language."""

    def __init__(self, redirect_uris: Iterable[str]) -> None:
        addresses = tuple(redirect_uris)
        self._by_language = {words.language: ConsentPages(addresses, words) for words in CATALOGUES}
        self.frame = self._by_language[ENGLISH.language].frame
        """For responses without words."""

    def for_reader(self, request: Request) -> "ConsentPages":
        """Return the pages in the language that this browser prefers."""
        header = request.headers.get("accept-language")
        return self._by_language[preferred_language(header, tuple(self._by_language))]


class ConsentPages:
    """Renders the pages in one language."""

    def __init__(self, redirect_uris: Iterable[str], words: ConsentWords = ENGLISH) -> None:
        self.frame = Frame(redirect_uris, "broker.consent")
        self.words = words

    def interstitial(self, shown: Interstitial) -> Response:
        """Return the interstitial; its form redirects the browser to Google."""
        language = self.words.language
        return_to = shown.return_to if shown.returns_to_caller else None
        return self.frame.page(
            "interstitial.html",
            403 if shown.is_again else 200,
            words=self.words,
            # A product's popup window needs its opener when the consent ends.
            headers={"Cross-Origin-Opener-Policy": "unsafe-none", "Vary": LINK_VARY},
            form_targets=_form_targets(shown),
            tone=Tone.CALM,
            is_again=shown.is_again,
            asked_by=shown.asked_by,
            asked=scopes_in_words(shown.scopes, language),
            kept=scopes_in_words(shown.kept, language),
            account=shown.account,
            return_host=urlsplit(return_to).hostname if return_to else None,
            proof_field=PROOF_FIELD,
            proof=shown.proof,
        )

    def connected(self, connected: Connected) -> Response:
        """Return the success page: which account, what was granted and what not."""
        language = self.words.language
        return self.frame.page(
            "connected.html",
            200,
            words=self.words,
            tone=Tone.GOOD,
            email=connected.grant.email,
            granted=scopes_in_words(connected.grant.scopes, language),
            not_granted=scopes_in_words(connected.not_granted, language),
            withdraw_url=WITHDRAW_URL,
        )

    def not_connected(self, ended: NotConnected, request_id: str | None = None) -> Response:
        """Return the page of a consent that failed or was declined."""
        # The same reason refuses a link with 410; a callback that fails for it is answered 400.
        is_withdrawn = ended.reason == ConsentRefusal.LINK_WITHDRAWN
        return self._message(
            ended.reason,
            status=400 if is_withdrawn else None,
            request_id=request_id,
            retry_url=ended.retry_url,
        )

    def refused(self, refusal: ConsentRefusal, request_id: str | None = None) -> Response:
        """Return the page of a refused step."""
        return self._message(refusal, request_id=request_id)

    def error_page(
        self,
        status: int,
        *,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Return a page for any HTTP status, for errors outside a consent."""
        if str(status) in MESSAGE_PAGES:
            key = str(status)
        elif status >= 500:
            key = "500"
        else:
            key = _NEAREST_STATUS.get(status, ConsentRefusal.MALFORMED)
        return self._message(key, status=status, request_id=request_id, headers=headers)

    def _message(
        self,
        key: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        key = key if key in MESSAGE_PAGES else _UNKNOWN
        page = MESSAGE_PAGES[key]
        return self.frame.message(
            self.words.messages[key],
            page,
            words=self.words,
            status=status,
            link=(retry_url, self.words.try_again) if retry_url and page.can_retry else None,
            request_id=request_id,
            headers=headers,
        )


def _form_targets(shown: Interstitial) -> tuple[str, ...]:
    """Return where the form may lead; Chromium checks every redirect up to the next page.

    Google may redirect the browser to the sign-in page of the user's organisation, whose address is
    unknown here, or straight back, and so to `return_to`. So all of https is allowed. Of plain http
    only the two known addresses are, which then are on loopback.
    """
    known = (shown.google, shown.return_to or "")
    plain = [f"http://{urlsplit(url).netloc}" for url in known if url.startswith("http:")]
    return ("https:", *dict.fromkeys(plain))
