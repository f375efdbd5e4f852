"""Checks 13, 14, 17, 22, 23, 25, 27, 28, 29 and 32 on every route that openapi.yaml describes.

A new route there is tested here once its call is described.
"""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx2
import pytest

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from tests.exchange.harness import ASSERTION_TYPE, GRANT_TYPE, TYPE
from tests.openapi.description import PLACES, listener_of, operations
from tests.security.test_security_events import claims, post, signed
from tests.support.clock import ManualClock
from tests.support.connections_page import connections_link, forms, open_connections, send_form
from tests.support.probes import assert_hidden, audited, own_log
from tests.support.scopes import CALENDAR_READONLY
from tests.support.workloads import IssuerWorld
from tests.support.world import CLIENT_SECRET, RETURN_TO, World, open_world, stanza

BODIES: Mapping[str, Mapping[str, Any]] = {
    "/v1/users/{user_id}/connect-links": {"json": {"scopes": [CALENDAR_READONLY]}},
    "/v1/users/{user_id}/connections-links": {"json": {}},
    "/v1/connect-links/{id}/confirm": {"json": {"code": "x"}},
    "/v1/tokens": {"json": {"requests": [{"user_id": "user-1"}]}},
    "/oauth/token": {
        "data": {
            "grant_type": GRANT_TYPE,
            "subject_token": "x.y.z",
            "subject_token_type": f"{TYPE}jwt",
        }
    },
}
INTERNAL = [(method, path) for path, method, _ in operations() if listener_of(path) == "internal"]
EVERY = [(listener_of(path), method, path) for path, method, _ in operations()]
IMMUTABLE = "/auth/google/static/{name}"


def address(path: str) -> str:
    return path.format(**PLACES, name="style.css")


async def call(
    world: World, method: str, path: str, headers: Mapping[str, str], **more: Any
) -> httpx2.Response:
    """Build a well-formed request of the callers' API."""
    body = {**BODIES.get(path, {}), **more}
    return await world.internal.request(method, address(path), headers=dict(headers), **body)


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def test_each_body_belongs_to_a_route() -> None:
    assert set(BODIES) <= {path for _, path in INTERNAL}
    assert len(INTERNAL) >= 8


@dataclass(frozen=True)
class Credential:
    """A credential that identifies no caller."""

    name: str
    headers: Callable[[IssuerWorld], Mapping[str, str]]


def _now(issuer_world: IssuerWorld) -> int:
    return int(issuer_world.world.clock.epoch())


INVALID_CREDENTIALS = [
    Credential("none", lambda _: {}),
    Credential("unknown key", lambda _: bearer(new_key())),
    Credential("basic", lambda t: {"Authorization": f"Basic {t.world.key}"}),
    Credential("expired jwt", lambda t: bearer(t.issuer.mint(exp=_now(t) - 1))),
    Credential("another audience", lambda t: bearer(t.issuer.mint(aud="another"))),
    Credential("another subject", lambda t: bearer(t.issuer.mint(sub="another"))),
    Credential("a user's jwt", lambda t: bearer(t.users_jwt())),
    Credential("a token of Google", lambda t: bearer(t.world.standin.issued.access_tokens[0])),
]


@pytest.mark.parametrize("credential", INVALID_CREDENTIALS, ids=lambda each: each.name)
async def test_check_23_each_route_refuses_an_invalid_credential(
    issuer_world: IssuerWorld, credential: Credential
) -> None:
    asked = len(issuer_world.world.standin.requests)
    before = await issuer_world.world.sql("SELECT * FROM grants")
    for method, path in INTERNAL:
        answer = await call(issuer_world.world, method, path, credential.headers(issuer_world))
        assert answer.status_code == 401, (method, path, answer.text)
        assert answer.json()["code"] == "unauthenticated"
        assert answer.headers["www-authenticate"].split()[0] in ("Bearer", "Basic")
        assert "access_token" not in answer.text
    assert await issuer_world.world.sql("SELECT * FROM grants") == before
    assert len(issuer_world.world.standin.requests) == asked


async def test_check_23_an_expired_jwt_is_refused_although_it_was_cached(
    issuer_world: IssuerWorld,
) -> None:
    token = issuer_world.issuer.mint(exp=_now(issuer_world) + 60)
    assert [await issuer_world.status_for(token) for _ in range(3)] == [200] * 3
    issuer_world.world.clock.advance(timedelta(seconds=60))
    assert await issuer_world.status_for(token) == 401


