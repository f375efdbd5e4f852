"""Check 15: with `confirm`, tokens stay out of reach until the caller says whose session it was."""

import asyncio
import base64
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker.app import assembled
from broker.callers.keys import new_key
from broker.grants.pending.store import CONFIRMATION_LIFE, WRONG_CODES
from broker.ops import upkeep
from broker.secret import Secret
from devstack.google_standin import Fault, GoogleStandin
from tests.security.probes import (
    about_to_return,
    assert_hidden,
    audited,
    everything_stored,
    own_log,
)
from tests.security_events.events import tell
from tests.support.clock import ManualClock
from tests.support.waiting import eventually
from tests.support.world import (
    ADA,
    CALENDAR,
    CALENDAR_READONLY,
    RETURN_TO,
    Trip,
    World,
    open_world,
    stanza,
)

GRACE = "grace@example.com"


async def _code_of(answer: httpx2.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


async def _assert_invalid(answer: httpx2.Response) -> None:
    assert await _code_of(answer) == (409, "confirmation_invalid")


@pytest.fixture(autouse=True)
def _frequent_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over is swept soon; every fifteen seconds otherwise."""
    monkeypatch.setattr(upkeep, "EVERY_SECONDS", 0.5)


async def _expire(world: World) -> None:
    """Let the time pass in which a confirmation counts, and the upkeep come by."""
    world.clock.advance(CONFIRMATION_LIFE)

    async def is_swept() -> bool:
        return not await world.sql("SELECT 1 FROM pending_consents")

    await eventually(is_swept, seconds=40)


def _revocations(world: World) -> int:
    return world.standin.requests.count("revoke")


async def _told(world: World, count: int = 1) -> None:
    """Until Google was told of so many revocations, and none waits."""

    async def is_told() -> bool:
        world.clock.advance(timedelta(seconds=2))
        told = _revocations(world) >= count
        return told and not await world.sql("SELECT 1 FROM pending_revocations")

    await eventually(is_told, seconds=20)
    assert _revocations(world) == count


async def test_check_15_nothing_is_handed_out_before_the_confirmation(world: World) -> None:
    trip = await world.connect_unconfirmed()
    for query in ({}, {"account": ADA}, {"scope": CALENDAR_READONLY}):
        assert await _code_of(await world.token(**query)) == (409, "confirmation_pending")
    batch = await world.internal.post(
        "/v1/tokens",
        json={"requests": [{"user_id": "user-1"}, {"user_id": "user-2"}]},
        headers=world.authorization,
    )
    codes = [result["error"]["code"] for result in batch.json()["results"]]
    assert codes == ["confirmation_pending", "grant_not_found"]
    (listed,) = await world.grants()
    assert (listed["status"], listed["default"]) == ("pending_confirmation", False)
    assert listed["account"]["email"] == ADA
    assert await world.sql("SELECT 1 FROM grants") == []

    answer = await world.confirm(trip)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    (grant,) = await world.grants()
    assert answer.json() == grant
    assert (grant["status"], grant["default"]) == ("active", True)
    assert (await world.token()).status_code == 200


async def test_check_15_a_link_sent_to_a_victim_yields_nothing(world: World) -> None:
    """The victim's browser brings the code to the product, which sees that it is not its user's."""
    trip = await world.connect_unconfirmed("attacker", account=ADA)
    assert await _code_of(await world.token("attacker")) == (409, "confirmation_pending")
    await _expire(world)
    await _assert_invalid(await world.confirm(trip))
    assert await _code_of(await world.token("attacker")) == (404, "grant_not_found")
    assert await world.grants("attacker") == []
    await _told(world)
    assert len(await audited(world, "confirmation", "expired")) == 1


async def test_check_15_a_code_is_random_good_once_and_for_its_own_link(world: World) -> None:
    first = await world.connect_unconfirmed("user-1")
    second = await world.connect_unconfirmed("user-2", account=GRACE)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", first.confirmation)
    assert first.confirmation != second.confirmation
    await _assert_invalid(await world.confirm(first, code=second.confirmation))
    assert (await world.confirm(first)).status_code == 200
    await _assert_invalid(await world.confirm(first))
    assert (await world.confirm(second)).status_code == 200
    await audited(world, "confirmation", "ok", count=2)
    await audited(world, "confirmation", "confirmation_invalid:wrong_code")
    await audited(world, "confirmation", "confirmation_invalid:unknown")


async def test_check_15_of_confirmations_at_once_one_succeeds(world: World) -> None:
    trip = await world.connect_unconfirmed()
    answers = await asyncio.gather(*(world.confirm(trip) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    (row,) = await world.sql("SELECT version FROM grants")
    assert row["version"] == 1


async def test_check_15_a_few_wrong_codes_end_it(world: World) -> None:
    trip = await world.connect_unconfirmed()
    for _ in range(WRONG_CODES):
        await _assert_invalid(await world.confirm(trip, code="guess"))
    await _assert_invalid(await world.confirm(trip))
    assert await world.grants() == []
    await _told(world)


@pytest.fixture
async def others(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[World, str, str]]:
    """A world with another full caller, and one of other users; and their keys."""
    full, elsewhere = new_key(), new_key()
    callers = {"full": stanza(full), "elsewhere": stanza(elsewhere, users=["team-*"])}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as opened:
        yield opened, full, elsewhere


async def test_check_15_only_the_caller_that_made_the_link_may_confirm(
    others: tuple[World, str, str],
) -> None:
    world, full, elsewhere = others
    trip = await world.connect_unconfirmed()
    for _ in range(WRONG_CODES + 1):
        for key in (full, elsewhere):
            await _assert_invalid(await world.confirm(trip, key=key))
    assert (await world.confirm(trip, key=new_key())).status_code == 401
    # None of that counts against the one who may.
    assert (await world.confirm(trip)).status_code == 200


async def test_check_15_what_a_caller_may_no_longer_do_it_may_not_confirm(world: World) -> None:
    trip = await world.connect_unconfirmed()
    await world.rewrite_callers({"calendar-sync": stanza(world.key, users=["user-2"])})
    assert (await world.confirm(trip)).json()["code"] == "forbidden"
    await world.rewrite_callers({"calendar-sync": stanza(world.key, can=["tokens:read"])})
    assert (await world.confirm(trip)).json()["code"] == "forbidden"
    await world.rewrite_callers({"renamed": stanza(world.key)})
    await _assert_invalid(await world.confirm(trip))
    await world.rewrite_callers({"calendar-sync": stanza(world.key)})
    assert (await world.confirm(trip)).status_code == 200


async def test_check_15_a_policy_that_became_strict_counts_for_links_made_before(
    world: World,
) -> None:
    strict = stanza(world.key, require_confirmation=True)
    async with about_to_return(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"calendar-sync": strict})
        answer = await browser.get(callback)
    assert "&confirmation=" in answer.headers["location"]
    assert await _code_of(await world.token()) == (409, "confirmation_pending")
    # Nor does a request talk the policy out of it, and without a `return_to` there is no link.
    relaxed = await world.connect("user-2", confirm=False, return_to=RETURN_TO)
    assert relaxed.confirmation
    refused = await world.create_link("user-3")
    assert (refused.status_code, refused.json()["field"]) == (400, "return_to")


async def test_check_15_a_link_whose_code_has_nowhere_to_go_ends_there(world: World) -> None:
    strict = stanza(world.key, require_confirmation=True)
    link = (await world.create_link("user-1")).json()["url"]
    async with about_to_return(world, "user-2") as (browser, callback):
        await world.rewrite_callers({"calendar-sync": strict})
        answer = await browser.get(callback)
        assert "This link is no longer valid" in answer.text
        assert (await browser.get(link)).status_code == 410
    assert world.standin.requests.count("token") == 0
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_a_policy_that_became_loose_loosens_no_link(world: World) -> None:
    await world.rewrite_callers({"calendar-sync": stanza(world.key, require_confirmation=True)})
    async with about_to_return(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"calendar-sync": stanza(world.key)})
        answer = await browser.get(callback)
    assert "&confirmation=" in answer.headers["location"]


async def test_check_12_an_address_that_is_no_longer_listed_is_not_redirected_to(
    world: World,
) -> None:
    async with about_to_return(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"calendar-sync": stanza(world.key, return_to=[])})
        answer = await browser.get(callback)
    assert (answer.status_code, "location" in answer.headers) == (200, False)
    await world.rewrite_callers({"calendar-sync": stanza(world.key)})
    async with about_to_return(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"another": stanza(world.key)})
        answer = await browser.get(callback)
    assert (answer.status_code, "location" in answer.headers) == (400, False)


# What else goes on meanwhile.


async def test_check_15_a_live_grant_goes_on_unharmed(world: World) -> None:
    await world.connect()
    before = await world.sql("SELECT * FROM grants")
    trip = await world.connect_unconfirmed(scopes=[CALENDAR])
    assert await world.sql("SELECT * FROM grants") == before
    (listed,) = await world.grants()
    assert (listed["status"], CALENDAR in listed["scopes"]) == ("active", False)
    assert (await world.token()).status_code == 200
    # What only the new consent could serve waits for it; what nothing serves is missing.
    assert await _code_of(await world.token(scope=CALENDAR)) == (409, "confirmation_pending")
    await world.confirm(trip)
    answer = await world.token(scope=CALENDAR)
    assert (answer.status_code, answer.json()["scope"]) == (200, CALENDAR)
    (after,) = await world.sql("SELECT * FROM grants")
    assert (after["id"], after["version"]) == (before[0]["id"], before[0]["version"] + 1)


async def test_unconfirmed_beside_a_live_grant_google_is_not_told(world: World) -> None:
    await world.connect("user-2")
    await world.connect_unconfirmed("user-1")
    await _expire(world)
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert _revocations(world) == 0
    assert (await world.token("user-2", min_ttl=0)).status_code == 200


async def test_a_withdrawal_elsewhere_does_not_end_what_waits(world: World) -> None:
    """Google ends everything of an account: so it is told when the last one goes, not before."""
    await world.connect("user-2")
    trip = await world.connect_unconfirmed("user-1")
    await world.revoke("user-2")
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert (await world.confirm(trip)).status_code == 200
    world.clock.advance(timedelta(hours=1))
    assert (await world.token("user-1")).status_code == 200


@pytest.mark.parametrize("whole", [True, False])
async def test_check_38_a_withdrawal_ends_what_waits(world: World, whole: bool) -> None:
    trip = await world.connect_unconfirmed()
    sub = None if whole else world.standin.account(ADA).sub
    assert (await world.revoke(sub=sub)).status_code == 204
    await _assert_invalid(await world.confirm(trip))
    assert await world.grants() == []
    assert await world.sql("SELECT 1 FROM pending_consents") == []
    await _told(world)
    await audited(world, "grant_revoked", "ok")


async def test_a_confirmation_and_a_withdrawal_at_once_leave_nothing_behind(world: World) -> None:
    for number in range(6):
        # Each has an account of their own: Google ends all of an account with one revocation.
        user, account = f"user-{number}", f"user-{number}@example.com"
        world.standin.add_account(account)
        trip = await world.connect_unconfirmed(user, account)
        confirmed, revoked = await asyncio.gather(world.confirm(trip), world.revoke(user))
        assert (confirmed.status_code in (200, 409), revoked.status_code) == (True, 204)
        # Whichever came first: a confirmation after the withdrawal finds nothing, one before it
        # is withdrawn.
        assert (await world.token(user)).json()["code"] == "grant_not_found"


async def test_a_grant_that_died_waits_for_the_confirmation(world: World) -> None:
    await world.connect()
    await world.sql("UPDATE grants SET status = 'reauthorization_required', version = version + 1")
    trip = await world.connect_unconfirmed()
    assert await _code_of(await world.token()) == (409, "confirmation_pending")
    assert [grant["status"] for grant in await world.grants()] == ["pending_confirmation"]
    assert (await world.confirm(trip)).status_code == 200
    assert (await world.token()).status_code == 200
    assert len(await world.sql("SELECT 1 FROM grants")) == 1


async def test_a_later_consent_is_not_cut_back_by_an_earlier_one(world: World) -> None:
    world.standin.behave(includes_granted=False)
    trip = await world.connect_unconfirmed(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR_READONLY, CALENDAR])
    answer = await world.confirm(trip)
    assert answer.status_code == 200
    assert CALENDAR in answer.json()["scopes"]
    assert (await world.token(scope=CALENDAR)).status_code == 200


async def test_a_consent_that_a_later_one_contradicts_is_void(world: World) -> None:
    world.standin.behave(includes_granted=False)
    trip = await world.connect_unconfirmed(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR])
    await _assert_invalid(await world.confirm(trip))
    assert (await world.token(scope=CALENDAR)).status_code == 200
    assert _revocations(world) == 0


async def test_what_is_being_revoked_at_google_is_void(world: World) -> None:
    trip = await world.connect_unconfirmed()
    world.standin.faults.always("revoke", Fault.http(503))
    await world.sql(
        "INSERT INTO pending_revocations SELECT gen_random_uuid(), google_sub, "
        "sealed_refresh_token, refresh_token_key_id, 'caller', 1, $1, $1, $1 "
        "FROM pending_consents",
        world.clock.now() + timedelta(seconds=25),
    )
    await _assert_invalid(await world.confirm(trip))
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_while_google_is_being_told_nothing_new_is_kept_to_wait(world: World) -> None:
    """What Google gives just now ends with what it is told to end."""
    await world.connect()
    world.standin.faults.next("revoke", Fault.hold("telling"))
    await world.revoke()
    await asyncio.to_thread(world.standin.holds.wait_until_held, "telling")
    trip = await world.connect(confirm=True, return_to=RETURN_TO)
    world.standin.holds.release("telling")
    assert trip.status == "failed"
    assert await world.sql("SELECT 1 FROM pending_consents") == []
    await audited(world, "consent", "failed:revocation_under_way")


@pytest.mark.parametrize("event", ["tokens-revoked", "account-disabled", "sessions-revoked"])
async def test_check_40_what_waits_ends_with_what_google_tells_of_its_account(
    world: World, event: str
) -> None:
    trip = await world.connect_unconfirmed()
    other = await world.connect_unconfirmed("user-2", account=GRACE)
    world.clock.advance(timedelta(seconds=5))
    await tell(world, event)
    await _assert_invalid(await world.confirm(trip))
    assert await world.grants() == []
    assert (await world.confirm(other)).status_code == 200


async def test_denied_or_granted_less_with_confirmation(world: World) -> None:
    denied = await world.connect(confirm=True, return_to=RETURN_TO, deny=True)
    assert denied.status == "denied"
    assert "confirmation" not in denied.response.headers["location"]
    assert await world.grants() == []
    trip = await world.connect_unconfirmed(scopes=[CALENDAR, CALENDAR_READONLY], untick=[CALENDAR])
    assert CALENDAR not in (await world.confirm(trip)).json()["scopes"]


# Keys, replicas, restarts.


@asynccontextmanager
async def _replica(world: World, **changes: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Another broker on the same database, started just now; its internal listener."""
    async with (
        assembled(replace(world.settings, **changes), world.clock) as broker,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=broker.internal, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8001",
            headers=world.authorization,
        ) as internal,
    ):
        yield internal


