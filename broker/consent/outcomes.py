"""How each step of a consent can end, as values; what a browser is told is decided elsewhere."""

from dataclasses import dataclass, field
from enum import StrEnum

from broker.consent.browsers import Browser
from broker.consent.links import Link
from broker.grants.model import Grant


class Refusal(StrEnum):
    """A step that is not taken. Nothing has changed, and the browser is sent nowhere."""

    LINK_NOT_OURS = "link_not_ours"
    LINK_EXPIRED = "link_expired"
    LINK_USED = "link_used"
    LINK_ELSEWHERE = "link_elsewhere"
    """Another browser opened it first."""
    ANSWER_UNKNOWN = "answer_unknown"
    """A callback that belongs to no trip of this browser."""
    MALFORMED = "malformed"


class ConsentOutcome(StrEnum):
    """The contract's words for how a consent ended."""

    CONNECTED = "connected"
    DENIED = "denied"
    FAILED = "failed"


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
class NotConnected:
    """The consent of a known link ended, and nothing was stored."""

    link: Link
    outcome: ConsentOutcome
    reason: str
    """From a fixed set: fit for logs and audit records, and the key of the words to show."""
    retry_url: str | None = field(repr=False)
    """The same link, while it can be opened again."""


Ended = Connected | NotConnected
