"""Pages and their headers: strict, self-contained, without any text of a request."""

import re
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from broker.consent.browser_routes import return_url
from broker.consent.consent_outcomes import ConsentOutcome, ConsentRefusal, NotConnected
from broker.consent.consent_pages import CATALOGUES, MESSAGE_PAGES, ConsentPages
from broker.wording.catalogue import ConsentWords
from broker.wording.consent_en import ENGLISH
from devstack.google_standin import Fault
from tests.consent.harness import LOOPBACK, MAIN, RETURN_TO, Browser, ConsentWorld, query_of
from tests.consent.samples import a_link
from tests.support.scopes import TASKS_READONLY

_PAGES: dict[str, Callable[[ConsentWorld, Browser], Awaitable[httpx2.Response]]] = {}


def _page(
    make: Callable[[ConsentWorld, Browser], Awaitable[httpx2.Response]],
) -> Callable[[ConsentWorld, Browser], Awaitable[httpx2.Response]]:
    _PAGES[make.__name__.strip("_")] = make
    return make


@_page
async def _interstitial(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.get((await world.link())["url"], accept="text/html")


@_page
async def _connected(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.connect(await world.link())


@_page
async def _connected_partly(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.connect(await world.link(scopes=[TASKS_READONLY]), untick=[TASKS_READONLY])


@_page
async def _denied(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.connect(await world.link(), deny=True)


@_page
async def _failed(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    world.google.faults.next("token", Fault.id_token("nonce"))
    return await browser.connect(await world.link())


@_page
async def _link_refused(_world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.get("/auth/google/authorize/alice?link=x")


@_page
async def _answer_unknown(_world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.get("/auth/google/callback?state=x&code=y")


@_page
async def _not_found(_world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.get("/auth/google/nothing")


@_page
async def _wrong_method(_world: ConsentWorld, browser: Browser) -> httpx2.Response:
    return await browser.http.post("/auth/google/callback")


@_page
async def _database_unavailable(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    link = await world.link()
    await world.database.close()
    return await browser.get(link["url"])


@_page
async def _defect(world: ConsentWorld, browser: Browser) -> httpx2.Response:
    link = await world.link()
    del world.link_tokens._signer
    return await browser.get(link["url"])


@pytest.mark.parametrize("kind", _PAGES)
async def test_check_13_every_page_has_strict_headers(world: ConsentWorld, kind: str) -> None:
    page = await _PAGES[kind](world, await world.browser())
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert "script-src" not in policy
    assert "unsafe-inline" not in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-language"] == "en"
    # A popup of the product needs its opener until the consent ends.
    opener = "unsafe-none" if kind == "interstitial" else "same-origin"
    assert page.headers["cross-origin-opener-policy"] == opener


@pytest.mark.parametrize("kind", _PAGES)
async def test_check_13_no_page_has_inline_code_or_an_external_resource(
    world: ConsentWorld, kind: str
) -> None:
    page = await _PAGES[kind](world, await world.browser())
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", page.text, re.IGNORECASE)
    loaded = re.findall(r'<(?:link|img|iframe|object)[^>]*(?:href|src)="([^"]+)"', page.text)
    assert loaded
    assert all(address.startswith("/auth/google/static/") for address in loaded)


@pytest.mark.parametrize("kind", _PAGES)
async def test_every_page_has_what_a_screen_reader_needs(world: ConsentWorld, kind: str) -> None:
    page = await _PAGES[kind](world, await world.browser())
    assert page.text.startswith("<!doctype html>\n<html lang=")
    assert page.text.count("<h1>") == 1
    assert page.text.count("<main") == 1
    assert re.search(r"<title>[^<]{5,}</title>", page.text)


async def test_the_style_sheet_is_kept_under_its_content_hash(world: ConsentWorld) -> None:
    browser = await world.browser()
    page = await browser.get("/auth/google/nothing")
    (address,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', page.text)
    sheet = await browser.get(address)
    assert sheet.headers["content-type"] == "text/css; charset=utf-8"
    assert sheet.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert sheet.headers["x-content-type-options"] == "nosniff"
    other = await browser.get(address[:-1] + "-")
    assert other.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.css", "..%2fpages.py", "%2e%2e/words.py", "style.css/"])
async def test_no_other_file_is_served(world: ConsentWorld, name: str) -> None:
    assert (await (await world.browser()).get(f"/auth/google/static/{name}")).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
async def test_other_methods_get_a_page_and_change_nothing(
    world: ConsentWorld, method: str
) -> None:
    browser, link = await world.browser(), await world.link()
    callback = await browser.decide(await browser.open(link))
    for url in (link["url"], callback) if method != "POST" else (callback,):
        page = await browser.http.request(method, url)
        assert page.status_code == 405
        assert "GET" in page.headers["allow"]
        assert "<h1>" in page.text
    assert (await browser.get(callback)).status_code == 200


def test_https_only_redirect_uris_bring_hsts() -> None:
    assert ConsentPages([MAIN]).error_page(404).headers["strict-transport-security"]
    assert "strict-transport-security" not in ConsentPages([MAIN, LOOPBACK]).error_page(404).headers


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 414, 418, 429, 431, 500, 502, 503])
def test_any_status_has_an_error_page(status: int) -> None:
    page = ConsentPages([MAIN]).error_page(status, request_id="id-1", headers={"Allow": "GET"})
    assert page.status_code == status
    assert (b"<code>id-1</code>" in page.body) == (status not in (403, 404, 405, 410, 429))
    assert page.headers["allow"] == "GET"


def test_an_email_is_escaped() -> None:
    page = ConsentPages([MAIN]).frame.page(
        "connected.html",
        200,
        words=ENGLISH,
        tone="good",
        email='<b>"@x',
        granted=["<i>"],
        not_granted=[],
        withdraw_url="https://google.example",
    )
    html = bytes(page.body).decode()
    assert "<b>" not in html
    assert "<i>" not in html
    assert "&lt;b&gt;&#34;@x" in html


@pytest.mark.parametrize("reason", MESSAGE_PAGES)
def test_every_reason_has_a_page_with_a_lead(reason: str) -> None:
    ended = NotConnected(a_link(), ConsentOutcome.FAILED, reason, None)
    page = ConsentPages([MAIN]).not_connected(ended, "id-1")
    assert ENGLISH.messages[reason].lead
    expected = 400 if reason == "link_withdrawn" else MESSAGE_PAGES[reason].status
    assert page.status_code == expected


def test_an_unknown_reason_has_the_page_of_an_unknown_error() -> None:
    pages = ConsentPages([MAIN])
    ended = NotConnected(a_link(), ConsentOutcome.FAILED, "new_reason", None)
    page = pages.not_connected(ended, "id-1")
    assert page.status_code == 400
    assert ENGLISH.messages["unknown_error"].title.encode() in page.body


@pytest.mark.parametrize("refusal", ConsentRefusal)
def test_every_refusal_is_a_client_error(refusal: ConsentRefusal) -> None:
    assert 400 <= ConsentPages([MAIN]).refused(refusal).status_code < 500


@pytest.mark.parametrize("reason", MESSAGE_PAGES)
def test_a_retry_is_offered_only_where_the_same_link_can_help(reason: str) -> None:
    ended = NotConnected(a_link(), ConsentOutcome.FAILED, reason, "https://b.example/again")
    page = ConsentPages([MAIN]).not_connected(ended)
    assert (b"https://b.example/again" in page.body) is MESSAGE_PAGES[reason].can_retry


_STATUSES = {
    200: ["access_denied"],
    403: ["link_elsewhere", "not_from_our_page"],
    410: ["link_expired", "link_used", "link_withdrawn"],
    503: [
        "client_refused",
        "google_unavailable",
        "internal_failure",
        "revocation_under_way",
        "server_error",
        "storage_unavailable",
        "temporarily_unavailable",
    ],
}


@pytest.mark.parametrize("reason", [key for key in MESSAGE_PAGES if not key.isdecimal()])
def test_the_status_of_each_reason(reason: str) -> None:
    expected = [status for status, reasons in _STATUSES.items() if reason in reasons]
    assert MESSAGE_PAGES[reason].status == (expected[0] if expected else 400)


@pytest.mark.parametrize("catalogue", CATALOGUES, ids=lambda words: words.language)
def test_each_catalogue_has_the_text_of_each_page(catalogue: ConsentWords) -> None:
    assert set(catalogue.messages) == set(MESSAGE_PAGES)


@pytest.mark.parametrize(
    ("return_to", "expected"),
    [
        ("https://p.example/", "https://p.example/?status=denied&link_id="),
        ("https://p.example", "https://p.example?status=denied&link_id="),
        ("https://p.example/?a=b&a=c", "https://p.example/?a=b&a=c&status=denied&link_id="),
        ("https://p.example/#/settings", "https://p.example/?status=denied&link_id="),
    ],
)
def test_return_to_keeps_its_query_and_fragment(return_to: str, expected: str) -> None:
    link = a_link(return_to=return_to)
    url = return_url(return_to, NotConnected(link, ConsentOutcome.DENIED, "access_denied", None))
    assert url.startswith(expected + str(link.id))
    assert url.partition("#")[2] == return_to.partition("#")[2]


@pytest.mark.parametrize(
    "listed", ["status=connected", "a=b&link_id=1&confirmation=2", "%73tatus=connected&", "status"]
)
def test_the_brokers_parameters_in_a_listed_return_to_are_dropped(
    listed: str,
) -> None:
    return_to = f"https://p.example/?{listed}"
    link = a_link(return_to=return_to)
    url = return_url(return_to, NotConnected(link, ConsentOutcome.DENIED, "access_denied", None))
    sent = parse_qs(urlsplit(url).query, keep_blank_values=True)
    expected = {"status": ["denied"], "link_id": [str(link.id)]}
    assert sent == expected | ({"a": ["b"]} if "a=b" in listed else {})


async def test_a_return_to_with_an_umlaut_is_encoded(world: ConsentWorld) -> None:
    response = ConsentPages([MAIN]).frame.redirect("https://p.example/grüße?status=connected")
    assert response.headers["location"] == "https://p.example/gr%C3%BC%C3%9Fe?status=connected"
    assert len(world.google.requests) == 0


async def test_redirects_keep_the_opener_of_the_products_popup(world: ConsentWorld) -> None:
    browser = await world.browser()
    link = await world.link(return_to=RETURN_TO)
    to_google = await browser.get(link["url"])
    back = await browser.get(await browser.decide(to_google.headers["location"]))
    assert query_of(back.headers["location"])["status"] == "connected"
    for redirect in (to_google, back):
        assert "cross-origin-opener-policy" not in redirect.headers
        assert redirect.headers["referrer-policy"] == "no-referrer"
