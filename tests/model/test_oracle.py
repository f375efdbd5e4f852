"""Each kind of difference between system and model is found; the tests create them directly."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from devstack.google_standin.model import RefreshToken
from model.run import Finding, Run
from model.states import REVOKED, becomes
from model.steps import take
from model.system import System, running_system
from tests.support.processes import wait_until

pytestmark = pytest.mark.process

_NUMBERS = count()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("oracle"), replicas=2, standby=False) as running:
        yield running


@pytest.fixture
def run(system: System) -> Run:
    """A user with a connected account."""
    name = f"o{next(_NUMBERS)}"
    run = Run(system, users=[name], accounts=[name])
    _take(run, "connect", caller="planner", scopes=["readonly"], replica=0, back_at=1)
    _take(run, "check")
    return run


def _take(run: Run, step: str, **arguments: Any) -> str:
    who = {"user": run.users[0], "account": run.accounts[0]} if arguments else {}
    return take(run, {"step": step, **who, **arguments})


def test_a_revoked_refresh_token_is_found(run: Run) -> None:
    run.system.google.expire_refresh_tokens(f"{run.accounts[0]}@example.com")
    with pytest.raises(Finding, match="its refresh token is revoked at Google"):
        _take(run, "check")


def test_an_authorization_without_a_grant_is_found(run: Run) -> None:
    _take(run, "revoke", replica=0)
    _take(run, "wait_until_delivered")
    google, sub = run.system.google, run.system.sub(run.accounts[0])
    with google.state.lock:
        (client,) = google.state.clients.values()
        lost = RefreshToken("1//0-lost", client.client_id, client.project, sub, [])
        google.state.refresh_tokens[lost.value] = lost
    with pytest.raises(Finding, match="no grant has them"):
        _take(run, "check")


def test_a_grant_of_another_status_is_found(run: Run) -> None:
    run.system.sql(
        "UPDATE grants SET status = 'reauthorization_required', version = version + 1 "
        f"WHERE user_id = '{run.users[0]}'"
    )
    with pytest.raises(Finding, match="is dead in the table; in the model it is"):
        _take(run, "check")


def test_wider_scopes_are_found(run: Run) -> None:
    run.system.sql(
        "UPDATE grants SET scopes = scopes || '{https://www.googleapis.com/auth/calendar}' "
        f"WHERE user_id = '{run.users[0]}'"
    )
    with pytest.raises(Finding, match="has the scopes"):
        _take(run, "check")


def test_a_token_after_a_revocation_is_found(run: Run) -> None:
    """In the model the grant is revoked; the broker does not know it."""
    key = ("grant", run.users[0], run.accounts[0])
    run.possible.apply({key: becomes(REVOKED)})
    with pytest.raises(Finding, match=r"a token .* after it ended"):
        _take(run, "token", caller="planner", replica=1)


def test_a_refusal_without_a_reason_is_found(run: Run) -> None:
    run.system.sql(
        "UPDATE grants SET status = 'revoked', version = version + 1, is_default = false, "
        "sealed_refresh_token = NULL, refresh_token_key_id = NULL "
        f"WHERE user_id = '{run.users[0]}'"
    )

    def is_heard_of() -> bool:
        return _take(run, "token", caller="planner", replica=1) != "200"

    with pytest.raises(Finding, match="404 grant_not_found, but it is"):
        wait_until("the change is heard of", is_heard_of)


def test_a_token_from_before_the_account_was_revoked_is_not_a_finding(run: Run) -> None:
    """It was requested first and checked last, when the grant has another refresh token."""
    who = {"user": run.users[0], "account": run.accounts[0], "caller": "planner", "replica": 0}
    asks = {"step": "token", **who}
    begun = take(run, {"step": "begin", "ref": "b", "operation": asks, "hold": "before"})
    assert begun == "not held"
    ended = {"step": "event", "kind": "hijacking", "account": run.accounts[0]}
    assert take(run, {**ended, "replica": 1, "times": 1}) == "202"
    _take(run, "connect", caller="planner", scopes=["readonly"], replica=0, back_at=0)
    assert take(run, {"step": "finish", "ref": "b"}) == "200"
