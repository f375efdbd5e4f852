"""The checks of the consent flow, on the whole broker from outside."""

import asyncio
import logging
import re
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from devstack.google_standin import Fault
from devstack.google_standin.faults import ID_TOKEN_DEFECTS
from tests.support.probes import (
    assert_hidden,
    audited,
    consent_at_google,
    everything_stored,
    exchanges,
    own_log,
    query_of,
)
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.waiting import eventually
from tests.support.world import ADA, API_REDIRECT_URI, RETURN_TO, World, stanza


async def _assert_not_connected(world: World) -> None:
    assert await world.sql("SELECT * FROM grants") == []
    assert await world.sql("SELECT * FROM access_tokens") == []
    assert (await world.token()).json()["code"] == "grant_not_found"


async def test_check_01_a_state_has_128_random_bits_expires_and_works_once(world: World) -> None:
    async with consent_at_google(world) as (browser, callback):
        random = query_of(callback)["state"].split(".")[0]
        assert len(random) * 6 >= 128
        assert len(set(random)) > 15
        assert (await browser.get(callback)).status_code == 200
        assert (await browser.get(callback)).status_code == 400
        assert exchanges(world) == 1
    async with consent_at_google(world, "late") as (browser, callback):
        world.clock.advance(timedelta(minutes=10))
        assert (await browser.get(callback)).status_code == 400
    assert exchanges(world) == 1


async def test_check_01_a_changed_state_is_refused(world: World) -> None:
    async with consent_at_google(world) as (browser, callback):
        state = query_of(callback)["state"]
        for changed in (
            state[:-1] + ("A" if state[-1] != "A" else "B"),
            ("A" if state[0] != "A" else "B") + state[1:],
            state.split(".")[0],
            state.swapcase(),
            "",
            f"{state}&state={state}",
        ):
            answer = await browser.get(callback.replace(state, changed))
            assert answer.status_code == 400, changed
            assert "location" not in answer.headers
        assert exchanges(world) == 0
        await _assert_not_connected(world)
        assert (await browser.get(callback)).status_code == 200


async def test_check_02_a_callback_without_the_browsers_cookie_is_refused(world: World) -> None:
    async with consent_at_google(world) as (browser, callback), world.browser() as another:
        assert (await another.get(callback)).status_code == 400
        forged = {"Cookie": "broker_browser=" + "A" * 43 + "." + "B" * 43}
        assert (await another.get(callback, headers=forged)).status_code == 400
        await world.start_consent(another, "user-2")
        assert (await another.get(callback)).status_code == 400
        assert exchanges(world) == 0
        await audited(world, "consent", "refused:answer_unknown", count=3)
        assert (await browser.get(callback)).status_code == 200


@pytest.mark.parametrize(
    "body", [{}, {"login_hint": ADA}, {"scopes": [CALENDAR], "login_hint": ADA}]
)
async def test_check_03_every_authorization_request_has_an_s256_challenge(
    world: World, body: dict[str, Any]
) -> None:
    await world.connect()
    async with world.browser() as browser:
        asked = query_of(await world.start_consent(browser, **body))
        assert asked["code_challenge_method"] == "S256"
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", asked["code_challenge"])


async def test_check_03_a_code_injected_into_another_authorization_request_is_refused(
    world: World,
) -> None:
    async with consent_at_google(world, "victim") as (browser, victims):
        async with consent_at_google(world, "attacker") as (_, attackers):
            code = query_of(attackers)["code"]
        injected = victims.replace(quote(query_of(victims)["code"], safe=""), quote(code, safe=""))
        assert injected != victims
        assert (await browser.get(injected)).status_code == 400
    await _assert_not_connected(world)


async def test_check_04_no_two_authorization_requests_share_a_value(world: World) -> None:
    async with world.browser() as browser:
        asked = [query_of(await world.start_consent(browser)) for _ in range(4)]
        link = (await world.create_link("user-1")).json()["url"]
        asked += [query_of((await browser.get(link)).headers["location"]) for _ in range(4)]
    for name in ("state", "nonce", "code_challenge"):
        assert len({one[name] for one in asked}) == 8


ID_TOKEN_FAULTS = [
    *map(Fault.id_token, sorted(ID_TOKEN_DEFECTS)),
    Fault.id_token(aud=["x", "y"]),
    Fault.id_token(aud="another-client"),
    Fault.id_token(azp="another-client"),
    Fault.id_token(sub=7),
    *(Fault.id_token(**{claim: None}) for claim in ("aud", "iss", "exp", "iat")),
    Fault.without("id_token"),
]


