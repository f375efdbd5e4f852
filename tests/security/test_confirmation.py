"""Check 15: with `confirm`, no token is returned until the caller confirms the session."""

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
from broker.grants.pending_consents.store import CONFIRMATION_LIFETIME, MAX_WRONG_CODES
from broker.ops import periodic_jobs
from broker.secret import Secret
from devstack.google_standin import Fault, GoogleStandin
from tests.support.clock import ManualClock
from tests.support.probes import (
    assert_hidden,
    audited,
    consent_at_google,
    everything_stored,
    own_log,
)
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.security_events import send_event
from tests.support.waiting import eventually
from tests.support.world import ADA, GRACE, RETURN_TO, ConsentResult, World, open_world, stanza


async def _code_of(answer: httpx2.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("code")


async def _assert_invalid(answer: httpx2.Response) -> None:
    assert await _code_of(answer) == (409, "confirmation_invalid")


@pytest.fixture(autouse=True)
def _frequent_periodic_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired rows are purged soon, instead of every fifteen seconds."""
    monkeypatch.setattr(periodic_jobs, "EVERY_SECONDS", 0.5)


async def _expire(world: World) -> None:
    """Let the pending consent expire, and wait until it was purged."""
    world.clock.advance(CONFIRMATION_LIFETIME)

    async def is_swept() -> bool:
        return not await world.sql("SELECT 1 FROM pending_consents")

    await eventually(is_swept, seconds=40)


def _revocations(world: World) -> int:
    return world.standin.requests.count("revoke")


async def _revocations_sent(world: World, count: int = 1) -> None:
    """Wait until this many revocations were sent, and none is queued."""

    async def are_sent() -> bool:
        world.clock.advance(timedelta(seconds=2))
        if _revocations(world) < count:
            return False
        return not await world.sql("SELECT 1 FROM pending_revocations")

    await eventually(are_sent, seconds=20)
    assert _revocations(world) == count


async def test_check_15_no_token_is_returned_before_the_confirmation(world: World) -> None:
    consent = await world.connect_pending()
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

    answer = await world.confirm(consent)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    (grant,) = await world.grants()
    assert answer.json() == grant
    assert (grant["status"], grant["default"]) == ("active", True)
    assert (await world.token()).status_code == 200


async def test_check_15_a_link_sent_to_a_victim_gives_the_attacker_nothing(world: World) -> None:
    """The victim's browser brings the code to the product, which expects another session."""
    consent = await world.connect_pending("attacker", account=ADA)
    assert await _code_of(await world.token("attacker")) == (409, "confirmation_pending")
    await _expire(world)
    await _assert_invalid(await world.confirm(consent))
    assert await _code_of(await world.token("attacker")) == (404, "grant_not_found")
    assert await world.grants("attacker") == []
    await _revocations_sent(world)
    assert len(await audited(world, "confirmation", "expired")) == 1


async def test_check_15_a_code_is_random_one_time_and_bound_to_its_link(world: World) -> None:
    first = await world.connect_pending("user-1")
    second = await world.connect_pending("user-2", account=GRACE)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", first.confirmation)
    assert first.confirmation != second.confirmation
    await _assert_invalid(await world.confirm(first, code=second.confirmation))
    assert (await world.confirm(first)).status_code == 200
    await _assert_invalid(await world.confirm(first))
    assert (await world.confirm(second)).status_code == 200
    await audited(world, "confirmation", "ok", count=2)
    await audited(world, "confirmation", "confirmation_invalid:wrong_code")
    await audited(world, "confirmation", "confirmation_invalid:unknown")


async def test_check_15_one_of_several_concurrent_confirmations_succeeds(world: World) -> None:
    consent = await world.connect_pending()
    answers = await asyncio.gather(*(world.confirm(consent) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    (row,) = await world.sql("SELECT version FROM grants")
    assert row["version"] == 1


async def test_check_15_a_few_wrong_codes_end_the_pending_consent(world: World) -> None:
    consent = await world.connect_pending()
    for _ in range(MAX_WRONG_CODES):
        await _assert_invalid(await world.confirm(consent, code="guess"))
    await _assert_invalid(await world.confirm(consent))
    assert await world.grants() == []
    await _revocations_sent(world)


@pytest.fixture
async def others(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[tuple[World, str, str]]:
    """A world with another caller, and a caller for other users; and their keys."""
    full, elsewhere = new_key(), new_key()
    callers = {"full": stanza(full), "elsewhere": stanza(elsewhere, users=["team-*"])}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as opened:
        yield opened, full, elsewhere


async def test_check_15_only_the_caller_that_made_the_link_may_confirm(
    others: tuple[World, str, str],
) -> None:
    world, full, elsewhere = others
    consent = await world.connect_pending()
    for _ in range(MAX_WRONG_CODES + 1):
        for key in (full, elsewhere):
            await _assert_invalid(await world.confirm(consent, key=key))
    assert (await world.confirm(consent, key=new_key())).status_code == 401
    # None of that counts against the right caller.
    assert (await world.confirm(consent)).status_code == 200


async def test_check_15_a_caller_cannot_confirm_what_its_policy_no_longer_allows(
    world: World,
) -> None:
    consent = await world.connect_pending()
    await world.rewrite_callers({"calendar-sync": stanza(world.key, users=["user-2"])})
    assert (await world.confirm(consent)).json()["code"] == "forbidden"
    await world.rewrite_callers({"calendar-sync": stanza(world.key, can=["tokens:read"])})
    assert (await world.confirm(consent)).json()["code"] == "forbidden"
    await world.rewrite_callers({"renamed": stanza(world.key)})
    await _assert_invalid(await world.confirm(consent))
    await world.rewrite_callers({"calendar-sync": stanza(world.key)})
    assert (await world.confirm(consent)).status_code == 200


async def test_check_15_a_stricter_policy_applies_to_earlier_links(
    world: World,
) -> None:
    strict = stanza(world.key, require_confirmation=True)
    async with consent_at_google(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"calendar-sync": strict})
        answer = await browser.get(callback)
    assert "&confirmation=" in answer.headers["location"]
    assert await _code_of(await world.token()) == (409, "confirmation_pending")
    # A request can't override the policy, and without `return_to` there is no link.
    relaxed = await world.connect("user-2", confirm=False, return_to=RETURN_TO)
    assert relaxed.confirmation
    refused = await world.create_link("user-3")
    assert (refused.status_code, refused.json()["field"]) == (400, "return_to")


async def test_check_15_a_link_without_return_to_ends_if_confirmation_is_required(
    world: World,
) -> None:
    strict = stanza(world.key, require_confirmation=True)
    link = (await world.create_link("user-1")).json()["url"]
    async with consent_at_google(world, "user-2") as (browser, callback):
        await world.rewrite_callers({"calendar-sync": strict})
        answer = await browser.get(callback)
        assert "This link is no longer valid" in answer.text
        assert (await browser.get(link)).status_code == 410
    assert world.standin.requests.count("token") == 0
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_a_looser_policy_does_not_apply_to_earlier_links(world: World) -> None:
    await world.rewrite_callers({"calendar-sync": stanza(world.key, require_confirmation=True)})
    async with consent_at_google(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"calendar-sync": stanza(world.key)})
        answer = await browser.get(callback)
    assert "&confirmation=" in answer.headers["location"]


async def test_check_12_a_return_to_that_is_no_longer_listed_gets_no_redirect(
    world: World,
) -> None:
    async with consent_at_google(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"calendar-sync": stanza(world.key, return_to=[])})
        answer = await browser.get(callback)
    assert (answer.status_code, "location" in answer.headers) == (200, False)
    await world.rewrite_callers({"calendar-sync": stanza(world.key)})
    async with consent_at_google(world, return_to=RETURN_TO) as (browser, callback):
        await world.rewrite_callers({"another": stanza(world.key)})
        answer = await browser.get(callback)
    assert (answer.status_code, "location" in answer.headers) == (400, False)


# Concurrent events.


async def test_check_15_a_pending_consent_does_not_affect_the_live_grant(world: World) -> None:
    await world.connect()
    before = await world.sql("SELECT * FROM grants")
    consent = await world.connect_pending(scopes=[CALENDAR])
    assert await world.sql("SELECT * FROM grants") == before
    (listed,) = await world.grants()
    assert (listed["status"], CALENDAR in listed["scopes"]) == ("active", False)
    assert (await world.token()).status_code == 200
    # Scopes that only the new consent has are pending; scopes of neither are missing.
    assert await _code_of(await world.token(scope=CALENDAR)) == (409, "confirmation_pending")
    await world.confirm(consent)
    answer = await world.token(scope=CALENDAR)
    assert (answer.status_code, answer.json()["scope"]) == (200, CALENDAR)
    (after,) = await world.sql("SELECT * FROM grants")
    assert (after["id"], after["version"]) == (before[0]["id"], before[0]["version"] + 1)


async def test_no_revocation_is_sent_for_an_expired_consent_beside_a_live_grant(
    world: World,
) -> None:
    await world.connect("user-2")
    await world.connect_pending("user-1")
    await _expire(world)
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert _revocations(world) == 0
    assert (await world.token("user-2", min_ttl=0)).status_code == 200


async def test_a_revocation_by_another_user_does_not_end_a_pending_consent(world: World) -> None:
    """Google revokes all tokens of an account, so the revocation is sent with the last grant."""
    await world.connect("user-2")
    consent = await world.connect_pending("user-1")
    await world.revoke("user-2")
    assert await world.sql("SELECT 1 FROM pending_revocations") == []
    assert (await world.confirm(consent)).status_code == 200
    world.clock.advance(timedelta(hours=1))
    assert (await world.token("user-1")).status_code == 200


@pytest.mark.parametrize("whole", [True, False])
async def test_check_38_a_revocation_ends_a_pending_consent(world: World, whole: bool) -> None:
    consent = await world.connect_pending()
    sub = None if whole else world.standin.account(ADA).sub
    assert (await world.revoke(sub=sub)).status_code == 204
    await _assert_invalid(await world.confirm(consent))
    assert await world.grants() == []
    assert await world.sql("SELECT 1 FROM pending_consents") == []
    await _revocations_sent(world)
    await audited(world, "grant_revoked", "ok")


async def test_a_confirmation_concurrent_with_a_revocation_leaves_nothing(world: World) -> None:
    for number in range(6):
        # Each user has a separate account: one revocation revokes a whole account at Google.
        user, account = f"user-{number}", f"user-{number}@example.com"
        world.standin.add_account(account)
        consent = await world.connect_pending(user, account)
        confirmed, revoked = await asyncio.gather(world.confirm(consent), world.revoke(user))
        assert (confirmed.status_code in (200, 409), revoked.status_code) == (True, 204)
        # Either order: a confirmation after the revocation finds nothing, one before it is
        # revoked.
        assert (await world.token(user)).json()["code"] == "grant_not_found"


async def test_a_broken_grant_recovers_only_with_the_confirmation(world: World) -> None:
    await world.connect()
    await world.sql("UPDATE grants SET status = 'reauthorization_required', version = version + 1")
    consent = await world.connect_pending()
    assert await _code_of(await world.token()) == (409, "confirmation_pending")
    assert [grant["status"] for grant in await world.grants()] == ["pending_confirmation"]
    assert (await world.confirm(consent)).status_code == 200
    assert (await world.token()).status_code == 200
    assert len(await world.sql("SELECT 1 FROM grants")) == 1


async def test_an_earlier_consent_does_not_narrow_a_later_one(world: World) -> None:
    world.standin.behave(includes_granted=False)
    consent = await world.connect_pending(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR_READONLY, CALENDAR])
    answer = await world.confirm(consent)
    assert answer.status_code == 200
    assert CALENDAR in answer.json()["scopes"]
    assert (await world.token(scope=CALENDAR)).status_code == 200


