"""Links: one-time, short-lived, for one user, in one browser."""

import asyncio
from datetime import timedelta
from urllib.parse import quote

import pytest

from broker.consent.links import LINK_LIFE, Link, LinkTokens
from broker.consent.transactions import TRANSACTION_LIFE
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
    """Check 14, for GET too: one status for every redirect."""
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


async def test_a_cookie_of_no_signature_of_ours_is_replaced(world: ConsentWorld) -> None:
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


async def test_a_link_given_twice_is_refused(world: ConsentWorld) -> None:
    link = await world.link()
    token = query_of(link["url"])["link"]
    page = await (await world.browser()).get(f"{link['url']}&link={token}")
    assert page.status_code == 400


async def test_an_expired_link_says_so(world: ConsentWorld) -> None:
    link = await world.link()
    world.clock.advance(LINK_LIFE)
    page = await (await world.browser()).get(link["url"])
    assert page.status_code == 410
    assert "This link has expired" in page.text
    assert await _rows(world, "consent_transactions") == 0


async def test_a_link_works_until_it_expires(world: ConsentWorld) -> None:
    link = await world.link()
    world.clock.advance(LINK_LIFE - timedelta(seconds=1))
    await (await world.browser()).open(link)


async def test_a_used_link_says_so_in_any_browser(world: ConsentWorld) -> None:
    browser, link = await world.browser(), await world.link()
    await browser.connect(link)
    for again in (browser, await world.browser()):
        page = await again.get(link["url"])
        assert page.status_code == 410
        assert "This link has been used already" in page.text
    assert len(await world.grants_of()) == 1
    assert (await world.audited())[-2:] == [("consent", "refused:link_used")] * 2


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
    # The first browser is not disturbed by that.
    assert (await first.connect(link)).headers["location"].startswith(RETURN_TO)


async def test_of_two_browsers_at_once_one_gets_the_link(world: ConsentWorld) -> None:
    link = await world.link()
    browsers = [await world.browser() for _ in range(6)]
    answers = await asyncio.gather(*(browser.get(link["url"]) for browser in browsers))
    assert sorted(answer.status_code for answer in answers) == [303] + [403] * 5


async def test_opening_again_in_the_same_browser_voids_the_trip_before(
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


async def test_a_head_request_opens_nothing_and_ends_no_trip(world: ConsentWorld) -> None:
    link, browser = await world.link(), await world.browser()
    answer = await (await world.browser()).http.head(link["url"])
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    callback = await browser.decide(await browser.open(link))
    assert (await browser.http.head(callback)).status_code == 200
    assert (await browser.get(callback)).status_code == 200


async def test_with_google_away_a_link_is_not_bound(world: ConsentWorld) -> None:
    link = await world.link()
    world.google.stop()
    try:
        page = await (await world.browser()).get(link["url"])
    finally:
        world.google.start()
    assert page.status_code == 503
    assert "Google can&#39;t be reached just now" in page.text
    assert link["url"].replace("&", "&amp;") in page.text  # “Try again”
    world.clock.advance(timedelta(seconds=10))
    await (await world.browser()).open(link)


async def test_links_signed_with_an_older_key_still_work(world: ConsentWorld) -> None:
    link = await world.link()
    newer = Secret("a newer secret key for tests, 32 bytes or more")
    stored = await world.store.find((await _only_link(world)).id)
    assert stored is not None
    both = LinkTokens(Signer([newer, SECRET_KEY], "links"))
    token = query_of(link["url"])["link"]
    now = world.clock.now()
    assert both.read(token, user_id="alice", now=now) == stored.id
    assert both.issue(stored) != token
    only_new = LinkTokens(Signer([newer], "links"))
    assert only_new.read(token, user_id="alice", now=now) != stored.id


async def _only_link(world: ConsentWorld) -> Link:
    link = await world.store.find(await world.database.fetchval("SELECT id FROM connect_links"))
    assert link is not None
    return link


async def test_over_links_and_trips_are_purged(world: ConsentWorld) -> None:
    browser = await world.browser()
    await browser.open(await world.link())
    await world.link()
    world.clock.advance(max(LINK_LIFE, TRANSACTION_LIFE))
    await world.flow.purge()
    assert await _rows(world, "consent_transactions") == 0
    assert await _rows(world, "connect_links") == 2
    world.clock.advance(timedelta(hours=1))
    await world.flow.purge()
    assert await _rows(world, "connect_links") == 0


async def test_a_purged_link_says_that_it_expired(world: ConsentWorld) -> None:
    link = await world.link()
    await world.database.execute("DELETE FROM connect_links")
    page = await (await world.browser()).get(link["url"])
    assert page.status_code == 410


@pytest.mark.parametrize("path", ["%00", "%ff", "a" * 256, "%F0%9F%98"], ids=ascii)
async def test_a_user_id_that_is_none_is_refused(world: ConsentWorld, path: str) -> None:
    token = query_of((await world.link())["url"])["link"]
    page = await (await world.browser()).get(f"/auth/google/authorize/{path}?link={token}")
    assert page.status_code == 400
    assert "This link does not work" in page.text


async def test_an_endless_query_is_refused_unread(world: ConsentWorld) -> None:
    link = await world.link()
    browser = await world.browser()
    assert (await browser.get(f"{link['url']}&x={'y' * 9000}")).status_code == 400
    callback = await browser.decide(await browser.open(link))
    assert (await browser.get(f"{callback}&x={'y' * 9000}")).status_code == 400
    assert (await browser.get(callback)).status_code == 200


async def test_nothing_in_the_tables_reveals_verifier_nonce_state_or_cookie(
    world: ConsentWorld,
) -> None:
    """Check 18, as far as consent goes: whoever reads the tables can't finish a trip."""
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


async def test_check_15_a_release_that_knows_no_confirmation_opens_no_such_link(
    world: ConsentWorld,
) -> None:
    """While replicas of both run, the older ones must not let such a consent take effect."""
    plain = await world.link()
    confirmed = await world.link(confirm=True, return_to=RETURN_TO)
    older = Signer([SECRET_KEY], "links")
    assert older.verify(query_of(plain["url"])["link"], bound_to=("alice",))
    assert older.verify(query_of(confirmed["url"])["link"], bound_to=("alice",)) is None


async def test_check_15_nor_does_it_take_such_a_trip_back(world: ConsentWorld) -> None:
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