@pytest.mark.parametrize("fault", ID_TOKEN_FAULTS, ids=lambda fault: str(fault.details)[:60])
async def test_check_05_check_07_check_08_an_invalid_id_token_connects_nothing(
    world: World, fault: Fault
) -> None:
    """Nonce, audience, issuer, expiry, algorithm, signature and sub are each wrong once."""
    async with world.browser() as browser:
        callback = world.standin.consent(await world.start_consent(browser), ADA)
        world.standin.faults.next("token", fault)
        answer = await browser.get(callback)
    assert answer.status_code == 400
    await _assert_not_connected(world)
    assert len(world.standin.issued.refresh_tokens) == 1
    places = (await everything_stored(world), answer.text, str(answer.headers))
    for secret in world.standin.issued.all():
        assert_hidden(secret, *places)


@pytest.mark.parametrize("iss", ["https://evil.example", "ISSUER.evil.example", "", "null"])
async def test_check_06_a_wrong_iss_prevents_the_code_exchange(world: World, iss: str) -> None:
    iss = iss.replace("ISSUER", world.standin.base_url)
    async with consent_at_google(world) as (browser, callback):
        answer = await browser.get(f"{callback}&iss={quote(iss, safe='')}")
    assert answer.status_code == 400
    assert exchanges(world) == 0
    await _assert_not_connected(world)


async def test_check_06_the_right_iss_is_accepted(world: World) -> None:
    async with consent_at_google(world) as (browser, callback):
        answer = await browser.get(f"{callback}&iss={quote(world.standin.base_url, safe='')}")
    assert answer.status_code == 200


async def test_check_08_a_reassigned_email_does_not_move_a_grant(world: World) -> None:
    await world.connect(account=ADA)
    ada = world.standin.account(ADA).sub
    world.standin.change_email(ADA, "ada.new@example.com")
    newcomer = world.standin.add_account(ADA).sub
    await world.connect(account=newcomer)
    by_sub = {grant["account"]["sub"]: grant for grant in await world.grants()}
    assert set(by_sub) == {ada, newcomer}
    assert (await world.token(account=ada)).json()["account"]["sub"] == ada


async def test_check_09_another_account_without_a_hint_is_another_grant(world: World) -> None:
    await world.connect(account=ADA)
    before = await world.sql("SELECT * FROM grants")
    world.standin.add_account("second@example.com")
    await world.connect(account="second@example.com")
    assert await world.sql("SELECT * FROM grants WHERE email = $1", ADA) == before
    assert len(await world.grants()) == 2


@pytest.mark.parametrize("confirm", [False, True])
async def test_check_09_another_account_than_the_requested_one_is_refused(
    world: World, confirm: bool
) -> None:
    await world.connect(account=ADA)
    before = await world.sql("SELECT * FROM grants")
    world.standin.add_account("second@example.com")
    for hint in (ADA, world.standin.account(ADA).sub):
        consent = await world.connect(
            account="second@example.com", login_hint=hint, return_to=RETURN_TO, confirm=confirm
        )
        assert consent.status == "failed"
        assert "confirmation" not in consent.response.headers["location"]
    assert await world.sql("SELECT * FROM grants") == before
    assert await world.sql("SELECT * FROM pending_consents") == []
    await audited(world, "consent", "failed:account_mismatch", count=2)


async def test_check_09_the_consent_of_the_other_account_is_revoked_at_google(world: World) -> None:
    world.standin.add_account("second@example.com")
    await world.connect(account="second@example.com", login_hint=ADA)
    await eventually(lambda: _was_revoked(world))
    # Not if a live grant needs that account.
    await world.connect("user-2", account="second@example.com")
    await world.connect(account="second@example.com", login_hint=ADA)
    assert await world.sql("SELECT * FROM pending_revocations") == []
    world.clock.advance(timedelta(hours=1))
    assert (await world.token("user-2")).status_code == 200


async def _was_revoked(world: World) -> bool:
    world.clock.advance(timedelta(seconds=1))
    return world.standin.requests.count("revoke") == 1


FORBIDDEN_SCOPES: list[Any] = [
    [GMAIL_READONLY],
    [CALENDAR_READONLY, GMAIL_READONLY],
    ["https://www.googleapis.com/auth/drive"],
    [CALENDAR_READONLY.upper()],
    [CALENDAR_READONLY + "/"],
    ["https://www.googleapis.com/auth/calendar.readonly https://mail.google.com/"],
    [f"{CALENDAR_READONLY}\u00a0https://mail.google.com/"],
    [f"{CALENDAR_READONLY}&prompt=none"],
    CALENDAR_READONLY + " https://mail.google.com/",
    [],
    [""],
]


