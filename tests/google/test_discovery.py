"""Google's endpoints: fetched, cached, kept during an outage."""

import asyncio
import copy
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from broker.google.discovery import Endpoints, read_endpoints
from broker.google.errors import GoogleUnavailable
from tests.google.scripted_google import DOCUMENT, ORIGIN, ScriptedGoogle, body

HOUR = timedelta(hours=1)
TEN_SECONDS = timedelta(seconds=10)
ENDPOINTS = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "revocation_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
]


def _document(**changes: Any) -> dict[str, Any]:
    return {name: v for name, v in (copy.copy(DOCUMENT) | changes).items() if v is not ...}


async def test_the_endpoints_are_read_from_the_document(google: ScriptedGoogle) -> None:
    assert await google.discovery.endpoints() == Endpoints(
        issuer="https://accounts.google.com",
        authorization=f"{ORIGIN}/authorize",
        token=f"{ORIGIN}/token",
        revocation=f"{ORIGIN}/revoke",
        jwks=f"{ORIGIN}/jwks",
        userinfo=f"{ORIGIN}/userinfo",
        iss_parameter_required=False,
        valid_issuers=frozenset({"https://accounts.google.com", "accounts.google.com"}),
    )


async def test_the_endpoints_are_fetched_once_an_hour(google: ScriptedGoogle) -> None:
    await google.discovery.endpoints()
    google.clock.advance(HOUR - timedelta(seconds=1))
    await google.discovery.endpoints()
    assert len(google.requests) == 1
    google.clock.advance(timedelta(seconds=1))
    await google.discovery.endpoints()
    assert len(google.requests) == 2


async def test_new_endpoints_are_used_after_an_hour(google: ScriptedGoogle) -> None:
    await google.discovery.endpoints()
    google.answers["/discovery"] = httpx2.Response(
        200, json=_document(token_endpoint=f"{ORIGIN}/token2")
    )
    google.clock.advance(HOUR)
    assert (await google.discovery.endpoints()).token == f"{ORIGIN}/token2"


async def test_old_endpoints_stay_in_use_while_google_is_unavailable(
    google: ScriptedGoogle,
) -> None:
    known = await google.discovery.endpoints()
    google.answers["/discovery"] = httpx2.Response(503)
    google.clock.advance(100 * HOUR)
    assert await google.discovery.endpoints() == known


async def test_stale_endpoints_are_fetched_again_every_half_minute(
    google: ScriptedGoogle,
) -> None:
    await google.discovery.endpoints()
    google.answers["/discovery"] = httpx2.ConnectError("refused")
    google.clock.advance(HOUR)
    for _ in range(60):
        await google.discovery.endpoints()
        google.clock.advance(timedelta(seconds=1))
    assert len(google.requests) == 1 + 2


async def test_without_endpoints_the_failure_is_raised(google: ScriptedGoogle) -> None:
    google.answers["/discovery"] = httpx2.ConnectError("refused")
    with pytest.raises(GoogleUnavailable) as caught:
        await google.discovery.endpoints()
    assert caught.value.reason == "connect"


async def test_a_failure_is_cached_so_that_google_gets_no_flood(google: ScriptedGoogle) -> None:
    google.answers["/discovery"] = httpx2.ConnectError("refused")
    for _ in range(5):
        with pytest.raises(GoogleUnavailable):
            await google.discovery.endpoints()
    assert len(google.requests) == 1


async def test_the_endpoints_are_fetched_again_two_seconds_after_a_failure(
    google: ScriptedGoogle,
) -> None:
    google.answers["/discovery"] = httpx2.Response(503)
    with pytest.raises(GoogleUnavailable):
        await google.discovery.endpoints()
    google.answers["/discovery"] = httpx2.Response(200, json=DOCUMENT)
    google.clock.advance(timedelta(seconds=2))
    assert (await google.discovery.endpoints()).token == f"{ORIGIN}/token"


async def test_a_clock_set_back_does_not_prolong_a_cached_failure(google: ScriptedGoogle) -> None:
    google.answers["/discovery"] = httpx2.Response(503)
    with pytest.raises(GoogleUnavailable):
        await google.discovery.endpoints()
    google.answers["/discovery"] = httpx2.Response(200, json=DOCUMENT)
    google.clock.advance(timedelta(minutes=-5))
    assert (await google.discovery.endpoints()).token == f"{ORIGIN}/token"


async def test_concurrent_callers_share_one_request(google: ScriptedGoogle) -> None:
    async def slow(request: httpx2.Request) -> httpx2.Response:
        for _ in range(10):
            await asyncio.sleep(0)
        return httpx2.Response(200, json=DOCUMENT)

    google.answers["/discovery"] = slow
    answers = await asyncio.gather(*(google.discovery.endpoints() for _ in range(50)))
    assert len(set(answers)) == 1
    assert len(google.requests) == 1


