"""The effects of each event on the grants of its account, also out of order and concurrently."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from broker.grants import change_feed as changes
from broker.grants.fingerprints import double_digest
from devstack.google_standin import Fault
from tests.support.clock import ManualClock
from tests.support.probes import audited
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.security_events import post, refresh_token, seconds, send_event, state
from tests.support.world import ADA, GRACE, World, open_world

ACTIVE = ("user-1", "active", None, True)
SUSPENDED = ("user-1", "reauthorization_required", "account_disabled", True)
REVOKED = ("user-1", "reauthorization_required", "google_tokens_revoked", False)
HIJACKED = ("user-1", "reauthorization_required", "google_account_hijacked", False)
DELETING_ACCESS_TOKENS = ("sessions-revoked", "account-credential-change-required")


@pytest_asyncio.fixture
async def replica(
    world: World, tmp_path_factory: pytest.TempPathFactory, clock: ManualClock
) -> AsyncIterator[World]:
    """A second broker on the same database; its caller has another key."""
    folder, url = tmp_path_factory.mktemp("replica"), world.settings.database_url.reveal()
    async with open_world(folder, url, world.standin, clock) as opened:
        yield opened


async def tokens_in_the_table(world: World) -> int:
    return len(await world.sql("SELECT * FROM access_tokens"))


# ---- tokens


async def test_tokens_revoked_ends_all_grants_of_the_account_and_no_other(world: World) -> None:
    for user_id, account in (("user-1", ADA), ("user-2", ADA), ("user-3", GRACE)):
        await world.connect(user_id, account)
        assert (await world.token(user_id)).status_code == 200
    await send_event(world, "tokens-revoked")
    assert await state(world) == [
        REVOKED,
        ("user-2", *REVOKED[1:]),
        ("user-3", "active", None, True),
    ]
    refreshes = world.refreshes_at_google()
    for user_id in ("user-1", "user-2"):
        answer = await world.token(user_id)
        assert answer.status_code == 409
        assert answer.json()["reason"] == "google_tokens_revoked"
    assert (await world.token("user-3")).status_code == 200
    assert world.refreshes_at_google() == refreshes
    assert await world.sql("SELECT * FROM pending_revocations") == []
    records = await audited(world, "security_event", "tokens-revoked:erased", count=2)
    assert {record["user_id"] for record in records} == {"user-1", "user-2"}
    assert (
        await world.metric("broker_security_events_total", event="tokens-revoked", outcome="erased")
        == 2
    )


async def test_tokens_revoked_spares_grants_of_another_project(world: World) -> None:
    await world.connect()
    await world.connect("user-2")
    await world.sql(
        "UPDATE grants SET client_id = CASE user_id WHEN 'user-1' THEN '12-a.apps.example' "
        "ELSE '34-b.apps.example' END"
    )
    await send_event(world, "tokens-revoked", claims={"aud": "12-a.apps.example"})
    assert await state(world) == [REVOKED, ("user-2", "active", None, True)]


@pytest.mark.parametrize("algorithm", ["prefix", "hash_base64_sha512_sha512"])
async def test_token_revoked_ends_the_one_grant_whose_token_is_named(
    world: World, algorithm: str
) -> None:
    await world.connect("user-1")
    named = refresh_token(world)
    await world.connect("user-2")
    await send_event(world, "token-revoked", refresh_token=named, algorithm=algorithm)
    assert await state(world) == [REVOKED, ("user-2", "active", None, True)]


async def test_token_revoked_finds_the_rotated_token_and_not_the_old_one(
    world: World,
) -> None:
    await world.connect()
    first = refresh_token(world)
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    assert (await world.token()).status_code == 200
    await send_event(world, "token-revoked", refresh_token=first, algorithm="prefix")
    assert await state(world) == [ACTIVE]
    assert await audited(world, "security_event", "token-revoked:no_grant")
    await send_event(world, "token-revoked", refresh_token=refresh_token(world), algorithm="prefix")
    assert await state(world) == [REVOKED]


MALFORMED_SUBJECTS = {
    "short prefix": {"token_identifier_alg": "prefix", "token": "1//0"},
    "long prefix": {"token_identifier_alg": "prefix", "token": "x" * 17},
    "whole token": {"token_identifier_alg": "plain", "token": "x" * 60},
    "no hash": {"token_identifier_alg": "hash_base64_sha512_sha512", "token": "%%%"},
    "short hash": {"token_identifier_alg": "hash_base64_sha512_sha512", "token": "AAAA"},
    "a list": {"token_identifier_alg": ["prefix"], "token": ["x"]},
    "an access token": {"token_type": "access_token", "token_identifier_alg": "prefix"},
}


@pytest.mark.parametrize("changes", MALFORMED_SUBJECTS.values(), ids=MALFORMED_SUBJECTS.keys())
async def test_a_token_named_in_an_unknown_way_is_accepted_without_effect(
    world: World, changes: dict[str, object]
) -> None:
    await world.connect()
    subject = {
        "subject_type": "oauth_token",
        "token_type": "refresh_token",
        "token": refresh_token(world)[:16],
        **changes,
    }
    await send_event(world, "token-revoked", account=None, payload={"subject": subject})
    assert await state(world) == [ACTIVE]
    assert await audited(world, "security_event", "token-revoked:not_understood")


async def test_the_hash_is_accepted_in_both_base64_alphabets(world: World) -> None:
    await world.connect()
    written = base64.urlsafe_b64encode(double_digest(refresh_token(world))).rstrip(b"=").decode()
    subject = {
        "format": "oauth_token",
        "token_type": "refresh_token",
        "token_identifier_alg": "hash_base64_sha512_sha512",
        "token": written,
    }
    await send_event(world, "token-revoked", account=None, payload={"subject": subject})
    assert await state(world) == [REVOKED]


# ---- sessions and credentials


@pytest.mark.parametrize("event", DELETING_ACCESS_TOKENS)
async def test_access_tokens_are_deleted_and_the_next_request_refreshes(
    world: World, event: str
) -> None:
    await world.connect()
    before = (await world.token()).json()["access_token"]
    await send_event(world, event)
    assert await tokens_in_the_table(world) == 0
    assert await state(world) == [ACTIVE]
    refreshes = world.refreshes_at_google()
    after = await world.token()
    assert after.status_code == 200
    assert after.json()["access_token"] != before
    assert world.refreshes_at_google() == refreshes + 1


# ---- disabled and enabled


@pytest.mark.parametrize("reason", ["bulk-account", None, "another", 7])
async def test_a_disabled_account_is_suspended_and_resumed(world: World, reason: object) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    await send_event(world, "account-disabled", payload={"reason": reason} if reason else {})
    assert await state(world) == [SUSPENDED]
    assert await tokens_in_the_table(world) == 0
    assert (await world.token()).json()["reason"] == "account_disabled"
    await send_event(world, "account-enabled")
    assert await state(world) == [ACTIVE]
    assert (await world.token()).status_code == 200


async def test_a_hijacked_account_needs_a_new_consent(world: World) -> None:
    await world.connect()
    await send_event(world, "account-disabled", payload={"reason": "hijacking"})
    assert await state(world) == [HIJACKED]
    await send_event(world, "account-enabled")
    assert await state(world) == [HIJACKED]
    assert (await world.token()).json()["reason"] == "google_account_hijacked"
    await world.connect()
    assert (await world.token()).status_code == 200


async def test_a_grant_that_needs_reauthorization_is_not_resumed(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.invalid_grant())
    assert (await world.token()).status_code == 409
    broken = await state(world)
    await send_event(world, "account-disabled")
    await send_event(world, "account-enabled")
    assert await state(world) == broken


async def test_a_grant_revoked_while_suspended_is_not_resumed(world: World) -> None:
    await world.connect()
    await send_event(world, "account-disabled")
    await send_event(world, "tokens-revoked")
    await send_event(world, "account-enabled")
    assert await state(world) == [REVOKED]


@pytest.mark.parametrize("event", ["tokens-revoked", "account-disabled", "account-enabled"])
async def test_a_revoked_grant_stays_revoked(world: World, event: str) -> None:
    await world.connect()
    await world.revoke()
    before = await world.sql("SELECT * FROM grants")
    await send_event(world, event)
    assert await world.sql("SELECT * FROM grants") == before


async def test_a_new_consent_resumes_a_suspended_grant(world: World) -> None:
    await world.connect()
    await send_event(world, "account-disabled")
    await world.connect()
    assert await state(world) == [ACTIVE]


async def test_no_revocation_is_sent_while_another_users_suspended_grant_needs_the_account(
    world: World,
) -> None:
    await world.connect("user-1")
    await world.connect("user-2")
    await send_event(world, "account-disabled")
    await world.revoke("user-2")
    assert await world.sql("SELECT * FROM pending_revocations") == []
    await send_event(world, "account-enabled")
    assert (await world.token("user-1")).status_code == 200


# ---- order


async def test_an_older_disabled_event_that_arrives_late_is_ignored(
    world: World,
) -> None:
    await world.connect()
    now = seconds(world)
    await send_event(world, "account-enabled", claims={"iat": now + 20})
    await send_event(world, "account-disabled", claims={"iat": now + 10})
    assert await state(world) == [ACTIVE]
    assert await audited(world, "security_event", "account-disabled:outdated")


async def test_an_older_enabled_event_that_arrives_late_is_ignored(
    world: World,
) -> None:
    await world.connect()
    now = seconds(world)
    await send_event(world, "account-disabled", claims={"iat": now + 20})
    await send_event(world, "account-enabled", claims={"iat": now + 10})
    assert await state(world) == [SUSPENDED]


@pytest.mark.parametrize("dated_by", ["iat", "toe"])
@pytest.mark.parametrize("event", ["tokens-revoked", "account-disabled"])
async def test_an_event_older_than_the_consent_causes_a_refresh_instead(
    world: World, event: str, dated_by: str
) -> None:
    await world.connect()
    assert (await world.token()).status_code == 200
    refreshes = world.refreshes_at_google()
    await send_event(world, event, claims={dated_by: seconds(world) - 30})
    assert await state(world) == [ACTIVE]
    assert (await world.token()).status_code == 200
    assert world.refreshes_at_google() == refreshes + 1


async def test_the_gravest_of_several_events_in_one_token_wins(
    world: World,
) -> None:
    await world.connect()
    risc = "https://schemas.openid.net/secevent/risc/event-type/"
    subject = {
        "subject": {
            "subject_type": "iss-sub",
            "iss": world.standin.base_url,
            "sub": world.standin.account(ADA).sub,
        }
    }
    events = {risc + "account-disabled": subject, risc + "account-enabled": subject}
    await send_event(world, "verification", claims={"events": events})
    assert await state(world) == [SUSPENDED]


# ---- subjects


@pytest.mark.parametrize(
    ("form", "slash"),
    [
        ({"subject_type": "iss-sub"}, "/"),
        ({"subject_type": "iss_sub"}, ""),
        ({"format": "iss_sub"}, ""),
        ({"subject_type": "id_token_claims", "email": ADA}, ""),
        ({}, ""),
    ],
)
async def test_each_form_of_subject_finds_the_account(
    world: World, form: dict[str, str], slash: str
) -> None:
    issuer, sub = world.standin.base_url + slash, world.standin.account(ADA).sub
    await world.connect()
    subject = {**form, "iss": issuer, "sub": sub}
    await send_event(world, "tokens-revoked", payload={"subject": subject})
    assert await state(world) == [REVOKED]


async def test_the_subject_of_the_whole_token_finds_the_account(world: World) -> None:
    await world.connect()
    subject = {
        "format": "iss_sub",
        "iss": world.standin.base_url,
        "sub": world.standin.account(ADA).sub,
    }
    await send_event(world, "tokens-revoked", account=None, claims={"sub_id": subject})
    assert await state(world) == [REVOKED]


SUBJECTS: dict[str, object] = {
    "none": None,
    "a text": "108204268033311374519",
    "a list": [],
    "no sub": {"subject_type": "iss-sub", "iss": "GOOGLE"},
    "a long sub": {"subject_type": "iss-sub", "iss": "GOOGLE", "sub": "1" * 300},
    "an odd sub": {"subject_type": "iss-sub", "iss": "GOOGLE", "sub": "1\0"},
    "a number": {"subject_type": "iss-sub", "iss": "GOOGLE", "sub": 108204268033311374519},
    "another issuer": {"subject_type": "iss-sub", "iss": "https://x.example", "sub": "ADA"},
    "no issuer": {"subject_type": "iss-sub", "sub": "ADA"},
    "an email": {"subject_type": "id_token_claims", "iss": "GOOGLE", "email": ADA},
    "another form": {"subject_type": "phone", "phone_number": "+1"},
    "a form that is a list": {"subject_type": ["iss-sub"], "iss": "GOOGLE", "sub": "ADA"},
}


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS.keys())
async def test_a_subject_that_names_no_google_account_has_no_effect(
    world: World, subject: object
) -> None:
    await world.connect()
    if isinstance(subject, dict):
        real = {"GOOGLE": world.standin.base_url, "ADA": world.standin.account(ADA).sub}
        subject = {
            name: real.get(value, value) if isinstance(value, str) else value
            for name, value in subject.items()
        }
    await send_event(world, "tokens-revoked", payload={"subject": subject})
    assert await state(world) == [ACTIVE]


async def test_an_unknown_event_is_accepted_and_audited(world: World) -> None:
    await world.connect()
    await send_event(world, "urn:example:something-new")
    await send_event(world, "account-purged")
    assert await state(world) == [ACTIVE]
    assert await audited(world, "security_event", "unknown:not_understood", count=2)


async def test_an_event_of_an_unknown_account_is_accepted_and_audited(world: World) -> None:
    await send_event(world, "tokens-revoked", account=GRACE)
    (record,) = await audited(world, "security_event", "tokens-revoked:no_grant")
    assert record["account_sub"] == world.standin.account(GRACE).sub


# ---- races


async def test_a_duplicate_sent_to_two_replicas_concurrently_acts_once(
    world: World, replica: World
) -> None:
    await world.connect()
    token = world.standin.security_event("sessions-revoked", ADA)
    version = (await world.sql("SELECT version FROM grants"))[0][0]
    answers = await asyncio.gather(
        *(post(broker, token) for broker in (world, replica) for _ in range(10))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert (await world.sql("SELECT version FROM grants"))[0][0] == version + 1
    assert len(await audited(world, "security_event", "sessions-revoked:asked_anew")) == 1
    await audited(world, "security_event", "sessions-revoked:duplicate", count=19)


@pytest.fixture
def without_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas learn of a change by its notification only."""
    monkeypatch.setattr(changes, "POLL_SECONDS", 3600.0)


