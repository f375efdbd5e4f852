"""The model alone: the possible states after each operation."""

from model.states import (
    ACTIVE,
    DEAD,
    EVERYTHING,
    NEVER,
    REVOKED,
    Possible,
    State,
    after,
    becomes,
    connected,
    only,
    perhaps,
)

KEY = ("grant", "u0", "a0")
SCOPE, OTHER = sorted(EVERYTHING)[:2]

_connects = connected([SCOPE], [SCOPE])
_is_revoked = becomes(REVOKED, unless=[NEVER])


def _possible() -> Possible:
    possible = Possible()
    possible.apply({KEY: _connects})
    return possible


def test_a_consent_adds_scopes_to_a_live_grant() -> None:
    possible = _possible()
    possible.apply({KEY: connected([OTHER], [OTHER])})
    assert possible[KEY] == {State(ACTIVE, frozenset({SCOPE, OTHER}), frozenset({SCOPE, OTHER}))}


def test_a_consent_after_a_revocation_starts_without_scopes() -> None:
    possible = _possible()
    possible.apply({KEY: _is_revoked})
    possible.apply({KEY: connected([OTHER], [OTHER])})
    assert possible[KEY] == {State(ACTIVE, frozenset({OTHER}), frozenset({OTHER}))}


def test_an_absent_grant_can_not_be_revoked() -> None:
    possible = Possible()
    possible.apply({KEY: _is_revoked})
    assert possible.statuses(KEY) == {NEVER}


def test_without_a_response_both_states_are_possible() -> None:
    possible = _possible()
    possible.apply({KEY: perhaps(_is_revoked)})
    assert possible.statuses(KEY) == {ACTIVE, REVOKED}


def test_the_last_of_concurrent_consents_may_lack_the_scopes_of_the_first() -> None:
    possible = Possible()
    possible.apply_in_any_order([{KEY: _connects}, {KEY: connected([OTHER], [OTHER])}])
    leasts = {state.least for state in possible[KEY]}
    assert leasts == {frozenset({SCOPE}), frozenset({OTHER}), frozenset({SCOPE, OTHER})}


def test_a_consent_concurrent_with_a_revocation_keeps_its_own_scopes() -> None:
    possible = _possible()
    possible.apply_in_any_order([{KEY: _is_revoked}, {KEY: connected([OTHER], [OTHER])}])
    active = {state.least for state in possible[KEY] if state.status == ACTIVE}
    assert active == {frozenset({OTHER})}


def test_either_of_two_concurrent_operations_may_be_the_last() -> None:
    possible = Possible()
    possible.apply_in_any_order([{KEY: _connects}, {KEY: _is_revoked}])
    assert possible.statuses(KEY) == {ACTIVE, REVOKED}


def test_a_consent_that_overlaps_a_revocation_may_come_before_or_after_it() -> None:
    possible = _possible()
    possible.begin("consent")
    possible.apply({KEY: _is_revoked})
    assert possible.statuses(KEY) == {REVOKED}
    possible.finish("consent", {KEY: _connects})
    assert possible.statuses(KEY) == {ACTIVE, REVOKED}


def test_an_operation_that_ended_before_overlaps_nothing() -> None:
    possible = _possible()
    possible.apply({KEY: _is_revoked})
    possible.begin("consent")
    possible.finish("consent", {KEY: _connects})
    assert possible.statuses(KEY) == {ACTIVE}


def test_a_failover_restores_what_the_standby_may_have_had() -> None:
    possible = _possible()
    possible.falls_behind()
    possible.apply({KEY: _is_revoked})
    assert possible.lose_newest() == [KEY]
    assert possible.statuses(KEY) == {ACTIVE, REVOKED}


def test_a_revocation_after_a_failover_holds_whatever_was_lost() -> None:
    possible = Possible()
    possible.falls_behind()
    possible.apply({KEY: _connects})
    possible.lose_newest()
    assert possible.statuses(KEY) == {NEVER, ACTIVE}
    possible.apply({KEY: _is_revoked})
    assert possible.statuses(KEY) == {NEVER, REVOKED}


def test_a_failover_loses_nothing_from_before_the_standby_lagged() -> None:
    possible = _possible()
    possible.falls_behind()
    assert possible.lose_newest() == []
    assert possible.statuses(KEY) == {ACTIVE}


def test_one_status_may_lead_to_several() -> None:
    states = after([State(ACTIVE), State(REVOKED)], [only(ACTIVE, ACTIVE, DEAD)])
    assert {state.status for state in states} == {ACTIVE, DEAD, REVOKED}
