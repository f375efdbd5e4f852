"""What must hold of journeys after a failover, and what of them was lost with the old primary.

Judged by what callers saw, by the rows of the new primary, and by what Google knows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.fleet import Fleet
from tests.chaos.journeys import Change, Journey
from tests.chaos.load import Answer, Record

PROPAGATION_SECONDS = 1.0
"""How long after a revocation was acknowledged a replica may still begin to answer with a token."""

_GRANTS = "SELECT user_id, status, coalesce(reason, '') FROM grants"
_ENDED_BY_EVENT = "google_account_hijacked"


@dataclass(frozen=True)
class Row:
    """A grant, as the database has it."""

    status: str
    reason: str


@dataclass(frozen=True)
class StaleToken:
    """A token that a replica gave to somebody who had gone."""

    journey: Journey
    ended: Change
    answer: Answer
    was_lost: bool
    """Whether a failover took what had ended the grant with it."""

    def __str__(self) -> str:
        late = self.answer.began - self.ended.ended
        lost = ", which was lost" if self.was_lost else ""
        return (
            f"{self.journey.user.id}: replica {self.answer.replica} was asked {late:.2f} s after "
            f"the {self.ended.kind}{lost}, and gave a token after {self.answer.seconds:.2f} s"
        )


def grants_of(fleet: Fleet) -> dict[str, Row]:
    """Each user's grant; nobody has two here."""
    rows = (line.split("|") for line in fleet.sql(_GRANTS).splitlines())
    return {user_id: Row(status, reason) for user_id, status, reason in rows}


def stale_tokens(
    journeys: Sequence[Journey], suspect: tuple[float, float] = (0.0, 0.0)
) -> list[StaleToken]:
    """Every token that was given too long after its grant had ended.

    `suspect` is when what was acknowledged may have been lost: from the cut to the failover.
    """
    return [
        StaleToken(journey, journey.ended, poll, suspect[0] <= journey.ended.ended <= suspect[1])
        for journey in journeys
        if journey.ended is not None
        for poll in journey.polls
        if poll.status == 200 and poll.began > journey.ended.ended + PROPAGATION_SECONDS
    ]


def lost_changes(
    journeys: Sequence[Journey], grants: Mapping[str, Row]
) -> list[tuple[Journey, Change]]:
    """The acknowledged changes that the database does not have."""
    return [
        (journey, journey.last)
        for journey in journeys
        if journey.last is not None and not _is_kept(journey.last, grants.get(journey.user.id))
    ]


def _is_kept(change: Change, row: Row | None) -> bool:
    """An event after which nobody connected leaves its reason, unless a user withdrew first."""
    match change.kind:
        case "consent":
            return row is not None and row.status != "revoked"
        case "revocation":
            return row is not None and row.status == "revoked"
        case "event":
            return row is not None and row.reason == _ENDED_BY_EVENT


def marked_by_mistake(
    journeys: Sequence[Journey], grants: Mapping[str, Row], fleet: Fleet
) -> list[tuple[str, Row]]:
    """Grants that ask for a new consent although Google honours them, and no event ended them."""
    with fleet.google.state.lock:
        honoured = {token.sub for token in fleet.google.state.refresh_tokens.values()}
    marked = []
    for journey in journeys:
        row = grants.get(journey.user.id)
        event = any(change.kind == "event" for change in journey.changes)
        if row is None or row.status != "reauthorization_required" or event:
            continue
        if journey.user.sub in honoured:
            marked.append((journey.user.id, row))
    return marked


def held_tokens_served(journeys: Sequence[Journey], began: float, ended: float) -> tuple[int, int]:
    """How many polls in that time were answered with a token, and how many could have been.

    Could have been: of users who stayed as they were, and had got one from that replica before.
    """
    statuses = []
    for journey in journeys:
        if len(journey.changes) != 1 or not journey.is_connected:
            continue
        before = {p.replica for p in journey.polls if p.status == 200 and p.ended < began}
        statuses += [
            poll.status
            for poll in journey.polls
            if poll.replica in before and began <= poll.began and poll.ended <= ended
        ]
    return statuses.count(200), len(statuses)


def assert_nothing_wrong_was_answered(
    journeys: Sequence[Journey],
    lost: Collection[str] = (),
    nothing_cached: tuple[float, float] = (0.0, 0.0),
) -> None:
    """No wrong token; nobody refused who could be served; no definite refusal of a connected user.

    `lost` are the users whose first consent is lost: for them there is no grant. `nothing_cached`
    is when replicas dropped their caches: then even who has a token may be told to ask again.
    """
    faults = [
        poll
        for journey in journeys
        for poll in journey.polls
        if poll.fault and poll.ended < _going(journey) and not _took_too_long_to_be_timed(poll)
    ]
    assert not faults, faults[:3]
    undisturbed = [
        poll
        for journey in journeys
        if len(journey.changes) == 1 and journey.is_connected and journey.user.id not in lost
        for poll in journey.polls
        if not _took_too_long_to_be_timed(poll)
        and not (poll.status == 503 and _overlaps(poll, nothing_cached))
    ]
    allowed = {"storage_unavailable", "google_unavailable"}
    Record(undisturbed).assert_sound(allowed=allowed, among_replicas=False)
    for journey in journeys:
        if journey.user.id not in lost:
            _assert_never_refused_for_good(journey)


def _overlaps(poll: Answer, time: tuple[float, float]) -> bool:
    return poll.began <= time[1] and poll.ended >= time[0]


def _took_too_long_to_be_timed(poll: Answer) -> bool:
    """Whether the fault is one of seconds, and the answer was on its way for as long.

    Callers ask for a token that lives a second; a write that waits for a replica takes five.
    """
    fault = poll.fault or ""
    return poll.seconds > 0.9 and fault.startswith(("it expired", "it lives"))


def _assert_never_refused_for_good(journey: Journey) -> None:
    """404 and 409 tell the product to have the user connect: only for one who may have gone."""
    connected = journey.connected_at or float("inf")
    wrong = [
        poll
        for poll in journey.polls
        if poll.status in (404, 409) and poll.began > connected and poll.ended < _going(journey)
    ]
    assert not wrong, wrong[:3]


def _going(journey: Journey) -> float:
    """When somebody first asked for an end to it."""
    return min((c.began for c in journey.changes if c.kind != "consent"), default=float("inf"))