@pytest.mark.usefixtures("without_polling")
async def test_other_replicas_are_notified_immediately(world: World, replica: World) -> None:
    await world.connect()
    assert (await replica.token()).status_code == 200
    await send_event(world, "tokens-revoked")
    async with asyncio.timeout(10):
        while (answer := await replica.token()).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert answer.json()["code"] == "reauthorization_required"


async def test_a_refresh_in_flight_resurrects_no_token_after_concurrent_events(
    world: World, replica: World
) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.hold("refresh", after=True))
    asking = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.holds.wait_until_held, "refresh")
    await asyncio.gather(
        send_event(world, "account-disabled"),
        send_event(replica, "tokens-revoked"),
        send_event(replica, "sessions-revoked"),
    )
    world.standin.holds.release("refresh")
    answer = await asking
    assert answer.json()["code"] == "reauthorization_required"
    assert await state(world) == [REVOKED]
    assert await tokens_in_the_table(world) == 0
    for broker in (world, replica):
        assert (await broker.token()).status_code == 409


async def test_a_refresh_in_flight_when_access_tokens_are_deleted_is_repeated(world: World) -> None:
    await world.connect()
    world.clock.advance(timedelta(hours=1))
    world.standin.faults.next("token", Fault.hold("refresh", after=True))
    asking = asyncio.create_task(world.token())
    await asyncio.to_thread(world.standin.holds.wait_until_held, "refresh")
    stale = world.standin.issued.access_tokens[-1]
    await send_event(world, "sessions-revoked")
    world.standin.holds.release("refresh")
    answer = await asking
    assert answer.status_code == 200
    assert answer.json()["access_token"] != stale