async def test_a_consent_that_a_later_one_contradicts_is_invalid(world: World) -> None:
    world.standin.behave(includes_granted=False)
    consent = await world.connect_pending(scopes=[CALENDAR_READONLY])
    await world.connect(scopes=[CALENDAR])
    await _assert_invalid(await world.confirm(consent))
    assert (await world.token(scope=CALENDAR)).status_code == 200
    assert _revocations(world) == 0


async def test_a_consent_that_is_being_revoked_at_google_is_invalid(world: World) -> None:
    consent = await world.connect_pending()
    world.standin.faults.always("revoke", Fault.http(503))
    await world.sql(
        "INSERT INTO pending_revocations SELECT gen_random_uuid(), google_sub, "
        "sealed_refresh_token, refresh_token_key_id, 'caller', 1, $1, $1, $1 "
        "FROM pending_consents",
        world.clock.now() + timedelta(seconds=25),
    )
    await _assert_invalid(await world.confirm(consent))
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_during_a_revocation_at_google_no_consent_becomes_pending(world: World) -> None:
    """A token that Google issues now is revoked with the account's others."""
    await world.connect()
    world.standin.faults.next("revoke", Fault.hold("telling"))
    await world.revoke()
    await asyncio.to_thread(world.standin.holds.wait_until_held, "telling")
    consent = await world.connect(confirm=True, return_to=RETURN_TO)
    world.standin.holds.release("telling")
    assert consent.status == "failed"
    assert await world.sql("SELECT 1 FROM pending_consents") == []
    await audited(world, "consent", "failed:revocation_under_way")


