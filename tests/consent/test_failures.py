"""Failed consents: each has its own text and next step, and stores nothing."""

import asyncio
import re
from datetime import timedelta

import pytest

from broker.consent.consent_outcomes import ConsentRefusal
from broker.google import errors as authorization_errors
from broker.grants.model import GrantStatus
from broker.wording.consent_en import ENGLISH
from devstack.google_standin import Fault
from tests.consent.harness import (
    ADA,
    CLIENT_ID,
    RETURN_TO,
    ConsentWorld,
    query_of,
)

_AUTHORIZATION_ERRORS = [
    ("access_denied", "You did not allow the connection"),
    ("admin_policy_enforced", "Your organisation does not allow this connection"),
    ("disallowed_useragent", "Google does not allow signing in from this window"),
    ("org_internal", "This connection is only for accounts of one organisation"),
    ("invalid_client", "This service is not set up correctly at Google"),
    ("deleted_client", "This service is not set up correctly at Google"),
    ("redirect_uri_mismatch", "This service is not set up correctly at Google"),
    ("invalid_grant", "That took too long"),
    ("invalid_request", "This service is not set up correctly at Google"),
    ("temporarily_unavailable", "Google has a temporary problem"),
    ("<script>alert(1)</script>", "Google could not connect your account"),
]


def _text(html: str) -> str:
    return html.replace("&#39;", "'")


@pytest.mark.parametrize(("code", "title"), _AUTHORIZATION_ERRORS)
async def test_every_authorization_error_has_its_own_text(
    world: ConsentWorld, code: str, title: str
) -> None:
    world.google.faults.next("callback", Fault.error(code, description="words of an attacker"))
    page = await (await world.browser()).connect(await world.link())
    assert f"<h1>{title}</h1>" in _text(page.text)
    assert "Nothing was connected." in page.text
    assert "words of an attacker" not in page.text
    assert "<script" not in page.text
    assert page.status_code < 500 or code == "temporarily_unavailable"
    assert world.exchanges() == 0
    assert await world.grants_of() == []


def test_every_reason_has_a_text() -> None:
    known = set(ENGLISH.messages)
    errors = {error.code for error in authorization_errors.AUTHORIZATION_ERRORS.values()}
    assert errors <= known
    assert {refusal.value for refusal in ConsentRefusal} <= known


async def test_denying_is_counted_and_audited_as_denied(world: ConsentWorld) -> None:
    page = await (await world.browser()).connect(await world.link(), deny=True)
    assert page.status_code == 200
    assert (world.consents("denied"), world.consents("failed")) == (1, 0)
    assert ("consent", "denied:access_denied") in await world.audited()


async def test_after_a_denial_the_same_link_can_be_used_again(world: ConsentWorld) -> None:
    browser, link = await world.browser(), await world.link()
    page = await browser.connect(link, deny=True)
    again = re.search(r'<a class="button" href="([^"]+)">Try again</a>', page.text)
    assert again is not None
    assert again[1] == link["url"]
    assert (await browser.connect(link)).status_code == 200


async def test_an_expired_link_is_not_offered_again(world: ConsentWorld) -> None:
    browser = await world.browser()
    url = await browser.open(await world.link())
    world.clock.advance(timedelta(minutes=9, seconds=58))
    page = await browser.get(await browser.decide(url, deny=True))
    assert "Try again</a>" not in page.text


async def test_an_embedded_browser_is_offered_no_retry(
    world: ConsentWorld,
) -> None:
    world.google.faults.next("callback", Fault.error("disallowed_useragent"))
    page = await (await world.browser()).connect(await world.link())
    assert "Try again</a>" not in page.text


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.error("access_denied"), "denied"), (Fault.error("org_internal"), "failed")],
    ids=["denied", "failed"],
)
async def test_with_return_to_the_product_gets_the_result(
    world: ConsentWorld, fault: Fault, status: str
) -> None:
    world.google.faults.next("callback", fault)
    link = await world.link(return_to=RETURN_TO)
    answer = await (await world.browser()).connect(link)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{RETURN_TO}&status={status}&link_id={link['id']}"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.http(503),
        Fault.rate_limited(),
        Fault.html_403(),
        Fault.not_json(),
        Fault.drop(),
        Fault.half(),
        Fault.without("access_token"),
        Fault.without("expires_in"),
        Fault.internal_failure(),
    ],
    ids=lambda fault: f"{fault.kind} {sorted(map(str, fault.details.values()))}"[:40],
)
async def test_a_failing_token_endpoint_stores_nothing(world: ConsentWorld, fault: Fault) -> None:
    world.google.faults.next("token", fault)
    page = await (await world.browser()).connect(await world.link())
    assert page.status_code == 503
    assert page.headers["retry-after"]
    assert "Google is temporarily unavailable" in _text(page.text)
    assert await world.grants_of() == []
    assert ("consent", "failed:google_unavailable") in await world.audited()


