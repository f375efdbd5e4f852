"""Opening links: once, for a short time, for one user, in one browser."""

import asyncio
from datetime import timedelta
from urllib.parse import quote

import pytest

from broker.consent.authorization_requests import AUTHORIZATION_REQUEST_LIFETIME
from broker.consent.links import CONNECT_LINK_LIFETIME, ConnectLink, LinkTokens
from broker.crypto.sealing import Sealed, Sealer, UnsealingError, local_sealing_keys
from broker.crypto.signing import Signer
from broker.secret import Secret
from tests.consent.harness import (
    ADA,
    LOOPBACK,
    RETURN_TO,
    SECRET_KEY,
    ConsentWorld,
    query_of,
)

_SECURE = "__Host-broker_browser"


async def _rows(world: ConsentWorld, table: str) -> int:
    return int(await world.database.fetchval(f"SELECT count(*) FROM {table}"))


async def test_opening_redirects_with_303_and_leaks_no_referrer(world: ConsentWorld) -> None:
    """Check 14, for GET too: every redirect has one status."""
    response = await (await world.browser()).get((await world.link())["url"])
    assert response.status_code == 303
    assert response.headers["location"].startswith(world.google.base_url)
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"


async def test_check_13_the_cookie_is_host_bound_secure_httponly_and_lax(
    world: ConsentWorld,
) -> None:
    response = await (await world.browser()).get((await world.link())["url"])
    cookie, *attributes = response.headers["set-cookie"].split("; ")
    name, _, value = cookie.partition("=")
    assert name == _SECURE
    assert len(value.split(".")[0]) == 43  # 256 random bits
    assert {a.lower() for a in attributes} == {
        "httponly",
        "max-age=3600",
        "path=/",
        "samesite=lax",
        "secure",
    }


async def test_check_13_on_plain_http_loopback_the_cookie_is_not_secure(
    world: ConsentWorld,
) -> None:
    link = await world.link(redirect_uri=LOOPBACK)
    response = await (await world.browser("http://localhost:8000")).get(link["url"])
    cookie = response.headers["set-cookie"]
    assert cookie.startswith("broker_browser=")
    assert "secure" not in cookie.lower()


async def test_a_browser_keeps_one_cookie(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.open(await world.link())
    first = browser.http.cookies[_SECURE]
    await browser.open(await world.link())
    assert browser.http.cookies[_SECURE] == first


async def test_a_cookie_without_a_valid_signature_is_replaced(world: ConsentWorld) -> None:
    browser = await world.browser()
    forged = "A" * 43 + "." + "B" * 43
    response = await browser.get((await world.link())["url"], cookie=f"{_SECURE}={forged}")
    assert response.status_code == 303
    assert forged not in response.headers["set-cookie"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: "0" * 32 + token[32:],
        lambda token: token.replace(".", ".9", 1),
        lambda token: token[:40],
        lambda token: token + "A",
        lambda token: token * 20,
        lambda _token: "",
        lambda _token: "ä%00",
    ],
    ids=["signature", "id", "expiry", "cut", "longer", "very long", "empty", "garbage"],
)
async def test_a_tampered_link_is_refused(world: ConsentWorld, spoil: object) -> None:
    link = await world.link()
    base, _, token = link["url"].partition("?link=")
    assert callable(spoil)
    page = await (await world.browser()).get(f"{base}?link={quote(spoil(token))}")
    assert page.status_code == 400
    assert "This link does not work" in page.text
    assert "set-cookie" not in page.headers
    assert await _rows(world, "consent_transactions") == 0


async def test_a_link_works_for_its_own_user_only(world: ConsentWorld) -> None:
    link = await world.link("alice")
    page = await (await world.browser()).get(link["url"].replace("/alice?", "/mallory?"))
    assert page.status_code == 400
    assert "This link does not work" in page.text


async def test_a_link_signed_for_another_purpose_is_refused(world: ConsentWorld) -> None:
    url = await (await world.browser()).open(await world.link())
    state = query_of(url)["state"]
    page = await (await world.browser()).get(f"/auth/google/authorize/alice?link={state}")
    assert page.status_code == 400


async def test_a_link_without_a_token_is_refused(world: ConsentWorld) -> None:
    page = await (await world.browser()).get("/auth/google/authorize/alice")
    assert page.status_code == 400


