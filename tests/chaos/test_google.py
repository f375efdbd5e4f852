"""Google's faults, with three replicas under load.

No request is refused that could be answered, no grant changes, and soon afterwards all works.
"""

import time

import pytest

from devstack.google_standin import Fault
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet
from tests.chaos.load import load_on
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

FAULT_SECONDS = TOKEN_LIFETIME + 1.5
"""Long enough for every token to expire."""

FAULTS = {
    "500": Fault.http(500),
    "503": Fault.http(503),
    "429": Fault.rate_limited(retry_after=2),
    "403 with HTML": Fault.html_403(),
    "half an answer": Fault.half(),
    "not JSON": Fault.not_json(),
    "no expires_in": Fault.without("expires_in"),
    "cut connections": Fault.drop(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_google_fails(fleet: Fleet, fault: str) -> None:
    with load_on(fleet) as record:
        before = fleet.refreshes()
        fleet.google.faults.always("token", FAULTS[fault], grant_type="refresh_token")
        time.sleep(FAULT_SECONDS)
        asked = fleet.refreshes() - before
        fleet.google.faults.clear()
        fleet.assert_recovered()
        time.sleep(1)
    record.assert_sound(allowed={"google_unavailable"})
    assert asked <= 8 * len(fleet.users), "too many retries"
    assert "503 google_unavailable" in record.summary(), "the fault had no effect"


def test_google_refuses_connections(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.stop()
        time.sleep(FAULT_SECONDS)
        fleet.google.start()
        fleet.assert_recovered()
    record.assert_sound(allowed={"google_unavailable"})
    assert "503 google_unavailable" in record.summary(), "the fault had no effect"


def test_google_does_not_respond_for_half_a_minute(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.silence(30), grant_type="refresh_token")
        time.sleep(FAULT_SECONDS)
        fleet.google.faults.clear()
        fleet.assert_recovered(within=20)
    record.assert_sound(allowed={"google_unavailable"})
    assert record.slowest() < 20
    assert record.slowest(503) < 20


def test_google_answers_invalid_client(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.invalid_client(), grant_type="refresh_token")
        time.sleep(FAULT_SECONDS)
        fleet.google.faults.clear()
        fleet.assert_recovered()
    record.assert_sound(allowed={"client_misconfigured"})
    assert "503 client_misconfigured" in record.summary(), "the fault had no effect"


def test_invalid_grant_for_one_user_among_many(fleet: Fleet) -> None:
    (affected,) = fleet.connect()
    fleet.users.remove(affected)
    assert fleet.token(affected).status_code == 200
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.invalid_grant(), account=affected.sub)
        before = _refreshes_of(fleet, affected.sub)
        wait_until(
            "the first replica returns 409", lambda: fleet.token(affected).status_code == 409
        )
        for replica in range(len(fleet.replicas)):
            wait_until(
                "every replica returns 409",
                lambda replica=replica: fleet.token(affected, replica).status_code == 409,  # type: ignore[misc]
                within=1,
            )
        assert _refreshes_of(fleet, affected.sub) == before + 1
    record.assert_sound()
    status = fleet.sql(f"SELECT status FROM grants WHERE user_id = '{affected.id}'")
    assert status == "reauthorization_required"
    fleet.sql(f"DELETE FROM grants WHERE user_id = '{affected.id}'")
    fleet.assert_recovered()


def _refreshes_of(fleet: Fleet, sub: str) -> int:
    asked = fleet.google.requests.to("token", grant_type="refresh_token")
    return len([request for request in asked if request.account == sub])


def test_without_faults_no_request_is_refused_or_slow(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.delay(0.05))
        time.sleep(FAULT_SECONDS)
    record.assert_sound()
    assert record.slowest() < 2
