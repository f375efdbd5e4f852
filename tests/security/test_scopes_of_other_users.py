"""Google adds an account's earlier scopes to each answer; they don't count for other users."""

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from broker.callers.keys import new_key
from broker.consent.links import ConnectLink, ConnectLinks
from broker.grants.fingerprints import TokenFingerprints
from broker.grants.pending_consents.store import CONFIRMATION_LIFETIME, PendingConsents
from broker.grants.store import GrantStore
from broker.ops import periodic_jobs
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.probes import consent_at_google
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.waiting import eventually
from tests.support.world import RETURN_TO, ConsentResult, World, open_world, stanza

OTHER = "user-2"


async def _scopes(world: World, user_id: str) -> set[str]:
    (grant,) = [g for g in await world.grants(user_id) if g["status"] != "revoked"]
    return set(grant["scopes"])


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_check_31_scopes_that_an_account_granted_another_user_do_not_count(
    world: World, is_confirmed: bool
) -> None:
    await world.connect(scopes=[CALENDAR])
    if is_confirmed:
        consent = await world.connect_pending(OTHER, scopes=[CALENDAR_READONLY])
        assert (await world.confirm(consent)).status_code == 200
    else:
        await world.connect(OTHER, scopes=[CALENDAR_READONLY])
    scopes = await _scopes(world, OTHER)
    assert (CALENDAR_READONLY in scopes, CALENDAR in scopes) == (True, False)
    refused = await world.token(OTHER, scope=CALENDAR)
    assert (refused.status_code, refused.json()["missing"]) == (409, [CALENDAR])
    answer = (await world.token(OTHER)).json()
    assert CALENDAR not in answer["scope"].split()
    token = world.standin.state.access_tokens[answer["access_token"]]
    assert CALENDAR not in token.scopes
    assert CALENDAR in await _scopes(world, "user-1")


async def test_scopes_left_out_are_logged_once_by_name(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="broker.consent.scope_rules"):
        await world.connect(scopes=[CALENDAR])
        assert not _of_scope_rules(caplog)
        await world.connect(OTHER, scopes=[CALENDAR_READONLY])
    (record,) = _of_scope_rules(caplog)
    assert record.__dict__["scopes"] == CALENDAR
    assert OTHER not in str(record.__dict__)


def _of_scope_rules(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "broker.consent.scope_rules"]


async def test_revoked_scopes_return_only_if_requested(world: World) -> None:
    """Because of the other user no revocation was sent, so Google still adds the scopes."""
    await world.connect(OTHER, scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR])
    await world.revoke()
    await world.connect(scopes=[CALENDAR_READONLY])
    assert CALENDAR not in await _scopes(world, "user-1")


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_a_revocation_during_a_callback_ends_the_earlier_scopes(
    world: World, monkeypatch: pytest.MonkeyPatch, is_confirmed: bool
) -> None:
    """Between the read of the user's grants and the lock under which the consent is stored."""
    await world.connect(OTHER, scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR])
    store = PendingConsents if is_confirmed else GrantStore
    method = "add" if is_confirmed else "connect"
    original = getattr(store, method)

    async def revoke_first(*args: Any, **named: Any) -> Any:
        await world.revoke()
        return await original(*args, **named)

    monkeypatch.setattr(store, method, revoke_first)
    if is_confirmed:
        consent = await world.connect_pending(scopes=[CALENDAR_READONLY])
        monkeypatch.undo()
        assert (await world.confirm(consent)).status_code == 200
    else:
        await world.connect(scopes=[CALENDAR_READONLY])
    scopes = await _scopes(world, "user-1")
    assert (CALENDAR_READONLY in scopes, CALENDAR in scopes) == (True, False)
    await _assert_not_granted(world)


async def test_a_broken_grant_keeps_its_earlier_scopes(world: World) -> None:
    await world.connect(OTHER, scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR])
    await world.sql(
        "UPDATE grants SET status = 'reauthorization_required' WHERE user_id = $1", "user-1"
    )
    await world.connect(scopes=[CALENDAR_READONLY])
    assert {CALENDAR, CALENDAR_READONLY} <= await _scopes(world, "user-1")


async def test_two_pending_links_each_add_their_own_scopes(world: World) -> None:
    first = await world.connect_pending(scopes=[CALENDAR])
    second = await world.connect_pending(scopes=[CALENDAR_READONLY])
    for consent in (first, second):
        assert (await world.confirm(consent)).status_code == 200
    assert {CALENDAR, CALENDAR_READONLY} <= await _scopes(world, "user-1")


