"""Google in every mood, with three replicas under load: nobody is refused who can be served, no
grant is touched, and soon after it all works again.
"""

import time

import pytest

from devstack.google_standin import Fault
from tests.chaos.fleet import TOKEN_LIFETIME, Fleet
from tests.chaos.load import load_on
from tests.support.processes import wait_until

pytestmark = pytest.mark.chaos

SPELL = TOKEN_LIFETIME + 1.5
"""Seconds: long enough for every token to expire."""

MOODS = {
    "500": Fault.http(500),
    "503": Fault.http(503),
    "429": Fault.rate_limited(retry_after=2),
    "403 with HTML": Fault.html_403(),
    "half an answer": Fault.half(),
    "not JSON": Fault.not_json(),
    "no expires_in": Fault.without("expires_in"),
    "cut connections": Fault.drop(),
}


@pytest.mark.parametrize("mood", MOODS)
def test_a_google_that_fails(fleet: Fleet, mood: str) -> None:
    with load_on(fleet) as record:
        before = fleet.refreshes()
        fleet.google.faults.always("token", MOODS[mood], grant_type="refresh_token")
        time.sleep(SPELL)
        asked = fleet.refreshes() - before
        fleet.google.faults.clear()
        fleet.assert_all_is_well()
        time.sleep(1)
    record.assert_sound(allowed={"google_unavailable"})
    assert asked <= 8 * len(fleet.users), "a storm of retries"
    assert "503 google_unavailable" in record.summary(), "the fault was not felt"


def test_a_google_that_refuses_connections(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.stop()
        time.sleep(SPELL)
        fleet.google.start()
        fleet.assert_all_is_well()
    record.assert_sound(allowed={"google_unavailable"})
    assert "503 google_unavailable" in record.summary(), "the fault was not felt"


def test_a_google_that_is_silent_for_half_a_minute(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.silence(30), grant_type="refresh_token")
        time.sleep(SPELL)
        fleet.google.faults.clear()
        fleet.assert_all_is_well(within=20)
    record.assert_sound(allowed={"google_unavailable"})
    assert record.slowest() < 20
    assert record.slowest(503) < 20


def test_a_spell_of_invalid_client(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.invalid_client(), grant_type="refresh_token")
        time.sleep(SPELL)
        fleet.google.faults.clear()
        fleet.assert_all_is_well()
    record.assert_sound(allowed={"client_misconfigured"})
    assert "503 client_misconfigured" in record.summary(), "the fault was not felt"


def test_invalid_grant_for_one_user_among_many(fleet: Fleet) -> None:
    (unlucky,) = fleet.connect()
    fleet.users.remove(unlucky)
    assert fleet.token(unlucky).status_code == 200
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.invalid_grant(), account=unlucky.sub)
        before = _asked_about(fleet, unlucky.sub)
        wait_until("it is found out", lambda: fleet.token(unlucky).status_code == 409)
        for replica in range(len(fleet.replicas)):
            wait_until(
                "every replica knows",
                lambda replica=replica: fleet.token(unlucky, replica).status_code == 409,  # type: ignore[misc]
                within=1,
            )
        assert _asked_about(fleet, unlucky.sub) == before + 1
    record.assert_sound()
    status = fleet.sql(f"SELECT status FROM grants WHERE user_id = '{unlucky.id}'")
    assert status == "reauthorization_required"
    fleet.sql(f"DELETE FROM grants WHERE user_id = '{unlucky.id}'")
    fleet.assert_all_is_well()


def _asked_about(fleet: Fleet, sub: str) -> int:
    asked = fleet.google.requests.to("token", grant_type="refresh_token")
    return len([request for request in asked if request.account == sub])


def test_in_good_health_nobody_is_refused_and_nobody_waits(fleet: Fleet) -> None:
    with load_on(fleet) as record:
        fleet.google.faults.always("token", Fault.delay(0.05))
        time.sleep(SPELL)
    record.assert_sound()
    assert record.slowest() < 2