async def test_unavailable_signing_keys_store_nothing(world: ConsentWorld) -> None:
    world.google.faults.always("jwks", Fault.http(500))
    page = await (await world.browser()).connect(await world.link())
    assert page.status_code == 503
    assert await world.grants_of() == []


async def test_a_code_that_google_refuses_offers_a_retry(world: ConsentWorld) -> None:
    world.google.faults.next("token", Fault.invalid_grant())
    page = await (await world.browser()).connect(await world.link())
    assert page.status_code == 400
    assert "That took too long" in page.text
    assert "Try again</a>" in page.text


async def test_a_rotated_client_secret_is_read_again_and_used(world: ConsentWorld) -> None:
    browser = await world.browser()
    callback = await browser.decide(await browser.open(await world.link()))
    world.google.change_client_secret(CLIENT_ID, "GOCSPX-second-secret")
    world.secret_file.write_text("GOCSPX-second-secret")
    page = await browser.get(callback)
    assert page.status_code == 200
    assert world.exchanges() == 2
    assert len(await world.grants_of()) == 1


async def test_a_code_used_up_with_the_old_secret_is_shown_as_the_operators_fault(
    world: ConsentWorld,
) -> None:
    browser = await world.browser()
    callback = await browser.decide(await browser.open(await world.link()))
    world.secret_file.write_text("GOCSPX-second-secret")
    world.google.faults.next("token", Fault.invalid_client())
    world.google.faults.next("token", Fault.invalid_grant())
    page = await browser.get(callback)
    assert page.status_code == 503
    assert "not set up correctly" in page.text


async def test_an_unchanged_secret_is_not_used_twice(world: ConsentWorld) -> None:
    world.google.change_client_secret(CLIENT_ID, "GOCSPX-another")
    page = await (await world.browser()).connect(await world.link())
    assert page.status_code == 503
    assert "This is not your mistake" in page.text
    assert "Please contact the people who run" in page.text
    assert world.exchanges() == 1


async def test_no_refresh_token_despite_the_prompt_fails(world: ConsentWorld) -> None:
    world.google.faults.next("token", Fault.without("refresh_token"))
    page = await (await world.browser()).connect(await world.link())
    assert page.status_code == 400
    assert "did not allow a lasting connection" in page.text
    assert await world.grants_of() == []


async def test_the_browser_goes_to_google_once_more_only_once(world: ConsentWorld) -> None:
    browser = await world.browser()
    back = await browser.return_unprompted(world)
    world.google.faults.next("token", Fault.without("refresh_token"))
    page = await browser.get(await browser.decide(back.headers["location"]))
    assert page.status_code == 400
    assert "did not allow a lasting connection" in page.text
    (grant,) = await world.grants_of()
    assert grant.status is GrantStatus.REAUTHORIZATION_REQUIRED


async def test_a_link_that_forced_consent_once_goes_on_forcing_it(world: ConsentWorld) -> None:
    browser, link = await world.browser(), await world.link(login_hint=ADA)
    await browser.return_unprompted(world, link)
    await world.database.execute("UPDATE grants SET status = 'active', version = version + 1")
    assert query_of(await browser.open(link))["prompt"] == "consent"


@pytest.mark.parametrize("is_callback", [False, True], ids=["link", "callback"])
async def test_an_unavailable_database_gives_a_page(world: ConsentWorld, is_callback: bool) -> None:
    link = await world.link()
    browser = await world.browser()
    callback = await browser.decide(await browser.open(link))
    await world.database.close()
    page = await browser.get(callback if is_callback else link["url"])
    assert page.status_code == 503
    assert page.headers["retry-after"]
    assert "This is temporarily unavailable" in _text(page.text)
    assert world.exchanges() == 0


async def test_a_database_lost_after_the_exchange_fails_the_consent(world: ConsentWorld) -> None:
    browser = await world.browser()
    link = await world.link(return_to=RETURN_TO)
    callback = await browser.decide(await browser.open(link))
    world.google.faults.next("token", Fault.hold())
    coming_back = asyncio.create_task(browser.get(callback))
    await asyncio.to_thread(world.google.holds.wait_until_held)
    await world.database.close()
    world.google.holds.release()
    answer = await coming_back
    assert query_of(answer.headers["location"])["status"] == "failed"
    assert world.connected == []


async def test_a_grant_that_cannot_be_stored_releases_the_link(
    world: ConsentWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, link = await world.browser(), await world.link()

    async def broken(_consent: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(world.grants, "connect", broken)
    page = await browser.connect(link)
    assert page.status_code == 500
    assert "Something went wrong on our side" in page.text
    monkeypatch.undo()
    assert (await browser.connect(link)).status_code == 200