async def test_concurrent_events_consents_and_revocations_end_in_a_working_state(
    world: World, replica: World
) -> None:
    for number in range(3):
        await world.connect(f"user-{number}", scopes=[CALENDAR, CALENDAR_READONLY])

    async def events(broker: World) -> None:
        for number in range(15):
            name = ("account-disabled", "account-enabled", "sessions-revoked")[number % 3]
            await send_event(broker, name)

    async def changes(broker: World, user_id: str) -> None:
        for _ in range(5):
            assert (await broker.revoke(user_id)).status_code == 204
            await broker.connect(user_id)

    await asyncio.gather(
        events(world), events(replica), changes(world, "user-0"), changes(replica, "user-1")
    )
    await send_event(world, "account-enabled")
    await world.connect("user-0")
    await world.connect("user-1")
    for number in range(3):
        assert (await world.token(f"user-{number}")).status_code == 200


async def test_an_event_is_never_applied_partially(world: World) -> None:
    """After a failed transaction the same token can be sent again."""
    await world.connect()
    token = world.standin.security_event("tokens-revoked", ADA)
    url = world.settings.database_url.reveal()
    other_session = await asyncpg.connect(url)
    try:
        async with other_session.transaction():
            await other_session.execute("SELECT * FROM grants FOR UPDATE")
            # Blocks longer than the statement timeout.
            answer = await post(world, token)
    finally:
        await other_session.close()
    assert answer.status_code == 503
    assert await state(world) == [ACTIVE]
    assert await world.sql("SELECT * FROM security_event_tokens") == []
    assert (await post(world, token)).status_code == 202
    assert await state(world) == [REVOKED]