FORGED = {
    "X-Forwarded-User": "calendar-sync",
    "X-Remote-User": "calendar-sync",
    "X-Client-Id": "calendar-sync",
    "X-Forwarded-Client-Cert": "URI=spiffe://example/calendar-sync",
    "X-Original-URL": "/v1/users/user-2/token",
    "X-HTTP-Method-Override": "GET",
    "Forwarded": "for=127.0.0.1;by=calendar-sync",
    "From": "calendar-sync",
    "Cookie": "caller=calendar-sync",
}


async def test_check_25_no_header_names_the_caller_on_any_route(issuer_world: IssuerWorld) -> None:
    narrow = new_key()
    await issuer_world.world.rewrite_callers(
        {**issuer_world.callers(), "reader": stanza(narrow, can=["tokens:read"], users=["user-2"])},
        issuer_world.issuers(),
    )
    for method, path in INTERNAL:
        answer = await call(issuer_world.world, method, path, FORGED)
        assert answer.status_code == 401, (method, path)
        answer = await call(issuer_world.world, method, path, {**bearer(narrow), **FORGED})
        if path == "/v1/tokens":
            assert answer.json()["results"][0]["error"]["code"] == "forbidden"
        elif path == "/oauth/token":
            assert answer.json()["code"] == "subject_token_refused"
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


async def test_check_27_each_route_refuses_and_audits_what_a_policy_does_not_allow(
    issuer_world: IssuerWorld,
) -> None:
    world, mute, reads, elsewhere = issuer_world.world, new_key(), new_key(), new_key()
    await world.rewrite_callers(
        {
            **issuer_world.callers(),
            "reads": stanza(reads, can=["grants:read"]),
            "mute": stanza(mute, can=["grants:revoke"]),
            "elsewhere": stanza(elsewhere, users=["team-*"]),
        },
        issuer_world.issuers(),
    )
    asked = len(world.standin.requests)
    for method, path in INTERNAL:
        lacking = mute if method == "GET" else reads
        answer = await call(world, method, path, bearer(lacking))
        if path == "/oauth/token":
            # RFC 6749 §5.2 has another code for it.
            assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")
        else:
            assert answer.status_code == 403, (method, path)
        assert answer.json()["code"] == "forbidden", (method, path)
    assert len(await audited(world, "request_refused", "forbidden", count=len(INTERNAL))) == len(
        INTERNAL
    )
    with_user = [(method, path) for method, path in INTERNAL if "{user_id}" in path]
    for method, path in with_user:
        answer = await call(world, method, path, bearer(elsewhere))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
    batch = await call(world, "POST", "/v1/tokens", bearer(elsewhere))
    assert batch.json()["results"][0]["error"]["code"] == "forbidden"
    subject = {
        "data": {**BODIES["/oauth/token"]["data"], "subject_token": issuer_world.users_jwt()}
    }
    exchanged = await call(world, "POST", "/oauth/token", bearer(elsewhere), **subject)
    assert (exchanged.status_code, exchanged.json()["code"]) == (400, "forbidden")
    expected = len(INTERNAL) + len(with_user) + 2
    refusals = await audited(world, "request_refused", "forbidden", count=expected)
    assert {row["caller"] for row in refusals} == {"mute", "reads", "elsewhere"}
    assert len(world.standin.requests) == asked


@pytest.mark.parametrize(("listener", "method", "path"), EVERY)
async def test_check_28_each_answer_of_each_listener_is_no_store(
    world: World, listener: str, method: str, path: str
) -> None:
    client = getattr(world, listener)
    answers = [
        await client.request(method, address(path), headers=headers, **BODIES.get(path, {}))
        for headers in ({}, world.authorization)
    ]
    answers += [
        await client.request("PATCH", address(path)),
        await client.request(method, address(path) + "/nowhere"),
        await client.request(method, address(path) + "?x=%ff&x=1", headers=world.authorization),
    ]
    if path == IMMUTABLE:
        answers = answers[2:4]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store", (answer.status_code, answer.url)


URL_PARAMETERS = (
    "access_token", "token", "key", "api_key", "authorization", "bearer", "jwt", "client_secret",
    "client_assertion", "code", "subject_token",
)  # fmt: skip


