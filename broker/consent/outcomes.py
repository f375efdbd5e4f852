"""How each step of a consent can end, as values; what a browser is told is decided elsewhere."""

from dataclasses import dataclass, field
from enum import StrEnum

from broker.consent.browsers import Browser
from broker.consent.links import Link
from broker.grants.model import Grant
from broker.secret import Secret


class Refusal(StrEnum):
    """A step that is not taken. Nothing has changed, and the browser is sent nowhere."""

    LINK_NOT_OURS = "link_not_ours"
    LINK_EXPIRED = "link_expired"
    LINK_USED = "link_used"
    LINK_ELSEWHERE = "link_elsewhere"
    """Another browser opened it first."""
    LINK_WITHDRAWN = "link_withdrawn"
    """Its caller could not make it any more."""
    NOT_FROM_OUR_PAGE = "not_from_our_page"
    """Somebody wants to go on who was not shown the page before, or keeps no cookies."""
    ANSWER_UNKNOWN = "answer_unknown"
    """A callback that belongs to no trip of this browser."""
    MALFORMED = "malformed"


class ConsentOutcome(StrEnum):
    """The contract's words for how a consent ended."""

    CONNECTED = "connected"
    DENIED = "denied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Leaving:
    """What a person is told before the browser goes to Google. Nothing is bound to it yet."""

    browser: Browser
    proof: str = field(repr=False)
    """To come back with the decision to go on."""
    asked_by: str
    """The caller's name for people."""
    scopes: tuple[str, ...]
    kept: tuple[str, ...]
    """What the account has granted already, and goes on granting."""
    account: str | None
    """The only one that will do, if the link names one."""
    return_to: str | None
    google: str
    """Where the browser is sent next."""
    is_again: bool = False
    """Shown once more, to a browser whose other tab was given its cookie later."""


@dataclass(frozen=True, slots=True)
class Departure:
    """The browser goes to Google."""

    url: str = field(repr=False)
    browser: Browser


@dataclass(frozen=True, slots=True)
class Connected:
    """A grant was stored."""

    link: Link
    grant: Grant
    not_granted: tuple[str, ...]
    """What was asked for and not granted, named as asked."""

    outcome = ConsentOutcome.CONNECTED
    reason = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A consent was given, and waits for its caller's confirmation."""

    link: Link
    return_to: str
    grant: Grant
    """As it is listed: no grant yet."""
    code: Secret

    outcome = ConsentOutcome.CONNECTED
    reason = None


@dataclass(frozen=True, slots=True)
class NotConnected:
    """The consent of a known link ended, and nothing was stored."""

    link: Link
    outcome: ConsentOutcome
    reason: str
    """From a fixed set: fit for logs and audit records, and the key of the words to show."""
    retry_url: str | None = field(repr=False)
    """The same link, while it can be opened again."""


Ended = Connected | Waiting | NotConnected
