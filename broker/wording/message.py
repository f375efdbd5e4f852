"""A page of words alone: what is the case, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Tone(StrEnum):
    """How a page feels; names its colours and its mark."""

    GOOD = "good"
    CALM = "calm"
    """Nothing is wrong, and nothing happened."""
    TROUBLE = "trouble"


@dataclass(frozen=True, slots=True)
class Message:
    """A page of words: what is the case, and what to do about it."""

    title: str
    lead: str
    advice: str = ""
    tone: Tone = Tone.TROUBLE
    can_retry: bool = True
    """Whether the same link may help, where there is one."""