@pytest.mark.parametrize("name", URL_PARAMETERS)
async def test_check_29_no_route_accepts_a_credential_in_the_url(
    issuer_world: IssuerWorld, name: str
) -> None:
    for credential in (issuer_world.world.key, issuer_world.issuer.mint()):
        for method, path in INTERNAL:
            for headers in ({}, issuer_world.world.authorization):
                answer = await call(
                    issuer_world.world, method, path, headers, params={name: credential}
                )
                assert answer.status_code in ((400,) if headers else (400, 401)), (method, path)
                assert_hidden(credential, answer.text)
    assert len(await issuer_world.world.grants()) == 1


async def test_check_29_a_credential_in_the_url_and_the_form_is_refused(
    issuer_world: IssuerWorld,
) -> None:
    data = {
        **BODIES["/oauth/token"]["data"],
        "subject_token": issuer_world.users_jwt(),
        "client_id": "calendar-sync",
    }
    secret = {"client_secret": issuer_world.world.key}
    in_form = await issuer_world.world.internal.post("/oauth/token", data={**data, **secret})
    assert in_form.status_code == 200
    for body in (data, {**data, **secret}):
        answer = await issuer_world.world.internal.post("/oauth/token", params=secret, data=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assertion = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": "x"}
    answer = await issuer_world.world.internal.post("/oauth/token", params=assertion, data=data)
    assert answer.status_code == 400


BODY_KINDS = ("application/json", "application/x-www-form-urlencoded", "application/secevent+jwt")


class Endless:
    """A body that never ends; little of it should be read."""

    def __init__(self) -> None:
        self.sent = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        while self.sent < 50_000_000:
            self.sent += 65_536
            yield b"x" * 65_536


@pytest.mark.parametrize(("listener", "method", "path"), EVERY)
async def test_check_32_each_route_refuses_long_input_immediately(
    world: World, listener: str, method: str, path: str
) -> None:
    client, began = getattr(world, listener), perf_counter()
    answers = [await client.request(method, address(path) + "?a=" + "x" * 60_000)]
    if "{" in path and path != IMMUTABLE:
        places = dict.fromkeys(PLACES, "x" * 20_000)
        answers.append(
            await client.request(method, path.format(**places), headers=world.authorization)
        )
    if method == "POST":
        for kind in BODY_KINDS:
            endless = Endless()
            answer = await client.post(
                address(path),
                content=endless.chunks(),
                headers={**world.authorization, "Content-Type": kind},
            )
            answers.append(answer)
            assert endless.sent < 2_000_000, (path, kind)
        answers.append(
            await client.post(
                address(path),
                content=b"{}",
                headers={**world.authorization, "Content-Length": "9" * 30},
            )
        )
    assert perf_counter() - began < 30
    for answer in answers:
        is_plain = listener == "ops" or path in (IMMUTABLE, "/connections/closed")
        assert answer.status_code // 100 == 4 or (is_plain and answer.status_code in (200, 503)), (
            answer.status_code,
            str(answer.url)[:80],
        )
        assert len(answer.content) < 20_000 or is_plain


@pytest.mark.parametrize(
    ("listener", "path"), [(listener, path) for listener, method, path in EVERY if method == "POST"]
)
async def test_an_interrupted_body_is_not_an_error(
    world: World, caplog: pytest.LogCaptureFixture, listener: str, path: str
) -> None:
    """Clients may disconnect in the middle of a body: no traceback, and no alert."""
    kind = "application/json" if listener == "internal" else "application/x-www-form-urlencoded"
    kind = kind if path != "/oauth/token" else "application/x-www-form-urlencoded"
    target = address(path).partition("?")[0]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": target,
        "raw_path": target.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1"),
            (b"content-type", kind.encode()),
            (b"authorization", world.authorization["Authorization"].encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    incoming: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.disconnect"},
    ]
    answered: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return incoming.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        answered.append(message)

    app = world.broker.public if listener == "public" else world.broker.internal
    await app(scope, receive, send)
    assert answered[0]["status"] < 500
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def on_https(
    tmp_path: Path, database_url: str, standin: GoogleStandin, clock: ManualClock
) -> AsyncIterator[World]:
    """A broker whose public listener is behind https, as in production."""
    changes = {"GOOGLE_REDIRECT_URI": "https://app.example.com/auth/google/callback"}
    opened = open_world(tmp_path, database_url, standin, clock, changes=changes)
    async with opened as world:
        yield world


