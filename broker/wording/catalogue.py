"""What a catalogue holds: all words of the pages in one language. And which language is shown.

Nothing that came in a request is part of these texts; what stands in braces is filled in.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.wording.times import TimeWords

_LONGEST_HEADER = 512
"""Characters of the header that are read; browsers send about fifty."""

_RANGE = re.compile(
    r"\s*(?P<tag>[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)\s*"
    r"(?:;\s*[qQ]=(?P<weight>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*)?"
)


@dataclass(frozen=True, slots=True)
class PageText:
    """A page that has text alone: what happened, and what to do next."""

    title: str
    lead: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class InterstitialWords:
    """The interstitial. `{service}` is the caller's display name."""

    title: str
    lead: str
    again: str
    """Replaces the lead where the page is shown once more."""
    asked: str
    kept: str
    account: str
    account_advice: str
    go_on: str
    next_step: str
    warning: str
    returns_to: str
    """`{host}` is the host that the browser finally returns to."""


@dataclass(frozen=True, slots=True)
class ConsentWords:
    """The pages of the consent."""

    language: str
    """BCP 47."""
    site: str
    try_again: str
    reference: str
    connected_title: str
    connected_partly_title: str
    connected_lead: str
    account: str
    granted: str
    not_granted: str
    not_granted_advice: str
    withdraw: str
    withdraw_link: str
    interstitial: InterstitialWords
    messages: Mapping[str, PageText]
    """By reason, refusal or HTTP status."""


@dataclass(frozen=True, slots=True)
class StatusWords:
    """The status of a connection, and what it means if there is a problem."""

    name: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class ConfirmationWords:
    """The page that asks for confirmation before a withdrawal."""

    title: str
    lead: str
    points: tuple[str, ...]
    keep: str


@dataclass(frozen=True, slots=True)
class ConnectionsWords:
    """The connections page."""

    language: str
    """BCP 47."""
    site: str
    reference: str
    skip: str
    title: str
    whose: str
    not_you: str
    nothing_title: str
    nothing_advice: str
    withdrawn_title: str
    statuses: Mapping[str, StatusWords]
    """By the status's name in the API."""
    from_elsewhere: str
    rights: str
    more_rights: str
    connected_since: str
    allowed_on: str
    """For a connection that is not confirmed yet."""
    withdrawn_on: str
    last_used: str
    used_by: str
    never_used: str
    withdraw: str
    withdraw_named: str
    connect_again: str
    connect_again_named: str
    confirmation: ConfirmationWords
    unconfirmed: ConfirmationWords
    """The same page, for a connection that is not confirmed yet."""
    done: str
    done_advice: str
    back: str
    open_again: str
    google: str
    google_link: str
    times: TimeWords
    notices: Mapping[str, str]
    nameless_notices: Mapping[str, str]
    """For a connection that is gone without a row: it was never confirmed."""
    messages: Mapping[str, PageText]
    """By refusal."""


def preferred_language(accept_language: str | None, offered: Sequence[str]) -> str:
    """Return the offered language that an `Accept-Language` prefers (RFC 9110 §12.5.4).

    A region counts as its language (RFC 4647 §3.4). The default is the first offered language: for
    a header that is missing, unreadable, or names none of them.
    """
    ranges = [
        match
        for part in (accept_language or "")[:_LONGEST_HEADER].split(",")
        if (match := _RANGE.fullmatch(part)) is not None
    ]
    weights = [float(match["weight"] or 1) for match in ranges]
    # The sort is stable: languages of one weight keep the header's order.
    for weight, match in sorted(zip(weights, ranges, strict=True), key=lambda pair: -pair[0]):
        language = match["tag"].partition("-")[0].lower()
        if weight > 0 and language in offered:
            return language
        if weight > 0 and language == "*":
            return offered[0]
    return offered[0]