async def test_a_cancelled_caller_does_not_cancel_the_fetch_of_the_others(
    google: ScriptedGoogle,
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        asked.set()
        await go_on.wait()
        return httpx2.Response(200, json=DOCUMENT)

    google.answers["/discovery"] = slow
    first = asyncio.create_task(google.discovery.endpoints())
    await asked.wait()
    second = asyncio.create_task(google.discovery.endpoints())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert first.cancelled()
    go_on.set()
    assert (await second).token == f"{ORIGIN}/token"
    assert len(google.requests) == 1


async def test_during_a_fetch_other_callers_get_the_old_endpoints(google: ScriptedGoogle) -> None:
    known = await google.discovery.endpoints()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        asked.set()
        await go_on.wait()
        return httpx2.Response(200, json=DOCUMENT)

    google.answers["/discovery"] = slow
    google.clock.advance(HOUR)
    renewing = asyncio.create_task(google.discovery.endpoints())
    await asked.wait()
    async with asyncio.timeout(10):
        assert await google.discovery.endpoints() == known
    go_on.set()
    await renewing


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize(
    "url", ["http://google.test/x", "ftp://google.test/x", "", "/token", 7, ["https://a.test"]]
)
def test_an_insecure_endpoint_is_refused(name: str, url: object) -> None:
    with pytest.raises(GoogleUnavailable, match="bad_discovery"):
        read_endpoints(_document(**{name: url}))


@pytest.mark.parametrize("name", ["issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"])
def test_a_document_without_a_required_endpoint_is_refused(name: str) -> None:
    with pytest.raises(GoogleUnavailable, match="bad_discovery"):
        read_endpoints(_document(**{name: ...}))


@pytest.mark.parametrize("absent", [..., None])
def test_a_document_may_omit_revocation_and_userinfo(absent: object) -> None:
    endpoints = read_endpoints(_document(revocation_endpoint=absent, userinfo_endpoint=absent))
    assert (endpoints.revocation, endpoints.userinfo) == (None, None)


def test_plain_http_is_accepted_on_loopback() -> None:
    endpoints = read_endpoints(_document(token_endpoint="http://127.0.0.1:9000/token"))
    assert endpoints.token == "http://127.0.0.1:9000/token"


@pytest.mark.parametrize(
    "answer",
    [
        body("[]"),
        body("not json"),
        body("<html>", "text/html"),
        httpx2.Response(404),
        httpx2.Response(302, headers={"Location": f"{ORIGIN}/elsewhere"}),
        httpx2.Response(200, json=_document(token_endpoint="http://evil.test/token")),
    ],
)
async def test_a_bad_document_makes_google_unavailable(
    google: ScriptedGoogle, answer: httpx2.Response
) -> None:
    google.answers["/discovery"] = answer
    with pytest.raises(GoogleUnavailable):
        await google.discovery.ping()


async def test_a_ping_detects_an_outage_within_ten_seconds(
    google: ScriptedGoogle,
) -> None:
    await google.discovery.ping()
    google.answers["/discovery"] = httpx2.Response(503)
    google.clock.advance(TEN_SECONDS)
    with pytest.raises(GoogleUnavailable, match="http_503"):
        await google.discovery.ping()


async def test_a_ping_detects_a_recovery_within_ten_seconds(
    google: ScriptedGoogle,
) -> None:
    google.answers["/discovery"] = httpx2.Response(503)
    with pytest.raises(GoogleUnavailable):
        await google.discovery.ping()
    google.answers["/discovery"] = httpx2.Response(200, json=DOCUMENT)
    google.clock.advance(TEN_SECONDS)
    await google.discovery.ping()


@pytest.mark.parametrize("status", [200, 503])
async def test_pings_send_one_request_in_ten_seconds(google: ScriptedGoogle, status: int) -> None:
    google.answers["/discovery"] = httpx2.Response(status, json=DOCUMENT)
    for _ in range(30):
        with suppress(GoogleUnavailable):
            await google.discovery.ping()
        google.clock.advance(timedelta(seconds=1))
    assert len(google.requests) == 3


async def test_a_failed_ping_keeps_the_cached_endpoints(
    google: ScriptedGoogle,
) -> None:
    known = await google.discovery.endpoints()
    google.answers["/discovery"] = httpx2.ConnectError("refused")
    google.clock.advance(TEN_SECONDS)
    with pytest.raises(GoogleUnavailable):
        await google.discovery.ping()
    assert await google.discovery.endpoints() == known


async def test_a_hanging_ping_does_not_delay_the_endpoints(
    google: ScriptedGoogle,
) -> None:
    known = await google.discovery.endpoints()
    asked = asyncio.Event()

    async def hang(request: httpx2.Request) -> httpx2.Response:
        asked.set()
        return await asyncio.Future()

    google.answers["/discovery"] = hang
    google.clock.advance(HOUR)
    ping = asyncio.create_task(google.discovery.ping())
    await asked.wait()
    async with asyncio.timeout(10):
        assert await google.discovery.endpoints() == known
    ping.cancel()


def test_another_issuer_has_only_its_own_name() -> None:
    endpoints = read_endpoints(_document(issuer="http://localhost:9000"))
    assert endpoints.valid_issuers == {"http://localhost:9000"}


@pytest.mark.parametrize("name", ["https://accounts.google.com", "accounts.google.com"])
def test_a_callback_may_carry_either_of_googles_issuer_names(name: str) -> None:
    assert read_endpoints(DOCUMENT).accepts_issuer(name)


@pytest.mark.parametrize(
    "name", ["", "https://accounts.google.com/", "https://evil.test", "https://accounts.google.co"]
)
def test_a_callback_from_another_issuer_is_not_accepted(name: str) -> None:
    assert not read_endpoints(DOCUMENT).accepts_issuer(name)


@pytest.mark.parametrize(("advertised", "accepted"), [(True, False), (False, True), (..., True)])
def test_a_callback_must_carry_iss_only_if_discovery_says_so(
    advertised: object, accepted: bool
) -> None:
    document = _document(authorization_response_iss_parameter_supported=advertised)
    assert read_endpoints(document).accepts_issuer(None) is accepted