@pytest.mark.parametrize("verified", [False, "false"])
async def test_check_09_an_unverified_email_does_not_identify_an_account(
    world: World, verified: object
) -> None:
    """A Google account can be created with another person's email, without verification."""
    claimed = "victim@example.com"
    fault = Fault.id_token(email=claimed, email_verified=verified)
    async with world.browser() as browser:
        for hint in (None, claimed):
            # First without a hint, so that a grant with that address exists.
            body = {"login_hint": hint} if hint else {}
            callback = world.standin.consent(await world.start_consent(browser, **body), ADA)
            world.standin.faults.next("token", fault)
            answer = await browser.get(callback)
            assert answer.status_code == (400 if hint else 200)
    await audited(world, "consent", "failed:address_not_verified")
    (grant,) = await world.grants()
    async with world.browser() as browser:
        hinted = await world.start_consent(browser, "user-2", login_hint=claimed)
        world.standin.faults.next("token", fault)
        answer = await browser.get(world.standin.consent(hinted, ADA))
        assert "has not verified this account" in answer.text
        assert await world.grants("user-2") == []
        # Its `sub` identifies it.
        hinted = await world.start_consent(browser, "user-3", login_hint=grant["account"]["sub"])
        world.standin.faults.next("token", fault)
        answer = await browser.get(world.standin.consent(hinted, ADA))
        assert answer.status_code == 200
    assert len(await world.grants("user-3")) == 1


async def test_check_09_an_email_without_email_verified_identifies_its_account(
    world: World,
) -> None:
    async with world.browser() as browser:
        hinted = await world.start_consent(browser, login_hint=ADA)
        world.standin.faults.next("token", Fault.id_token(email_verified=None))
        assert (await browser.get(world.standin.consent(hinted, ADA))).status_code == 200


async def test_check_11_an_answer_without_scope_does_not_grant_the_requested_scopes(
    world: World,
) -> None:
    async with world.browser() as browser:
        callback = world.standin.consent(await world.start_consent(browser), ADA)
        world.standin.faults.next("token", Fault.replacing(scope=""))
        assert (await browser.get(callback)).status_code == 503
    await _assert_not_connected(world)


@pytest.mark.parametrize("scopes", FORBIDDEN_SCOPES)
async def test_check_10_only_configured_scopes_are_requested(world: World, scopes: Any) -> None:
    answer = await world.create_link("user-1", scopes=scopes)
    assert answer.status_code in (400, 403), scopes
    assert await world.sql("SELECT * FROM connect_links") == []


async def test_check_10_a_callers_policy_does_not_extend_the_configured_scopes(
    world: World,
) -> None:
    beyond = "https://www.googleapis.com/auth/drive"
    await world.rewrite_callers(
        {"calendar-sync": stanza(world.key, scopes=[CALENDAR_READONLY, beyond])}
    )
    for scopes in ([beyond], [CALENDAR_READONLY, beyond]):
        answer = await world.create_link("user-1", scopes=scopes)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_not_allowed")
        assert answer.json()["scopes"] == [beyond]
    assert await world.sql("SELECT * FROM connect_links") == []


async def test_check_11_fewer_scopes_than_requested_are_stored_and_reported(world: World) -> None:
    consent = await world.connect(scopes=[CALENDAR, CALENDAR_READONLY], untick=[CALENDAR])
    assert "with fewer permissions" in consent.response.text
    (grant,) = await world.grants()
    assert CALENDAR not in grant["scopes"]
    assert (await world.token(scope=CALENDAR)).json()["missing"] == [CALENDAR]
    assert (await world.token()).json()["scope"] == CALENDAR_READONLY


ALMOST_IN_THE_LIST: list[Any] = [
    RETURN_TO + "/",
    RETURN_TO + "?x=1",
    RETURN_TO + "#x",
    RETURN_TO.replace("https", "http"),
    RETURN_TO.replace("https", "HTTPS"),
    RETURN_TO.replace("app.example", "App.Example"),
    RETURN_TO.replace("settings", "Settings"),
    RETURN_TO.replace("settings", "%73ettings"),
    RETURN_TO.replace("settings", "x/../settings"),
    RETURN_TO.replace("/settings", "//settings"),
    RETURN_TO.replace("https://", "https://user@"),
    RETURN_TO.replace("app.example.com", "app.example.com@evil.example"),
    RETURN_TO.replace("app.example.com", "app.example.com:443"),
    RETURN_TO.replace("app.example.com", "app.example.com.evil.example"),
    RETURN_TO.replace("app.example.com", "app.example.com."),
    RETURN_TO.replace("app", "аpp"),  # noqa: RUF001  (a Cyrillic letter)
    "//app.example.com/settings",
    "https:app.example.com/settings",
    "/settings",
    "javascript:alert(1)",
    f" {RETURN_TO}",
    f"{RETURN_TO}\n",
    f"{RETURN_TO}\r\nSet-Cookie: x=1",
    "",
    [RETURN_TO],
]