@pytest.mark.parametrize("event", ["tokens-revoked", "account-disabled", "sessions-revoked"])
async def test_check_40_a_security_event_of_the_account_ends_a_pending_consent(
    world: World, event: str
) -> None:
    consent = await world.connect_pending()
    other = await world.connect_pending("user-2", account=GRACE)
    world.clock.advance(timedelta(seconds=5))
    await send_event(world, event)
    await _assert_invalid(await world.confirm(consent))
    assert await world.grants() == []
    assert (await world.confirm(other)).status_code == 200


async def test_denied_and_partial_consents_with_confirmation(world: World) -> None:
    denied = await world.connect(confirm=True, return_to=RETURN_TO, deny=True)
    assert denied.status == "denied"
    assert "confirmation" not in denied.response.headers["location"]
    assert await world.grants() == []
    consent = await world.connect_pending(scopes=[CALENDAR, CALENDAR_READONLY], untick=[CALENDAR])
    assert CALENDAR not in (await world.confirm(consent)).json()["scopes"]


# Keys, replicas, restarts.


@asynccontextmanager
async def _replica(world: World, **changes: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """The internal listener of another broker on the same database, started now."""
    async with (
        assembled(replace(world.settings, **changes), world.clock) as broker,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=broker.internal, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8001",
            headers=world.authorization,
        ) as internal,
    ):
        yield internal