async def _confirm_at(replica: httpx2.AsyncClient, trip: Trip) -> None:
    path = f"/v1/connect-links/{trip.link_id}/confirm"
    answer = await replica.post(path, json={"code": trip.confirmation})
    assert answer.status_code == 200, answer.text


async def test_another_replica_confirms_and_all_hear_of_it(world: World) -> None:
    """Also one that was started between the consent and the confirmation."""
    await world.connect()
    trip = await world.connect_unconfirmed(scopes=[CALENDAR])
    held = (await world.token()).json()["access_token"]
    async with _replica(world) as replica:
        await _confirm_at(replica, trip)

        async def has_heard() -> bool:
            return bool((await world.token()).json()["access_token"] != held)

        await eventually(has_heard, seconds=5)


async def test_check_20_a_consent_that_waits_outlives_a_rotation_of_the_key(world: World) -> None:
    trip = await world.connect_unconfirmed()
    newer = Secret("another-test-key-of-more-than-32-bytes-01234")
    async with _replica(world, secret_keys=(newer, *world.settings.secret_keys)) as replica:
        await _confirm_at(replica, trip)
        assert (await replica.get("/v1/users/user-1/token")).status_code == 200


async def test_check_20_without_its_key_a_consent_that_waits_is_void(world: World) -> None:
    trip = await world.connect_unconfirmed()
    newer = Secret("another-test-key-of-more-than-32-bytes-01234")
    async with _replica(world, secret_keys=(newer,)) as replica:
        answer = await replica.post(
            f"/v1/connect-links/{trip.link_id}/confirm", json={"code": trip.confirmation}
        )
    await _assert_invalid(answer)
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_check_18_what_waits_is_sealed_and_its_code_is_hashed(world: World) -> None:
    trip = await world.connect_unconfirmed()
    stored = await everything_stored(world)
    for secret in (*world.standin.issued.all(), trip.confirmation):
        assert_hidden(secret, stored)
        assert base64.b64encode(secret.encode()).decode() not in stored


