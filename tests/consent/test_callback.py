"""The callback: nothing in it is believed before it is checked."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from broker.consent.authorization_requests import (
    AUTHORIZATION_REQUEST_LIFETIME,
    AuthorizationRequests,
)
from broker.consent.links import ConnectLink, ConnectLinks
from broker.grants.model import GrantStatus
from broker.grants.pending_consents.store import PendingConsents
from broker.grants.store import GrantStore
from devstack.google_standin import Fault
from tests.consent.harness import ADA, GRACE, LOOPBACK, RETURN_TO, Browser, ConsentWorld, query_of


async def _ready(world: ConsentWorld, **body: str) -> tuple[Browser, str]:
    """Return a browser that has decided at Google, and the URL to which Google redirects it."""
    browser = await world.browser()
    return browser, await browser.decide(await browser.open(await world.link(**body)))


async def _assert_nothing_happened(world: ConsentWorld) -> None:
    assert world.exchanges() == 0
    assert await world.grants_of() == []
    assert world.connected == []


async def test_check_01_a_replayed_callback_is_refused(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    assert (await browser.get(callback)).status_code == 200
    again = await browser.get(callback)
    assert again.status_code == 400
    assert "can&#39;t tell which connection" in again.text
    assert world.exchanges() == 1


async def test_check_01_a_state_expires(world: ConsentWorld) -> None:
    browser, callback = await _ready(world, return_to=RETURN_TO)
    world.clock.advance(AUTHORIZATION_REQUEST_LIFETIME)
    page = await browser.get(callback)
    assert page.status_code == 400
    assert "location" not in page.headers
    await _assert_nothing_happened(world)


@pytest.mark.parametrize(
    "state",
    ["", "x", "A" * 43 + "." + "B" * 43, "ä", "A" * 9000, "%00"],
    ids=["empty", "short", "unsigned", "not ascii", "very long", "nul"],
)
async def test_an_unknown_state_is_refused(world: ConsentWorld, state: str) -> None:
    browser, _ = await _ready(world, return_to=RETURN_TO)
    page = await browser.get(f"/auth/google/callback?code=4/0A&state={state}")
    assert page.status_code == 400
    assert "location" not in page.headers
    await _assert_nothing_happened(world)


async def test_a_tampered_state_is_refused_and_invalidates_nothing(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    state = query_of(callback)["state"]
    spoilt = state[:-1] + ("A" if state[-1] != "A" else "B")
    assert (await browser.get(callback.replace(state, spoilt))).status_code == 400
    await _assert_nothing_happened(world)
    assert (await browser.get(callback)).status_code == 200


async def test_check_02_a_callback_without_the_browsers_cookie_is_refused(
    world: ConsentWorld,
) -> None:
    browser, callback = await _ready(world, return_to=RETURN_TO)
    page = await (await world.browser()).get(callback)
    assert page.status_code == 400
    assert "location" not in page.headers
    await _assert_nothing_happened(world)
    assert ("consent", "refused:answer_unknown") in await world.audited()
    # Knowledge of the URL alone does not invalidate it for the right browser.
    assert (await browser.get(callback)).status_code == 303


async def test_check_15_another_browser_with_its_own_request_cannot_complete(
    world: ConsentWorld,
) -> None:
    _, attackers = await _ready(world)
    victim = await world.browser()
    await victim.open(await world.link("victim"))
    assert (await victim.get(attackers)).status_code == 400
    await _assert_nothing_happened(world)
    assert await world.grants_of("victim") == []


async def test_a_plain_cookie_does_not_pass_for_a_host_bound_one(world: ConsentWorld) -> None:
    """A page on a neighbouring host can plant `broker_browser`, but no `__Host-` cookie."""
    attacker, callback = await _ready(world)
    stolen = attacker.http.cookies["__Host-broker_browser"]
    victim = await world.browser()
    page = await victim.get(callback, cookie=f"broker_browser={stolen}")
    assert page.status_code == 400
    local = await world.browser("http://localhost:8000")
    await local.open(await world.link(redirect_uri=LOOPBACK))
    planted = local.http.cookies["broker_browser"]
    page = await victim.get(callback, cookie=f"__Host-broker_browser={planted}")
    assert page.status_code == 400
    await _assert_nothing_happened(world)


async def test_check_16_concurrent_callbacks_make_one_exchange(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    answers = await asyncio.gather(*(browser.get(callback) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 7
    assert world.exchanges() == 1
    assert len(world.connected) == 1


async def test_of_two_authorization_requests_of_one_link_one_completes_it(
    world: ConsentWorld,
) -> None:
    browser, link = await world.browser(), await world.link()
    first = await browser.decide(await browser.open(link))
    world.google.faults.next("token", Fault.hold())
    slow = asyncio.create_task(browser.get(first))
    await asyncio.to_thread(world.google.holds.wait_until_held)
    # While the first is at the token endpoint, the user starts again and is faster.
    quick = await browser.connect(link, GRACE)
    world.google.holds.release()
    assert quick.status_code == 200
    late = await slow
    assert late.status_code == 410
    assert "has already been used" in late.text
    assert [grant.email for grant in await world.grants_of()] == [GRACE]
    assert len(world.connected) == 1


async def test_a_callback_after_its_link_was_used_is_not_exchanged(
    world: ConsentWorld,
) -> None:
    browser, callback = await _ready(world)
    await world.database.execute("UPDATE connect_links SET completed_at = now()")
    assert (await browser.get(callback)).status_code == 410
    await _assert_nothing_happened(world)


@pytest.mark.parametrize("name", ["state", "code", "scope", "anything"])
async def test_a_parameter_given_twice_is_refused(world: ConsentWorld, name: str) -> None:
    browser, callback = await _ready(world)
    value = query_of(callback).get(name, "x")
    twice = f"{callback}&{name}={value}" if name in query_of(callback) else f"{callback}&{name}=x"
    twice = twice if name != "anything" else f"{callback}&anything=x&anything=y"
    assert (await browser.get(twice)).status_code == 400
    await _assert_nothing_happened(world)
    assert (await browser.get(callback)).status_code == 200


async def test_unknown_parameters_are_ignored(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    assert (await browser.get(f"{callback}&something=new&x=")).status_code == 200


async def test_check_06_a_wrong_iss_stops_before_the_exchange(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    page = await browser.get(f"{callback}&iss=https://attacker.example")
    assert page.status_code == 400
    assert "did not come from Google" in page.text
    await _assert_nothing_happened(world)
    assert ("consent", "failed:wrong_issuer") in await world.audited()


async def test_check_06_a_missing_iss_is_refused_where_discovery_promises_one(
    world: ConsentWorld,
) -> None:
    world.google.behave(send_iss=True)
    browser, callback = await _ready(world)
    without = callback[: callback.index("&iss=")]
    assert (await browser.get(without)).status_code == 400
    await _assert_nothing_happened(world)


async def test_check_06_a_right_iss_is_accepted(world: ConsentWorld) -> None:
    world.google.behave(send_iss=True)
    browser, callback = await _ready(world)
    assert "&iss=" in callback
    assert (await browser.get(callback)).status_code == 200


async def test_a_wrong_iss_stops_an_error_too(world: ConsentWorld) -> None:
    world.google.faults.next("callback", Fault.error("access_denied"))
    browser, callback = await _ready(world)
    page = await browser.get(f"{callback}&iss=https://attacker.example")
    assert "did not come from Google" in page.text


async def test_an_error_takes_precedence_over_a_code(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    page = await browser.get(f"{callback}&error=access_denied")
    assert "You did not allow the connection" in page.text
    await _assert_nothing_happened(world)


async def test_a_callback_with_neither_code_nor_error_fails(world: ConsentWorld) -> None:
    browser, callback = await _ready(world)
    state = query_of(callback)["state"]
    page = await browser.get(f"/auth/google/callback?state={state}")
    assert page.status_code == 400
    assert "Google&#39;s response was incomplete" in page.text
    await _assert_nothing_happened(world)


_ID_TOKEN_FAULTS: list[Callable[[], Fault]] = [
    lambda: Fault.id_token("nonce"),
    lambda: Fault.id_token("missing_nonce"),
    lambda: Fault.id_token("aud"),
    lambda: Fault.id_token("iss"),
    lambda: Fault.id_token("expired"),
    lambda: Fault.id_token("alg_none"),
    lambda: Fault.id_token("hs256"),
    lambda: Fault.id_token("unknown_kid"),
    lambda: Fault.id_token("bad_signature"),
    lambda: Fault.id_token("missing_sub"),
    lambda: Fault.id_token("empty_sub"),
    lambda: Fault.id_token("null_sub"),
    lambda: Fault.id_token("at_hash"),
    lambda: Fault.id_token("not_a_jwt"),
    lambda: Fault.without("id_token"),
]


@pytest.mark.parametrize(
    "fault",
    _ID_TOKEN_FAULTS,
    ids=[*(str(fault().details.get("defect", "no id_token")) for fault in _ID_TOKEN_FAULTS)],
)
async def test_checks_5_7_8_a_bad_id_token_discards_everything(
    world: ConsentWorld, fault: Callable[[], Fault]
) -> None:
    """Wrong or missing nonce; wrong aud, iss, exp, alg or signature; no sub."""
    browser, callback = await _ready(world)
    world.google.faults.next("token", fault())
    page = await browser.get(callback)
    assert page.status_code == 400
    assert "verify which account this is" in page.text
    assert await world.grants_of() == []
    assert world.connected == []
    assert await world.database.fetchval("SELECT count(*) FROM access_tokens") == 0
    assert world.consents("failed") == 1


async def test_check_05_the_nonce_of_another_request_is_refused(world: ConsentWorld) -> None:
    browser = await world.browser()
    other = query_of(await browser.open(await world.link()))["nonce"]
    callback = await browser.decide(await browser.open(await world.link()))
    world.google.faults.next("token", Fault.id_token(nonce=other))
    assert (await browser.get(callback)).status_code == 400
    assert await world.grants_of() == []


async def test_check_03_a_code_of_another_request_fails_its_challenge(world: ConsentWorld) -> None:
    """Code injection (RFC 9700 §4.5): the verifier of this request does not fit that code."""
    browser, victims = await _ready(world)
    attacker, attackers = await _ready(world)
    injected = attackers.replace(query_of(attackers)["state"], query_of(victims)["state"])
    page = await browser.get(injected)
    assert page.status_code == 400
    assert await world.grants_of() == []
    assert attacker is not browser


@pytest.mark.parametrize("confirm", [False, True])
async def test_a_callback_reads_the_users_grants_once(
    world: ConsentWorld, monkeypatch: pytest.MonkeyPatch, confirm: bool
) -> None:
    await (await world.browser()).connect(await world.link())
    browser = await world.browser()
    link = await world.link(login_hint=ADA, confirm=confirm, return_to=RETURN_TO)
    callback = await browser.decide(await browser.open(link))
    reads: list[str] = []
    _count_calls(monkeypatch, GrantStore, "list", reads)
    _count_calls(monkeypatch, GrantStore, "find", reads)
    _count_calls(monkeypatch, PendingConsents, "find_for_users", reads)
    answer = await browser.get(callback)
    assert query_of(answer.headers["location"])["status"] == "connected"
    assert reads == (["list", "find_for_users"] if confirm else ["list"])


@pytest.mark.parametrize("is_sent", [False, True])
async def test_a_revocation_between_the_read_and_the_lock_is_seen_under_the_lock(
    world: ConsentWorld, monkeypatch: pytest.MonkeyPatch, is_sent: bool
) -> None:
    """Unless Google has the revocation, the later consent cancels it."""
    await (await world.browser()).connect(await world.link())
    browser, callback = await _ready(world)
    complete = ConnectLinks.complete

    async def complete_after_revocation(self: ConnectLinks, link: ConnectLink) -> bool:
        await world.grants.revoke("alice", None, origin="caller")
        if is_sent:
            soon = world.clock.now() + timedelta(seconds=30)
            await world.database.execute("UPDATE pending_revocations SET claimed_until = $1", soon)
        return await complete(self, link)

    monkeypatch.setattr(ConnectLinks, "complete", complete_after_revocation)
    page = await browser.get(callback)
    (grant,) = await world.grants_of()
    open_links = "SELECT count(*) FROM connect_links WHERE completed_at IS NULL"
    queued = "SELECT count(*) FROM pending_revocations"
    if is_sent:
        assert page.status_code == 503
        assert "still removing your previous connection" in page.text
        assert grant.status is GrantStatus.REVOKED
        # The link is released, so that it can be used again.
        assert await world.database.fetchval(open_links) == 1
    else:
        assert page.status_code == 200
        assert grant.status is GrantStatus.ACTIVE
        assert await world.database.fetchval(open_links) == 0
        assert await world.database.fetchval(queued) == 0


def _count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, calls: list[str]) -> None:
    method = getattr(owner, name)

    async def counted(self: object, *arguments: object) -> object:
        calls.append(name)
        return await method(self, *arguments)

    monkeypatch.setattr(owner, name, counted)


async def test_a_link_that_is_used_before_its_second_authorization_request_is_refused(
    world: ConsentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    restart = AuthorizationRequests.restart

    async def restart_after_completion(self: AuthorizationRequests, *args: Any) -> Any:
        await world.database.execute("UPDATE connect_links SET completed_at = now()")
        return await restart(self, *args)

    monkeypatch.setattr(AuthorizationRequests, "restart", restart_after_completion)
    page = await (await world.browser()).return_unprompted(world)
    assert page.status_code == 410
    assert ("consent", "refused:link_used") in await world.audited()
