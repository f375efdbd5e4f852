"""What can become of a grant, or of a consent that waits, when Google tells of something."""

from dataclasses import dataclass
from enum import StrEnum

from broker.google.security_events import EventKind
from broker.grants.model import Grant


class Effect(StrEnum):
    """What became of a grant, or why nothing did."""

    ERASED = "erased"
    HELD_BACK = "held_back"
    BROUGHT_BACK = "brought_back"
    ASKED_ANEW = "asked_anew"
    CONSENT_ENDED = "consent_ended"
    """A consent that waited for its confirmation is erased."""
    UNCHANGED = "unchanged"
    OUTDATED = "outdated"
    NO_GRANT = "no_grant"
    NOTED = "noted"
    NOT_UNDERSTOOD = "not_understood"


@dataclass(frozen=True, slots=True)
class Done:
    """One event's effect on one grant, on one consent that waits, or on none."""

    kind: EventKind
    effect: Effect
    grant: Grant | None = None
    """As it was before."""
    google_sub: str | None = None
