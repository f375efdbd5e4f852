"""Whom an event is about: of which project, and of which of an account's consents.

Events come late, and many say no more than when they were signed. Where an event may as well be
about a token that was given up before, it is not held against the one that came after.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from broker.google.security_events import SecurityEventToken

SAME_MOMENT = timedelta(seconds=1)
"""Events are dated in whole seconds."""

SIGNED_LATE = timedelta(hours=1)
"""How long after it took place an event may be signed that does not say when that was."""

CLOCKS_APART = timedelta(minutes=1)
"""How far Google's idea of when it took place may be from the broker's."""


def is_newer(since: datetime, token: SecurityEventToken) -> bool:
    """Whether a consent was given after the event, so that it can't be about it."""
    return since >= token.happened_at + SAME_MOMENT


def is_doubtful(since: datetime, given_up_at: datetime | None, token: SecurityEventToken) -> bool:
    """Whether the end of a token may be meant that was given up at about the time of the event,
    and not of the one that a consent brought since.
    """
    if is_newer(since, token):
        return True
    earliest = token.happened_at - (CLOCKS_APART if token.is_dated else SIGNED_LATE)
    return given_up_at is not None and min(given_up_at, since) > earliest


def is_project_meant(client_id: str, audience: Iterable[str]) -> bool:
    """Whether the client is of the same project as one of these: Google ends what an account has
    granted to a project.
    """
    return any(_project(client_id) == _project(each) for each in audience)


def _project(client_id: str) -> str:
    """Google's client ids begin with the number of their project; the oldest are little more."""
    number = re.match(r"([0-9]+)[-.]", client_id)
    return number[1] if number else client_id