async def _assert_not_granted(world: World, code: str = "scope_not_granted") -> None:
    """Fail if the user or a token has the scope."""
    refused = await world.token(scope=CALENDAR)
    assert (refused.status_code, refused.json()["code"]) == (409, code)
    answer = (await world.token()).json()
    assert CALENDAR not in answer["scope"].split()
    assert CALENDAR not in world.standin.state.access_tokens[answer["access_token"]].scopes
    (row,) = await world.sql("SELECT scopes FROM grants WHERE user_id = 'user-1'")
    assert CALENDAR not in row["scopes"]


async def _assert_token_for_both(world: World) -> None:
    assert {CALENDAR, CALENDAR_READONLY} <= await _scopes(world, "user-1")
    for scope in (CALENDAR, CALENDAR_READONLY, f"{CALENDAR} {CALENDAR_READONLY}"):
        assert (await world.token(scope=scope)).status_code == 200, scope


@pytest.fixture(autouse=True)
def _frequent_periodic_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired rows are purged soon, instead of every fifteen seconds."""
    monkeypatch.setattr(periodic_jobs, "EVERY_SECONDS", 0.5)


async def test_check_15_a_link_without_confirmation_does_not_add_pending_scopes(
    world: World,
) -> None:
    await world.connect_pending(scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR_READONLY])
    await _assert_not_granted(world, "confirmation_pending")
    world.clock.advance(CONFIRMATION_LIFETIME)

    async def is_swept() -> bool:
        return not await world.sql("SELECT 1 FROM pending_consents")

    await eventually(is_swept, seconds=40)
    await _assert_not_granted(world)
    await world.connect(scopes=[CALENDAR_READONLY])
    await _assert_not_granted(world)
    assert world.standin.requests.count("revoke") == 0


async def test_a_confirmation_adds_to_scopes_connected_meanwhile(world: World) -> None:
    consent = await world.connect_pending(scopes=[CALENDAR])
    await world.connect(scopes=[CALENDAR_READONLY])
    newer = Secret(world.standin.issued.refresh_tokens[-1])
    confirmed = await world.confirm(consent)
    assert confirmed.status_code == 200, confirmed.text
    assert {CALENDAR, CALENDAR_READONLY} <= set(confirmed.json()["scopes"])
    await _assert_token_for_both(world)
    (row,) = await world.sql("SELECT * FROM refresh_token_lookups")
    assert row["digest"] == TokenFingerprints(world.settings.secret_keys).compute(newer).digest


async def test_a_confirmation_does_not_include_another_callers_pending_consent(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> None:
    key = new_key()
    callers = {"other": stanza(key)}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        await world.connect_pending(scopes=[CALENDAR])
        world.key = key
        consent = await world.connect_pending(scopes=[CALENDAR_READONLY])
        assert (await world.confirm(consent)).status_code == 200
        await _assert_not_granted(world, "confirmation_pending")


@pytest.mark.parametrize("is_first_first", [True, False])
@pytest.mark.parametrize("is_one_caller", [True, False])
async def test_two_pending_consents_can_be_confirmed_in_any_order(
    tmp_path: Path,
    database_url: str,
    standin: GoogleStandin,
    clock: ManualClock,
    is_first_first: bool,
    is_one_caller: bool,
) -> None:
    key = new_key()
    callers = {"other": stanza(key)}
    async with open_world(tmp_path, database_url, standin, clock, callers=callers) as world:
        first_key = world.key
        first = await world.connect_pending(scopes=[CALENDAR])
        world.key = first_key if is_one_caller else key
        second = await world.connect_pending(scopes=[CALENDAR_READONLY])
        keyed = [(first, first_key), (second, world.key)]
        for consent, made_by in keyed if is_first_first else reversed(keyed):
            answer = await world.confirm(consent, key=made_by)
            assert answer.status_code == 200, answer.text
        await _assert_token_for_both(world)


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_scopes_that_another_tab_connected_meanwhile_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, is_confirmed: bool
) -> None:
    """This tab's answer was evaluated before the other tab's was stored."""
    complete, judged, goes_on = ConnectLinks.complete, asyncio.Event(), asyncio.Event()

    async def held(self: ConnectLinks, link: ConnectLink) -> bool:
        if CALENDAR not in link.scopes:
            judged.set()
            await goes_on.wait()
        return await complete(self, link)

    monkeypatch.setattr(ConnectLinks, "complete", held)
    body: dict[str, Any] = {"confirm": True, "return_to": RETURN_TO} if is_confirmed else {}
    async with (
        consent_at_google(world, scopes=[CALENDAR]) as (first, first_callback),
        consent_at_google(world, scopes=[CALENDAR_READONLY], **body) as (second, second_callback),
    ):
        returning = asyncio.create_task(second.get(second_callback))
        await asyncio.wait_for(judged.wait(), 10)
        assert (await first.get(first_callback)).status_code == 200
        goes_on.set()
        answer = await returning
    if is_confirmed:
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        assert (await world.confirm(ConsentResult(answer, query["link_id"][0]))).status_code == 200
    await _assert_token_for_both(world)
