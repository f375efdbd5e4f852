"""Checks of the journeys after a failover, and which of their changes were lost with the primary.

The evidence: what callers saw, the rows of the new primary, and Google's state.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.fleet import Fleet
from tests.chaos.journeys import Change, Journey
from tests.chaos.load import Answer, Record

PROPAGATION_SECONDS = 1.0
"""Seconds after an acknowledged revocation in which a replica may still begin to return a token."""

_GRANTS = "SELECT user_id, status, coalesce(reason, '') FROM grants"
_ENDED_BY_EVENT = "google_account_hijacked"


@dataclass(frozen=True)
class Row:
    """A grant in the database."""

    status: str
    reason: str


@dataclass(frozen=True)
class LateToken:
    """A token that a replica returned after the user's grant had ended."""

    journey: Journey
    ended: Change
    answer: Answer
    was_lost: bool
    """True if a failover lost the change that had ended the grant."""

    def __str__(self) -> str:
        late = self.answer.began - self.ended.ended
        lost = ", which was lost" if self.was_lost else ""
        return (
            f"{self.journey.user.id}: replica {self.answer.replica} got a request {late:.2f} s "
            f"after the {self.ended.kind}{lost} and returned a token in {self.answer.seconds:.2f} s"
        )


def grants_of(fleet: Fleet) -> dict[str, Row]:
    """Return each user's grant. No user has two here."""
    rows = (line.split("|") for line in fleet.sql(_GRANTS).splitlines())
    return {user_id: Row(status, reason) for user_id, status, reason in rows}


def tokens_after_the_end(
    journeys: Sequence[Journey], suspect: tuple[float, float] = (0.0, 0.0)
) -> list[LateToken]:
    """Return every token that was returned too long after its grant had ended.

    `suspect`: the time whose acknowledged changes may be lost, from the cut to the failover.
    """
    return [
        LateToken(journey, journey.ended, poll, suspect[0] <= journey.ended.ended <= suspect[1])
        for journey in journeys
        if journey.ended is not None
        for poll in journey.polls
        if poll.status == 200 and poll.began > journey.ended.ended + PROPAGATION_SECONDS
    ]


def lost_changes(
    journeys: Sequence[Journey], grants: Mapping[str, Row]
) -> list[tuple[Journey, Change]]:
    """Return the acknowledged changes that are missing in the database."""
    return [
        (journey, journey.last)
        for journey in journeys
        if journey.last is not None and not _is_kept(journey.last, grants.get(journey.user.id))
    ]


def _is_kept(change: Change, row: Row | None) -> bool:
    """True if the row shows the change.

    An event leaves its reason, unless the user revoked first; no user connects again after it.
    """
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
    """Return the grants that need a new consent although Google honours them and no event ended
    them.
    """
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


def cached_tokens_served(
    journeys: Sequence[Journey], began: float, ended: float
) -> tuple[int, int]:
    """Return the number of polls in that time that got a token, and the number that could have.

    Only users with no other change count, at replicas that had returned a token before.
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


def assert_answers_correct(
    journeys: Sequence[Journey],
    lost: Collection[str] = (),
    nothing_cached: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Check the polls: no wrong token, no refusal of a known token, no 404 or 409 for a connected
    user.

    `lost`: the users whose first consent is lost; they have no grant. `nothing_cached`: the time in
    which replicas had dropped their caches; then 503 is correct for any user.
    """
    faults = [
        poll
        for journey in journeys
        for poll in journey.polls
        if poll.fault
        and poll.ended < _end_requested_at(journey)
        and not _is_too_slow_to_judge(poll)
    ]
    assert not faults, faults[:3]
    undisturbed = [
        poll
        for journey in journeys
        if len(journey.changes) == 1 and journey.is_connected and journey.user.id not in lost
        for poll in journey.polls
        if not _is_too_slow_to_judge(poll)
        and not (poll.status == 503 and _overlaps(poll, nothing_cached))
    ]
    allowed = {"storage_unavailable", "google_unavailable"}
    Record(undisturbed).assert_sound(allowed=allowed, among_replicas=False)
    for journey in journeys:
        if journey.user.id not in lost:
            _assert_never_refused(journey)


def _overlaps(poll: Answer, time: tuple[float, float]) -> bool:
    return poll.began <= time[1] and poll.ended >= time[0]


def _is_too_slow_to_judge(poll: Answer) -> bool:
    """True if only the timing is wrong, and the answer took too long to judge it.

    Callers request a token that lives one second; a write that waits for a replica takes five.
    """
    fault = poll.fault or ""
    return poll.seconds > 0.9 and fault.startswith(("it expired", "it lives"))


def _assert_never_refused(journey: Journey) -> None:
    """Check that 404 and 409, which ask for a new connection, appear only after an end was
    requested.
    """
    connected = journey.connected_at or float("inf")
    wrong = [
        poll
        for poll in journey.polls
        if poll.status in (404, 409)
        and poll.began > connected
        and poll.ended < _end_requested_at(journey)
    ]
    assert not wrong, wrong[:3]


def _end_requested_at(journey: Journey) -> float:
    """Return when an end was first requested."""
    return min((c.began for c in journey.changes if c.kind != "consent"), default=float("inf"))