async def test_a_repeated_link_parameter_is_refused(world: ConsentWorld) -> None:
    link = await world.link()
    token = query_of(link["url"])["link"]
    page = await (await world.browser()).get(f"{link['url']}&link={token}")
    assert page.status_code == 400


async def test_an_expired_link_shows_that_it_expired(world: ConsentWorld) -> None:
    link = await world.link()
    world.clock.advance(CONNECT_LINK_LIFETIME)
    page = await (await world.browser()).get(link["url"])
    assert page.status_code == 410
    assert "This link has expired" in page.text
    assert await _rows(world, "consent_transactions") == 0


async def test_a_link_works_until_it_expires(world: ConsentWorld) -> None:
    link = await world.link()
    world.clock.advance(CONNECT_LINK_LIFETIME - timedelta(seconds=1))
    await (await world.browser()).open(link)


@pytest.mark.parametrize("is_same_browser", [True, False])
async def test_a_used_link_shows_that_it_was_used(
    world: ConsentWorld, is_same_browser: bool
) -> None:
    browser, link = await world.browser(), await world.link()
    await browser.connect(link)
    again = browser if is_same_browser else await world.browser()
    page = await again.get(link["url"])
    assert page.status_code == 410
    assert "This link has already been used" in page.text
    assert len(await world.grants_of()) == 1
    assert (await world.audited())[-1:] == [("consent", "refused:link_used")]


async def test_check_15_a_link_opened_in_one_browser_is_closed_to_others(
    world: ConsentWorld,
) -> None:
    link = await world.link(return_to=RETURN_TO)
    first, second = await world.browser(), await world.browser()
    await first.open(link)
    page = await second.get(link["url"])
    assert page.status_code == 403
    assert "opened in another browser" in page.text
    assert "location" not in page.headers
    assert ("consent", "refused:link_elsewhere") in await world.audited()
    # The first browser is not affected.
    assert (await first.connect(link)).headers["location"].startswith(RETURN_TO)


async def test_of_concurrent_browsers_one_gets_the_link(world: ConsentWorld) -> None:
    link = await world.link()
    browsers = [await world.browser() for _ in range(6)]
    answers = await asyncio.gather(*(browser.get(link["url"]) for browser in browsers))
    assert sorted(answer.status_code for answer in answers) == [303] + [403] * 5


async def test_opening_again_in_the_same_browser_replaces_the_earlier_request(
    world: ConsentWorld,
) -> None:
    browser, link = await world.browser(), await world.link()
    earlier = await browser.decide(await browser.open(link))
    later = await browser.decide(await browser.open(link))
    assert (await browser.get(earlier)).status_code == 400
    assert await world.grants_of() == []
    assert (await browser.get(later)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"sec-purpose": "prefetch"},
        {"sec-purpose": "prefetch;prerender"},
        {"purpose": "prefetch"},
        {"x-moz": "prefetch"},
        {"x-purpose": "preview"},
    ],
    ids=str,
)
async def test_a_prefetch_opens_nothing(world: ConsentWorld, header: dict[str, str]) -> None:
    link = await world.link()
    answer = await (await world.browser()).get(link["url"], **header)
    assert (answer.status_code, answer.content) == (503, b"")
    assert "set-cookie" not in answer.headers
    await (await world.browser()).open(link)


async def test_a_head_request_opens_nothing_and_consumes_nothing(world: ConsentWorld) -> None:
    link, browser = await world.link(), await world.browser()
    answer = await (await world.browser()).http.head(link["url"])
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    callback = await browser.decide(await browser.open(link))
    assert (await browser.http.head(callback)).status_code == 200
    assert (await browser.get(callback)).status_code == 200


async def test_while_google_is_unavailable_a_link_is_not_bound(world: ConsentWorld) -> None:
    link = await world.link()
    world.google.stop()
    try:
        page = await (await world.browser()).get(link["url"])
    finally:
        world.google.start()
    assert page.status_code == 503
    assert "Google is temporarily unavailable" in page.text
    assert link["url"].replace("&", "&amp;") in page.text  # “Try again”
    world.clock.advance(timedelta(seconds=10))
    await (await world.browser()).open(link)