async def test_check_19_a_waiting_ciphertext_moved_elsewhere_does_not_open(world: World) -> None:
    trip = await world.connect_unconfirmed()
    await world.connect_unconfirmed("user-2", account=GRACE)
    await world.sql(
        "UPDATE pending_consents p SET sealed_refresh_token = o.sealed_refresh_token "
        "FROM pending_consents o WHERE o.user_id = 'user-2' AND p.user_id = 'user-1'"
    )
    await _assert_invalid(await world.confirm(trip))
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_check_17_no_code_is_in_a_log_a_record_or_an_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        trip = await world.connect_unconfirmed()
        wrong = await world.confirm(trip, code=f"x{trip.confirmation}")
        await world.confirm(trip)
        again = await world.confirm(trip)
        await audited(world, "confirmation", "confirmation_invalid:unknown")
    stored = await everything_stored(world)
    assert_hidden(trip.confirmation, own_log(caplog), stored, wrong.text, again.text)


async def test_check_22_no_answer_has_a_token_of_google(world: World) -> None:
    trip: Trip = await world.connect_unconfirmed()
    listed = str(await world.grants())
    answer = await world.confirm(trip)
    for secret in world.standin.issued.all():
        assert_hidden(secret, answer.text, listed, str(trip.response.headers))


async def test_in_memory_mode_no_access_token_is_written_while_it_waits(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    changes = {"BROKER_ACCESS_TOKENS": "memory"}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        trip = await world.connect_unconfirmed()
        (row,) = await world.sql("SELECT sealed_access_token FROM pending_consents")
        assert row["sealed_access_token"] is None
        assert (await world.confirm(trip)).status_code == 200
        assert (await world.token()).status_code == 200
        # Once more if the notice of the confirmation comes in the middle of it.
        assert world.refreshes_at_google() >= 1


MALFORMED: list[tuple[str, Any, str]] = [
    ("not-a-uuid", {"code": "x"}, "id"),
    ("{id}", {}, "code"),
    ("{id}", {"code": 7}, "code"),
    ("{id}", {"code": ""}, "code"),
    ("{id}", {"code": "x" * 256}, "code"),
    ("{id}", {"code": "x", "user_id": "user-1"}, "body"),
    ("{id}", ["x"], "body"),
    ("{id}?code=x", {"code": "x"}, "query"),
]


@pytest.mark.parametrize(("link_id", "body", "field"), MALFORMED)
async def test_malformed_confirmations_are_refused_by_name(
    world: World, link_id: str, body: Any, field: str
) -> None:
    trip = await world.connect_unconfirmed()
    path, _, query = link_id.format(id=trip.link_id).partition("?")
    answer = await world.internal.post(
        f"/v1/connect-links/{path}/confirm" + (f"?{query}" if query else ""),
        json=body,
        headers=world.authorization,
    )
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert (await world.confirm(trip)).status_code == 200