@pytest.mark.parametrize("return_to", ALMOST_IN_THE_LIST)
async def test_check_12_a_return_to_that_is_not_exactly_listed_gets_no_redirect(
    world: World, return_to: Any
) -> None:
    answer = await world.create_link("user-1", return_to=return_to)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), return_to
    assert answer.json()["field"] == "return_to"
    assert await world.sql("SELECT * FROM connect_links") == []


async def test_check_12_query_parameters_do_not_change_the_redirect(world: World) -> None:
    async with world.browser() as browser:
        link = (await world.create_link("user-1", return_to=RETURN_TO)).json()["url"]
        evil = "return_to=https%3A%2F%2Fevil.example&redirect_uri=https%3A%2F%2Fevil.example"
        to_google = (await browser.get(f"{link}&{evil}")).headers["location"]
        assert "evil" not in to_google
        callback = world.standin.consent(to_google, ADA)
        answer = await browser.get(f"{callback}&{evil}")
    assert answer.headers["location"].startswith(f"{RETURN_TO}?status=connected&link_id=")
    assert "evil" not in answer.headers["location"]


async def test_check_13_pages_are_strict_and_load_nothing_from_elsewhere(world: World) -> None:
    pages = [
        (await world.connect()).response,
        (await world.connect(deny=True)).response,
        await world.public.get("/auth/google/callback?state=x&code=y"),
        await world.public.get("/auth/google/authorize/user-1?link=x"),
        await world.public.get("/nowhere"),
        await world.public.post("/auth/google/callback"),
    ]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"<script|\son\w+=|style=|javascript:", page.text, re.IGNORECASE)
        for loaded in re.findall(r'(?:src|<link[^>]*href)="([^"]*)"', page.text):
            assert loaded.startswith("/auth/google/static/")


async def test_check_13_the_cookie_is_httponly_and_lax(world: World) -> None:
    link = (await world.create_link("user-1")).json()["url"]
    cookie = (await world.public.get(link)).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "domain" not in cookie


async def test_check_14_redirects_are_303_and_only_get_is_served(world: World) -> None:
    async with consent_at_google(world, return_to=RETURN_TO) as (browser, callback):
        assert (await browser.post(callback)).status_code == 405
        assert (await browser.get(callback)).status_code == 303
    link = (await world.create_link("user-1")).json()["url"]
    assert (await world.public.post(link)).status_code == 400
    assert (await world.public.get(link)).status_code == 303


async def test_check_15_a_link_opened_in_another_browser_cannot_be_completed(world: World) -> None:
    """The attacker starts with the link and the victim completes it, or the reverse."""
    link = (await world.create_link("attacker")).json()["url"]
    async with world.browser() as attacker, world.browser() as victim:
        callback = world.standin.consent((await attacker.get(link)).headers["location"], ADA)
        assert (await victim.get(link)).status_code == 403
        assert (await victim.get(callback)).status_code == 400
    assert exchanges(world) == 0
    assert await world.sql("SELECT * FROM grants") == []


async def test_check_15_two_hosts_of_one_broker_have_separate_cookies(world: World) -> None:
    async with world.browser() as browser:
        to_google = await world.start_consent(browser)
        callback = world.standin.consent(to_google, ADA)
        elsewhere = callback.replace("127.0.0.1", "localhost")
        assert (await browser.get(elsewhere)).status_code == 400
        wrong = await world.create_link("user-1", redirect_uri=API_REDIRECT_URI + "/")
        assert (wrong.status_code, wrong.json()["field"]) == (400, "redirect_uri")
        assert (await browser.get(callback)).status_code == 200


async def test_check_16_one_of_many_callbacks_with_one_state_exchanges_the_code(
    world: World,
) -> None:
    async with consent_at_google(world) as (browser, callback):
        answers = await asyncio.gather(*(browser.get(callback) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
    assert exchanges(world) == 1
    assert len(await world.grants()) == 1


async def test_check_17_a_failed_consent_reveals_no_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="broker")
    seen = []
    for fault in (Fault.http(500), Fault.id_token("bad_signature"), Fault.invalid_grant()):
        async with consent_at_google(world) as (browser, callback):
            world.standin.faults.next("token", fault)
            answer = await browser.get(callback)
            seen += [answer.text, str(answer.headers)]
            seen += [own_log(caplog), (await world.ops.get("/metrics")).text]
            secrets = [query_of(callback)["code"], *browser.cookies.values(), world.key]
            for secret in [*secrets, *world.standin.issued.all()]:
                assert_hidden(secret, *seen)