async def test_links_signed_with_an_older_key_still_work(world: ConsentWorld) -> None:
    link = await world.link()
    newer = Secret("a newer secret key for tests, 32 bytes or more")
    stored = await world.links.find((await _only_link(world)).id)
    assert stored is not None
    both = LinkTokens(Signer([newer, SECRET_KEY], "links"))
    token = query_of(link["url"])["link"]
    now = world.clock.now()
    assert both.verify(token, user_id="alice", now=now) == stored.id
    assert both.issue(stored) != token
    only_new = LinkTokens(Signer([newer], "links"))
    assert only_new.verify(token, user_id="alice", now=now) != stored.id


async def _only_link(world: ConsentWorld) -> ConnectLink:
    link = await world.links.find(await world.database.fetchval("SELECT id FROM connect_links"))
    assert link is not None
    return link


async def test_expired_links_and_requests_are_purged(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.open(await world.link())
    await world.link()
    world.clock.advance(max(CONNECT_LINK_LIFETIME, AUTHORIZATION_REQUEST_LIFETIME))
    await world.purge()
    assert await _rows(world, "consent_transactions") == 0
    assert await _rows(world, "connect_links") == 2
    world.clock.advance(timedelta(hours=1))
    await world.purge()
    assert await _rows(world, "connect_links") == 0


async def test_a_purged_link_shows_that_it_expired(world: ConsentWorld) -> None:
    link = await world.link()
    await world.database.execute("DELETE FROM connect_links")
    page = await (await world.browser()).get(link["url"])
    assert page.status_code == 410


@pytest.mark.parametrize("path", ["%00", "%ff", "a" * 256, "%F0%9F%98"], ids=ascii)
async def test_an_invalid_user_id_is_refused(world: ConsentWorld, path: str) -> None:
    token = query_of((await world.link())["url"])["link"]
    page = await (await world.browser()).get(f"/auth/google/authorize/{path}?link={token}")
    assert page.status_code == 400
    assert "This link does not work" in page.text


async def test_a_too_long_query_is_refused_unread(world: ConsentWorld) -> None:
    link = await world.link()
    browser = await world.browser()
    assert (await browser.get(f"{link['url']}&x={'y' * 9000}")).status_code == 400
    callback = await browser.decide(await browser.open(link))
    assert (await browser.get(f"{callback}&x={'y' * 9000}")).status_code == 400
    assert (await browser.get(callback)).status_code == 200


async def test_nothing_in_the_tables_reveals_verifier_nonce_state_or_cookie(
    world: ConsentWorld,
) -> None:
    """Check 18, for consents: a reader of the tables cannot complete a request."""
    browser = await world.browser()
    url = await browser.open(await world.link())
    await browser.decide(url, ADA)
    rows = await world.database.fetch("SELECT * FROM consent_transactions")
    links = await world.database.fetch("SELECT * FROM connect_links")
    dump = b" ".join(
        value if isinstance(value, bytes) else str(value).encode()
        for row in (*rows, *links)
        for value in row.values()
    )
    asked = query_of(url)
    assert asked["nonce"].encode() not in dump
    assert asked["state"].split(".")[0].encode() not in dump
    assert browser.http.cookies[_SECURE].split(".")[0].encode() not in dump


async def test_check_15_a_release_without_confirmation_opens_no_link_that_needs_it(
    world: ConsentWorld,
) -> None:
    """While replicas of both releases run, the older ones must not bypass the confirmation."""
    plain = await world.link()
    confirmed = await world.link(confirm=True, return_to=RETURN_TO)
    older = Signer([SECRET_KEY], "links")
    assert older.verify(query_of(plain["url"])["link"], bound_to=("alice",))
    assert older.verify(query_of(confirmed["url"])["link"], bound_to=("alice",)) is None


async def test_check_15_a_release_without_confirmation_completes_no_request_that_needs_it(
    world: ConsentWorld,
) -> None:
    browser = await world.browser()
    await browser.open(await world.link(confirm=True, return_to=RETURN_TO))
    row = await world.database.fetchrow("SELECT * FROM consent_transactions")
    assert row is not None
    sealed = Sealed(row["secrets_key_id"], row["sealed_secrets"])
    place = ("consent_transactions", "secrets", row["state_hash"].hex(), str(row["link_id"]))
    sealer = Sealer(local_sealing_keys([SECRET_KEY]))
    with pytest.raises(UnsealingError):
        sealer.open(sealed, place=place)
    assert sealer.open(sealed, place=(*place, "confirm"))
