"""The possible states of each grant and each pending consent, as sets.

An operation is a function from one state to those that it may lead to. An unknown outcome (an
operation without a response, commits lost in a failover, overlapping operations) leaves several
states possible, until a quiet point shows the actual one.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY

Key = tuple[str, ...]
"""`("grant", user, account)`, or `("consent", ref)` for a pending consent."""

NEVER, ACTIVE, HELD_BACK, DEAD, REVOKED = "never", "active", "held_back", "dead", "revoked"
WAITING, ENDED = "waiting", "ended"

EVERYTHING = frozenset({CALENDAR, CALENDAR_READONLY, GMAIL_READONLY})
"""All scopes that may be requested."""


@dataclass(frozen=True, slots=True)
class State:
    """The status of a grant (one of five) or of a pending consent (one of two).

    Its scopes are at least `least` and at most `most`.
    """

    status: str
    least: frozenset[str] = frozenset()
    most: frozenset[str] = frozenset()


Transform = Callable[[State], Iterable[State]]
Effects = Mapping[Key, Transform]


def connected(least: Iterable[str], most: Iterable[str]) -> Transform:
    """A consent for these scopes took effect; a live grant keeps its scopes."""
    asked, reach = frozenset(least), frozenset(most)

    def transform(state: State) -> Iterable[State]:
        if state.status in (NEVER, REVOKED):
            return [State(ACTIVE, asked, reach)]
        kept = state.least if state.status == ACTIVE else frozenset()
        return [State(ACTIVE, asked | kept, reach | state.most)]

    return transform


def becomes(status: str, *, unless: Iterable[str] = ()) -> Transform:
    """Change the status, except in the states that stay."""
    spared = frozenset(unless)
    return lambda state: [state if state.status in spared else replace(state, status=status)]


def only(before: str, *after: str) -> Transform:
    """Change one status to any of others; the rest stay."""

    def transform(state: State) -> Iterable[State]:
        if state.status != before:
            return [state]
        return [replace(state, status=status) for status in after]

    return transform


def perhaps(transform: Transform) -> Transform:
    """The operation may or may not have taken place."""
    return lambda state: [state, *transform(state)]


def after(states: Iterable[State], transforms: Sequence[Transform]) -> frozenset[State]:
    """Return the states that these functions lead to, one after another."""
    found = frozenset(states)
    for transform in transforms:
        found = frozenset(result for state in found for result in transform(state))
    return found


@dataclass
class _Underway:
    """An operation in progress: the states at its begin, and what happened since."""

    began: dict[Key, frozenset[State]]
    since: list[tuple[Key, Transform]] = field(default_factory=list)


class Possible:
    """The possible states of each key."""

    def __init__(self) -> None:
        self._now: dict[Key, frozenset[State]] = {}
        self._underway: dict[str, _Underway] = {}
        self._seen_by_standby: dict[Key, frozenset[State]] | None = None
        """The earlier states of keys that changed, or could have, since the standby lags."""

    def __getitem__(self, key: Key) -> frozenset[State]:
        return self._now.get(key, frozenset({State(NEVER if key[0] == "grant" else ENDED)}))

    def snapshot(self) -> dict[Key, frozenset[State]]:
        return dict(self._now)

    def statuses(self, key: Key) -> set[str]:
        return {state.status for state in self[key]}

    def put(self, key: Key, states: Iterable[State]) -> None:
        """Set the actual state; no operation took place."""
        self._now[key] = frozenset(states)

    def apply(self, effects: Effects) -> None:
        """Apply an operation without a relevant concurrent one."""
        for key, transform in effects.items():
            self._set(key, after(self[key], [transform]))
            for underway in self._underway.values():
                underway.since.append((key, transform))

    def apply_in_any_order(self, many: Sequence[Effects]) -> None:
        """Apply concurrent operations; each may know the others' scopes."""
        for key in {key for effects in many for key in effects}:
            transforms = [effects[key] for effects in many if key in effects]
            orders = itertools.permutations(transforms)
            found = frozenset().union(*(after(self[key], order) for order in orders))
            found |= _of_one_alone(self[key], transforms)
            self._set(key, _of_any_reach(found))
            for underway in self._underway.values():
                underway.since.append((key, _any_order(transforms)))

    def begin(self, name: str) -> None:
        """Begin an operation that ends with `finish`; others may take place meanwhile."""
        self._underway[name] = _Underway(dict(self._now))

    def finish(self, name: str, effects: Effects) -> None:
        """Apply it at any time since its begin, with the scopes requested meanwhile."""
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
        """A failover may lose changes from now on."""
        self._seen_by_standby = {}

    def lose_newest(self) -> list[Key]:
        """Fail over: each key may be as at any time since. Returns those keys."""
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
    """Return what each of several concurrent consents brings without the others' scopes.

    Google's response has the scopes granted by then. The response that the broker stores last may
    be the one that Google sent first.
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
