"""How each step of a consent can end, as values; routes and pages map them to responses."""

from dataclasses import dataclass, field
from enum import StrEnum

from broker.consent.browser_cookies import Browser
from broker.consent.links import ConnectLink
from broker.grants.model import Grant
from broker.secret import Secret


class ConsentRefusal(StrEnum):
    """Why a step is refused. Nothing has changed, and the browser is redirected nowhere."""

    LINK_NOT_OURS = "link_not_ours"
    LINK_EXPIRED = "link_expired"
    LINK_USED = "link_used"
    LINK_ELSEWHERE = "link_elsewhere"
    """Another browser opened it first."""
    LINK_WITHDRAWN = "link_withdrawn"
    """Its caller could not create it any more."""
    NOT_FROM_OUR_PAGE = "not_from_our_page"
    """The form does not prove that this browser was shown the interstitial."""
    ANSWER_UNKNOWN = "answer_unknown"
    """The callback belongs to no authorization request of this browser."""
    MALFORMED = "malformed"


class ConsentOutcome(StrEnum):
    """How a consent ended: the `status` at `return_to`, and a metric's label."""

    CONNECTED = "connected"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Interstitial:
    """What the interstitial shows, the page that precedes Google's. Nothing is bound yet."""

    browser: Browser
    proof: str = field(repr=False)
    """Proves, in the page's form, that this browser was shown the page."""
    asked_by: str
    """The caller's display name."""
    scopes: tuple[str, ...]
    kept: tuple[str, ...]
    """What the account has already granted; it stays granted."""
    account: str | None
    """The only account that will be connected, if the link names one."""
    return_to: str | None
    returns_to_caller: bool
    """True if `return_to` is the caller's, False if it is the broker's own page or missing."""
    google: str
    """The URL that the form redirects to."""
    is_again: bool = False
    """Shown once more, because another tab of this browser got a newer cookie."""


@dataclass(frozen=True, slots=True)
class RedirectToGoogle:
    """The browser is redirected to Google."""

    url: str = field(repr=False)
    browser: Browser


@dataclass(frozen=True, slots=True)
class Connected:
    """A grant was stored."""

    link: ConnectLink
    grant: Grant
    not_granted: tuple[str, ...]
    """What was requested and not granted, named as requested."""

    outcome = ConsentOutcome.CONNECTED
    reason = None


@dataclass(frozen=True, slots=True)
class AwaitingConfirmation:
    """A pending consent was stored: its caller must confirm it."""

    link: ConnectLink
    return_to: str
    grant: Grant
    """The pending consent as lists of grants show it."""
    code: Secret

    outcome = ConsentOutcome.CONNECTED
    reason = None


@dataclass(frozen=True, slots=True)
class NotConnected:
    """The consent of a known link ended, and nothing was stored."""

    link: ConnectLink
    outcome: ConsentOutcome
    reason: str
    """From a fixed set, fit for logs and audit records; the key of the page's text."""
    retry_url: str | None = field(repr=False)
    """The link's URL, while it can be opened again."""


ConsentResult = Connected | AwaitingConfirmation | NotConnected
