"""What may be true of each grant and of each consent that waits, as sets of states.

An operation is a function from one state to those it may lead to. What nobody can know (an
operation without an answer, commits that a failover lost, operations that overlapped) leaves
several states possible, until a quiet point shows which one it is.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.support.world import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY

Key = tuple[str, ...]
"""`("grant", user, account)`, or `("consent", ref)` for one that waits for its confirmation."""

NEVER, ACTIVE, HELD_BACK, DEAD, REVOKED = "never", "active", "held_back", "dead", "revoked"
WAITING, ENDED = "waiting", "ended"

EVERYTHING = frozenset({CALENDAR, CALENDAR_READONLY, GMAIL_READONLY})
"""All scopes that anybody may ask for."""


@dataclass(frozen=True, slots=True)
class State:
    """Of a grant: one of the five statuses above; of a consent that waits: one of the two.

    The scopes that it has are `least` at least and `most` at most.
    """

    status: str
    least: frozenset[str] = frozenset()
    most: frozenset[str] = frozenset()


Transform = Callable[[State], Iterable[State]]
Effects = Mapping[Key, Transform]


def connected(least: Iterable[str], most: Iterable[str]) -> Transform:
    """A consent took effect that may fetch these; what a live grant has stays."""
    asked, reach = frozenset(least), frozenset(most)

    def transform(state: State) -> Iterable[State]:
        if state.status in (NEVER, REVOKED):
            return [State(ACTIVE, asked, reach)]
        kept = state.least if state.status == ACTIVE else frozenset()
        return [State(ACTIVE, asked | kept, reach | state.most)]

    return transform


def becomes(status: str, *, unless: Iterable[str] = ()) -> Transform:
    """Another status, but of those states that stay."""
    spared = frozenset(unless)
    return lambda state: [state if state.status in spared else replace(state, status=status)]


def only(before: str, *after: str) -> Transform:
    """From one status to any of others; the rest stay."""

    def transform(state: State) -> Iterable[State]:
        if state.status != before:
            return [state]
        return [replace(state, status=status) for status in after]

    return transform


def perhaps(transform: Transform) -> Transform:
    """Nobody knows whether it took place."""
    return lambda state: [state, *transform(state)]


def after(states: Iterable[State], transforms: Sequence[Transform]) -> frozenset[State]:
    """All states that these lead to, one after the other."""
    found = frozenset(states)
    for transform in transforms:
        found = frozenset(result for state in found for result in transform(state))
    return found


@dataclass
class _Underway:
    """An operation that has begun: where each key was, and what happened to it since."""

    began: dict[Key, frozenset[State]]
    since: list[tuple[Key, Transform]] = field(default_factory=list)


class Possible:
    """The states that each key may be in."""

    def __init__(self) -> None:
        self._now: dict[Key, frozenset[State]] = {}
        self._underway: dict[str, _Underway] = {}
        self._seen_by_standby: dict[Key, frozenset[State]] | None = None
        """Of the keys that changed since the standby fell behind, or could have."""

    def __getitem__(self, key: Key) -> frozenset[State]:
        return self._now.get(key, frozenset({State(NEVER if key[0] == "grant" else ENDED)}))

    def snapshot(self) -> dict[Key, frozenset[State]]:
        return dict(self._now)

    def statuses(self, key: Key) -> set[str]:
        return {state.status for state in self[key]}

    def put(self, key: Key, states: Iterable[State]) -> None:
        """What is known now; nothing took place."""
        self._now[key] = frozenset(states)

    def apply(self, effects: Effects) -> None:
        """An operation has ended, and none that matters was under way beside it."""
        for key, transform in effects.items():
            self._set(key, after(self[key], [transform]))
            for underway in self._underway.values():
                underway.since.append((key, transform))

    def apply_in_any_order(self, many: Sequence[Effects]) -> None:
        """Operations that ran beside each other; each may have heard of the others' scopes."""
        for key in {key for effects in many for key in effects}:
            transforms = [effects[key] for effects in many if key in effects]
            orders = itertools.permutations(transforms)
            found = frozenset().union(*(after(self[key], order) for order in orders))
            found |= _of_one_alone(self[key], transforms)
            self._set(key, _of_any_reach(found))
            for underway in self._underway.values():
                underway.since.append((key, _any_order(transforms)))

    def begin(self, name: str) -> None:
        """An operation begins that ends with `finish`; others may take place meanwhile."""
        self._underway[name] = _Underway(dict(self._now))

    def finish(self, name: str, effects: Effects) -> None:
        """It took place at some moment since it began, and heard of scopes asked for meanwhile."""
        underway = self._underway.pop(name)
        for key, transform in effects.items():
            began = underway.began.get(key)
            others = [other for changed, other in underway.since if changed == key]
            start = (began or Possible()[key]) if others else self[key]
            found = [
                after(start, [*others[:place], transform, *others[place:]])
                for place in range(len(others) + 1)
            ]
            found.append(_of_one_alone(start, [transform, *others]))
            self._set(key, _of_any_reach(frozenset().union(*found)))
            for other in self._underway.values():
                other.since.append((key, transform))

    # The standby.

    def falls_behind(self) -> None:
        """What changes from now on a failover may lose."""
        self._seen_by_standby = {}

    def lose_newest(self) -> list[Key]:
        """A failover: each key may be as it was at any time since; gives those."""
        lost, self._seen_by_standby = self._seen_by_standby or {}, None
        for key, earlier in lost.items():
            self._now[key] = self[key] | earlier
            for underway in self._underway.values():
                underway.since.append((key, _or_any_of(earlier)))
        return list(lost)

    def _set(self, key: Key, states: frozenset[State]) -> None:
        if self._seen_by_standby is not None:
            earlier = self._seen_by_standby.get(key, frozenset())
            self._seen_by_standby[key] = earlier | self[key] | states
        self._now[key] = states


def _or_any_of(states: frozenset[State]) -> Transform:
    return lambda state: [state, *states]


def _of_any_reach(states: Iterable[State]) -> frozenset[State]:
    return frozenset(replace(state, most=EVERYTHING) for state in states)


def _of_one_alone(states: frozenset[State], transforms: Sequence[Transform]) -> frozenset[State]:
    """Of consents beside each other, what each brings without having heard of the others.

    Google says with each what it had allowed by then; the one that the broker stores last may be
    the one that Google heard first.
    """
    alone = [after(states, [transform]) for transform in transforms]
    consents = [found for found in alone if {state.status for state in found} == {ACTIVE}]
    return frozenset().union(*consents) if len(consents) > 1 else frozenset()


def _any_order(transforms: Sequence[Transform]) -> Transform:
    def transform(state: State) -> Iterable[State]:
        orders = itertools.permutations(transforms)
        found = frozenset().union(*(after([state], order) for order in orders))
        return found | _of_one_alone(frozenset({state}), transforms)

    return transform