async def test_check_13_each_cookie_is_bound_to_its_https_host(on_https: World) -> None:
    link = (await on_https.create_link("user-1")).json()["url"]
    visit = await connections_link(on_https)
    human = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "User-Agent": "Mozilla/5.0"}
    names = set()
    for url, headers in ((link, {}), (link, human), (visit, {}), (visit, human)):
        async with on_https.browser("https://app.example.com") as browser:
            answer = await browser.get(url, headers=headers)
            for cookie in answer.headers.get_list("set-cookie"):
                name, *attributes = cookie.lower().split("; ")
                names.add(name.partition("=")[0])
                assert {"secure", "httponly", "samesite=lax", "path=/"} <= set(attributes)
                assert not [each for each in attributes if each.startswith("domain")]
            assert "max-age" in answer.headers["strict-transport-security"]
    assert len(names) == 2
    assert all(name.startswith("__host-") for name in names)


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for listener, method, path in EVERY if listener == "public"],
)
async def test_check_13_each_public_answer_has_strict_headers(
    world: World, method: str, path: str
) -> None:
    human = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "User-Agent": "Mozilla/5.0"}
    for target in (address(path), address(path) + "/nowhere", address(path) + "?link=x&state=y"):
        for verb in (method, "PUT"):
            answer = await world.public.request(verb, target, headers=human)
            assert answer.headers["x-content-type-options"] == "nosniff", target
            if answer.headers.get("content-type", "").startswith("text/html"):
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
                assert "default-src 'none'" in answer.headers["content-security-policy"]
                assert answer.headers["referrer-policy"] == "no-referrer"
                assert "<script" not in answer.text
                assert "http://" not in answer.text.replace("http://www.w3.org", "")


async def test_check_14_each_form_of_the_connections_page_is_answered_with_303(
    world: World,
) -> None:
    await world.connect()
    async with world.browser() as browser:
        page = await open_connections(world, browser)
        ids = [row["id"] for row in await world.sql("SELECT id FROM grants")]
        asking = await browser.get(f"/connections/withdraw?grant={ids[0]}")
        (withdraw,) = forms(asking, "/connections/withdraw")
        assert (await send_form(browser, "/connections/withdraw", withdraw)).status_code == 303
        page = await browser.get("/connections")
        (connect,) = forms(page, "/connections/connect")
        assert (await send_form(browser, "/connections/connect", connect)).status_code == 303
        (leave,) = forms(page, "/connections/leave")
        assert (await send_form(browser, "/connections/leave", leave)).status_code == 303


async def test_check_17_check_22_confirmation_exchange_batch_page_and_events_reveal_no_secret(
    issuer_world: IssuerWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """Valid and invalid requests to confirmation, exchange, batch, the user's page and events."""
    caplog.set_level(logging.DEBUG, logger="broker")
    world, seen = issuer_world.world, list[httpx2.Response]()
    subject, wrong = issuer_world.users_jwt(), issuer_world.users_jwt(aud="another")
    consent = await world.connect_pending("user-2")
    visit = await connections_link(world)
    event = signed(world, claims(world, aud="another"))
    for token in (subject, wrong):
        data = {**BODIES["/oauth/token"]["data"], "subject_token": token}
        seen.append(await call(world, "POST", "/oauth/token", world.authorization, data=data))
    seen.append(await call(world, "POST", "/v1/tokens", world.authorization))
    handed_out = {seen[0].json()["access_token"]}
    seen += [await world.confirm(consent, code="x" * 43), await world.confirm(consent)]
    seen += [await post(world, event), await post(world, event + "x")]
    async with world.browser() as browser:
        seen += [await browser.get(visit), await browser.get("/connections")]
        cookies = list(browser.cookies.values())
    places = [
        own_log(caplog),
        (await world.ops.get("/metrics")).text,
        (await world.ops.get("/readyz")).text,
        str(await world.sql("SELECT * FROM audit_events")),
    ]
    google = set(world.standin.issued.all()) - handed_out
    answers = [answer.text for answer in seen]
    for secret in (*google, CLIENT_SECRET, world.key, world.settings.secret_keys[0].reveal()):
        assert_hidden(secret, *places, *answers)
    for secret in (subject, wrong, consent.confirmation, visit.partition("link=")[2], *cookies):
        assert_hidden(secret, *places)
    assert_hidden(event, *places, *answers)
    for token in handed_out:
        assert_hidden(token, *places)
    assert "security event" in places[0] or "refused" in places[0]


async def test_check_17_redirects_carry_no_unneeded_data(world: World) -> None:
    consent = await world.connect(return_to=RETURN_TO)
    location = consent.response.headers["location"]
    for secret in world.standin.issued.all():
        assert_hidden(secret, location)
    assert location == f"{RETURN_TO}?status=connected&link_id={consent.link_id}"