async def _confirm_at(replica: httpx2.AsyncClient, consent: ConsentResult) -> None:
    path = f"/v1/connect-links/{consent.link_id}/confirm"
    answer = await replica.post(path, json={"code": consent.confirmation})
    assert answer.status_code == 200, answer.text


async def test_another_replica_confirms_and_all_are_notified(world: World) -> None:
    """One of the replicas was started between the consent and the confirmation."""
    await world.connect()
    consent = await world.connect_pending(scopes=[CALENDAR])
    held = (await world.token()).json()["access_token"]
    async with _replica(world) as replica:
        await _confirm_at(replica, consent)

        async def has_heard() -> bool:
            return bool((await world.token()).json()["access_token"] != held)

        await eventually(has_heard, seconds=5)


async def test_check_20_a_pending_consent_survives_a_key_rotation(world: World) -> None:
    consent = await world.connect_pending()
    newer = Secret("another-test-key-of-more-than-32-bytes-01234")
    async with _replica(world, secret_keys=(newer, *world.settings.secret_keys)) as replica:
        await _confirm_at(replica, consent)
        assert (await replica.get("/v1/users/user-1/token")).status_code == 200


async def test_check_20_without_its_key_a_pending_consent_is_invalid(world: World) -> None:
    consent = await world.connect_pending()
    newer = Secret("another-test-key-of-more-than-32-bytes-01234")
    async with _replica(world, secret_keys=(newer,)) as replica:
        answer = await replica.post(
            f"/v1/connect-links/{consent.link_id}/confirm", json={"code": consent.confirmation}
        )
    await _assert_invalid(answer)
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_check_18_a_pending_consent_is_sealed_and_its_code_is_hashed(world: World) -> None:
    consent = await world.connect_pending()
    stored = await everything_stored(world)
    for secret in (*world.standin.issued.all(), consent.confirmation):
        assert_hidden(secret, stored)
        assert base64.b64encode(secret.encode()).decode() not in stored


async def test_check_19_a_moved_ciphertext_of_a_pending_consent_does_not_open(world: World) -> None:
    consent = await world.connect_pending()
    await world.connect_pending("user-2", account=GRACE)
    await world.sql(
        "UPDATE pending_consents p SET sealed_refresh_token = o.sealed_refresh_token "
        "FROM pending_consents o WHERE o.user_id = 'user-2' AND p.user_id = 'user-1'"
    )
    await _assert_invalid(await world.confirm(consent))
    assert await world.sql("SELECT 1 FROM grants") == []


async def test_check_17_no_code_is_in_a_log_an_audit_record_or_an_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        consent = await world.connect_pending()
        wrong = await world.confirm(consent, code=f"x{consent.confirmation}")
        await world.confirm(consent)
        again = await world.confirm(consent)
        await audited(world, "confirmation", "confirmation_invalid:unknown")
    stored = await everything_stored(world)
    assert_hidden(consent.confirmation, own_log(caplog), stored, wrong.text, again.text)


async def test_check_22_no_answer_contains_a_google_token(world: World) -> None:
    consent: ConsentResult = await world.connect_pending()
    listed = str(await world.grants())
    answer = await world.confirm(consent)
    for secret in world.standin.issued.all():
        assert_hidden(secret, answer.text, listed, str(consent.response.headers))


async def test_in_memory_mode_a_pending_consent_stores_no_access_token(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    changes = {"BROKER_ACCESS_TOKENS": "memory"}
    async with open_world(tmp_path, database_url, standin, clock, changes=changes) as world:
        consent = await world.connect_pending()
        (row,) = await world.sql("SELECT sealed_access_token FROM pending_consents")
        assert row["sealed_access_token"] is None
        assert (await world.confirm(consent)).status_code == 200
        assert (await world.token()).status_code == 200
        # Once more if the notification of the confirmation arrives meanwhile.
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
async def test_malformed_confirmations_are_refused_and_named(
    world: World, link_id: str, body: Any, field: str
) -> None:
    consent = await world.connect_pending()
    path, _, query = link_id.format(id=consent.link_id).partition("?")
    answer = await world.internal.post(
        f"/v1/connect-links/{path}/confirm" + (f"?{query}" if query else ""),
        json=body,
        headers=world.authorization,
    )
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert (await world.confirm(consent)).status_code == 200
