"""The consent's pages: how each end of it, and each refusal, is put to a person."""

from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from broker.consent.outcomes import Connected, ConsentOutcome, NotConnected, Refusal
from broker.pages.frame import Frame
from broker.wording.consent_en import ENGLISH, Catalogue
from broker.wording.consent_ko import KOREAN
from broker.wording.languages import preferred
from broker.wording.message import Tone
from broker.wording.scopes_en import rights_in_words

CATALOGUES = (ENGLISH, KOREAN)
"""The first is for readers of any other language."""

WITHDRAW_URL = "https://myaccount.google.com/connections"

_REFUSAL_STATUS = {
    Refusal.LINK_NOT_OURS: 400,
    Refusal.LINK_EXPIRED: 410,
    Refusal.LINK_USED: 410,
    Refusal.LINK_ELSEWHERE: 403,
    Refusal.LINK_WITHDRAWN: 410,
    Refusal.NOT_FROM_OUR_PAGE: 403,
    Refusal.ANSWER_UNKNOWN: 400,
    Refusal.MALFORMED: 400,
}
_PASSING_REASONS = frozenset(
    {
        "client_refused",
        "google_unavailable",
        "internal_failure",
        "revocation_under_way",
        "server_error",
        "storage_unavailable",
        "temporarily_unavailable",
    }
)
_STATUS_WITH_WORDS = frozenset({404, 405, 429, 500, 503})


class TranslatedPages:
    """The pages in every language."""

    def __init__(self, redirect_uris: Iterable[str]) -> None:
        addresses = tuple(redirect_uris)
        self._by_language = {words.language: Pages(addresses, words) for words in CATALOGUES}
        self.frame = self._by_language[ENGLISH.language].frame
        """For what has no words."""

    def for_reader(self, request: Request) -> "Pages":
        """The pages in the language that this browser prefers."""
        asked = request.headers.get("accept-language")
        return self._by_language[preferred(asked, tuple(self._by_language))]


class Pages:
    """Renders each page in one language."""

    def __init__(self, redirect_uris: Iterable[str], words: Catalogue = ENGLISH) -> None:
        self.frame = Frame(redirect_uris, "broker.consent")
        self.words = words

    def connected(self, connected: Connected) -> Response:
        """The good end: which account, which rights, what is missing, how to withdraw."""
        language = self.words.language
        return self.frame.page(
            "connected.html",
            200,
            words=self.words,
            tone=Tone.GOOD,
            email=connected.grant.email,
            granted=rights_in_words(connected.grant.scopes, language),
            not_granted=rights_in_words(connected.not_granted, language),
            withdraw_url=WITHDRAW_URL,
        )

    def not_connected(self, ended: NotConnected, request_id: str | None = None) -> Response:
        """The other ends, each in its own words."""
        status = 503 if ended.reason in _PASSING_REASONS else 400
        return self._message(
            ended.reason,
            200 if ended.outcome is ConsentOutcome.DENIED else status,
            request_id=request_id,
            retry_url=ended.retry_url,
        )

    def refused(self, refusal: Refusal, request_id: str | None = None) -> Response:
        """A step that is not taken."""
        return self._message(refusal.value, _REFUSAL_STATUS[refusal], request_id=request_id)

    def error_page(
        self,
        status: int,
        *,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """For what happens before or outside a consent. Any status has words."""
        nearest = 500 if status >= 500 else 404 if status in (403, 410) else None
        if status in _STATUS_WITH_WORDS:
            key = str(status)
        else:
            key = str(nearest) if nearest is not None else Refusal.MALFORMED.value
        return self._message(key, status, request_id=request_id, headers=headers)

    def _message(
        self,
        key: str,
        status: int,
        *,
        request_id: str | None = None,
        retry_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        message = self.words.message(key)
        return self.frame.message(
            message,
            status,
            words=self.words,
            way=(retry_url, self.words.try_again) if retry_url and message.can_retry else None,
            request_id=request_id,
            headers=headers,
        )
