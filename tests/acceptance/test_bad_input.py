"""Bad input: each kind gets a clear refusal, and changes nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from broker.callers.keys import hash_key
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen
from devstack.openbao import OpenBao
from devstack.postgres import EmbeddedPostgres
from tests.support.openbao import VaultPlace
from tests.support.processes import Ports, run_broker
from tests.support.scopes import CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import ADA, World

Snapshot = dict[str, list[Any]]


async def snapshot(world: World) -> Snapshot:
    """Return every row of every table, except the audit trail's, which records refusals."""
    tables = await world.sql(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'public' AND table_name NOT LIKE 'audit\\_%' ORDER BY 1"
    )
    assert len(tables) > 4
    return {
        row["table_name"]: await world.sql(
            f"SELECT t::text FROM {row['table_name']} t ORDER BY t::text"
        )
        for row in tables
    }


@asynccontextmanager
async def nothing_changes(world: World) -> AsyncIterator[None]:
    before = await snapshot(world)
    yield
    assert await snapshot(world) == before


def assert_page(answer: httpx2.Response, status: int, words: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "location" not in answer.headers
    assert words in answer.text.replace("&#39;", "'")


def assert_problem(answer: httpx2.Response, status: int, code: str, **members: Any) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    assert {name: body.get(name) for name in members} == members


async def test_an_unknown_state(world: World) -> None:
    async with world.browser() as browser, nothing_changes(world):
        answer = await browser.get("/auth/google/callback?state=made-up&code=4/made-up")
    assert_page(answer, 400, "We can't tell which connection this belongs to")


async def test_a_foreign_state(world: World) -> None:
    async with world.browser() as victim, world.browser() as attacker:
        callback = world.standin.consent(await world.start_consent(victim), ADA)
        await world.start_consent(attacker, "user-2")
        async with nothing_changes(world):
            answer = await attacker.get(callback)
        assert_page(answer, 400, "We can't tell which connection this belongs to")
        assert (await victim.get(callback)).status_code == 200


async def test_a_replayed_callback(world: World) -> None:
    async with world.browser() as browser:
        callback = world.standin.consent(await world.start_consent(browser), ADA)
        assert (await browser.get(callback)).status_code == 200
        async with nothing_changes(world):
            answer = await browser.get(callback)
    assert_page(answer, 400, "We can't tell which connection this belongs to")
    assert world.standin.requests.count("token") == 1


async def test_access_denied(world: World) -> None:
    await world.connect()
    before = await world.grants()
    consent = await world.connect(deny=True)
    assert_page(consent.response, 200, "You did not allow the connection")
    assert await world.grants() == before


async def test_a_tampered_link(world: World) -> None:
    url = (await world.create_link("user-1")).json()["url"]
    async with world.browser() as browser, nothing_changes(world):
        answer = await browser.get(url[:-1] + ("A" if url[-1] != "A" else "B"))
    assert_page(answer, 400, "This link does not work")


async def test_an_expired_link(world: World) -> None:
    url = (await world.create_link("user-1")).json()["url"]
    world.clock.advance(timedelta(minutes=10))
    async with world.browser() as browser, nothing_changes(world):
        answer = await browser.get(url)
    assert_page(answer, 410, "This link has expired")


async def test_the_wrong_user_in_the_path(world: World) -> None:
    url = (await world.create_link("user-1")).json()["url"]
    async with world.browser() as browser, nothing_changes(world):
        answer = await browser.get(url.replace("/user-1?", "/user-2?"))
    assert_page(answer, 400, "This link does not work")


CALLS = [
    ("GET", "token", None),
    ("GET", "grants", None),
    ("DELETE", "grants", None),
    ("DELETE", "grants/1", None),
    ("POST", "connect-links", {"scopes": [CALENDAR_READONLY]}),
]


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_an_unknown_caller(world: World, method: str, path: str, body: Any) -> None:
    await world.connect()
    unknown = {"Authorization": "Bearer tb_no-caller-has-this-key"}
    url = f"/v1/users/user-1/{path}"
    async with nothing_changes(world):
        answer = await world.internal.request(method, url, json=body, headers=unknown)
    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_scope_off_the_callers_list(world: World) -> None:
    await world.connect()
    seen = len(world.standin.requests)
    async with nothing_changes(world):
        assert_problem(await world.token(scope=GMAIL_READONLY), 403, "scope_not_allowed")
        link = await world.create_link("user-1", scopes=[GMAIL_READONLY])
        assert_problem(link, 403, "scope_not_allowed", scopes=[GMAIL_READONLY])
    assert len(world.standin.requests) == seen


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", '{"scopes": NaN}', '{"scopes": ["a"', '{"a": 1, "a": 2}', "\0"]
)
async def test_malformed_json(world: World, body: str) -> None:
    headers = {**world.authorization, "Content-Type": "application/json"}
    async with nothing_changes(world):
        answer = await world.internal.post(
            "/v1/users/user-1/connect-links", content=body, headers=headers
        )
    assert_problem(answer, 400, "invalid_request", field="body")


USER_IDS = [
    "a\nb", "\x00", "a\x7f", "\x1f", "é\x85", "x" * 256, "é" * 256,
]  # fmt: skip


@pytest.mark.parametrize("user_id", USER_IDS)
async def test_an_invalid_user_id(world: World, user_id: str) -> None:
    answers = []
    async with nothing_changes(world):
        for method, path, body in CALLS:
            url = f"/v1/users/{quote(user_id, safe='')}/{path}"
            answers.append(
                await world.internal.request(method, url, json=body, headers=world.authorization)
            )
    for answer in answers:
        assert_problem(answer, 400, "invalid_request", field="user_id")


@pytest.mark.parametrize("user_id", USER_IDS)
async def test_an_invalid_user_id_in_a_browser(world: World, user_id: str) -> None:
    url = (await world.create_link("user-1")).json()["url"]
    async with world.browser() as browser, nothing_changes(world):
        answer = await browser.get(url.replace("/user-1?", f"/{quote(user_id, safe='')}?"))
    assert_page(answer, 400, "This link does not work")


async def test_the_longest_user_id_is_valid(world: World) -> None:
    user_id = "é" * 255
    await world.connect(user_id)
    assert (await world.token(user_id)).status_code == 200


@asynccontextmanager
async def on_sockets(world: World) -> AsyncIterator[dict[str, str]]:
    """Serve the listeners on real ports of loopback, with all limits of the real server."""
    apps = {"internal": world.broker.internal, "public": world.broker.public}
    bound = {name: bind(Listen("127.0.0.1", 0)) for name in apps}
    listeners = Listeners([(apps[name], bound[name]) for name in apps])
    await listeners.start()
    yield {name: f"http://127.0.0.1:{port.getsockname()[1]}" for name, port in bound.items()}
    await listeners.stop()


async def test_a_body_of_one_megabyte(world: World) -> None:
    async with on_sockets(world) as urls, nothing_changes(world), httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{urls['internal']}/v1/users/user-1/connect-links",
            json={"scopes": ["x" * 1_000_000]},
            headers=world.authorization,
        )
    assert_problem(answer, 413, "invalid_request", field="body")


@pytest.mark.parametrize("listener", ["internal", "public"])
async def test_a_header_of_one_megabyte(world: World, listener: str) -> None:
    async with on_sockets(world) as urls, nothing_changes(world), httpx2.AsyncClient() as client:
        answer = await client.get(
            f"{urls[listener]}/v1/users/user-1/token",
            headers={**world.authorization, "X-Long": "x" * 1_000_000},
        )
    assert_problem(answer, 431, "invalid_request", field="headers")


async def test_a_callers_file_with_a_typo_while_running(world: World) -> None:
    good = world.callers_file.read_text(encoding="utf-8")
    await world.connect()
    world.callers_file.write_text(good.replace("tokens:read", "token:read"), encoding="utf-8")
    async with asyncio.timeout(10):
        while True:
            if await world.metric("broker_callers_file_up") == 0:
                break
            await asyncio.sleep(0.05)
    assert (await world.token()).status_code == 200
    readiness = (await world.ops.get("/readyz")).json()
    assert "did you mean 'tokens:read'?" in readiness["parts"]["callers_file"]["reason"]


# Reasons why `broker serve` does not start.


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> dict[str, str]:
    """Valid settings; each test breaks one."""
    callers_file = tmp_path / "callers.yaml"
    stanza = {"keys": [hash_key("tb_any")], "can": ["grants:read"], "users": ["*"]}
    callers_file.write_text(json.dumps({"callers": {"someone": stanza}}))
    return {
        "GOOGLE_REDIRECT_URI": "http://127.0.0.1:8000/auth/google/callback",
        "GOOGLE_SCOPES": CALENDAR_READONLY,
        "GOOGLE_DISCOVERY_URL": "http://127.0.0.1:9/nothing-listens-here",
        "GOOGLE_CLIENT_ID": "some-client",
        "GOOGLE_CLIENT_SECRET": "GOCSPX-never-to-be-printed",
        "DATABASE_URL": database_url,
        "SECRET_KEY": "never-to-be-printed-and-longer-than-32-bytes",
        "BROKER_CALLERS_FILE": str(callers_file),
        **Ports.free().settings(),
    }


@pytest.fixture
def unmigrated_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    yield postgres.create_database("unmigrated")
    postgres.drop_database("unmigrated")


def refusal_to_serve(settings: dict[str, str]) -> str:
    """Run `broker serve`, which must fail; return its error message."""
    done = run_broker("serve", settings=settings)
    assert done.returncode == 1, done
    assert done.stderr.startswith("Error: "), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "never-to-be-printed" not in done.stdout + done.stderr
    return done.stderr


@pytest.mark.process
def test_a_callers_file_with_a_typo(settings: dict[str, str]) -> None:
    callers_file = Path(settings["BROKER_CALLERS_FILE"])
    callers_file.write_text(callers_file.read_text().replace("grants:read", "grant:read"))
    assert "did you mean 'grants:read'?" in refusal_to_serve(settings)


@pytest.mark.process
def test_a_database_that_is_not_migrated(settings: dict[str, str], unmigrated_url: str) -> None:
    message = refusal_to_serve({**settings, "DATABASE_URL": unmigrated_url})
    assert "broker migrate" in message
    assert message.count("\n") == 1


@pytest.mark.process
def test_a_vault_path_that_does_not_exist(settings: dict[str, str], openbao: OpenBao) -> None:
    place = VaultPlace.new(openbao)
    message = refusal_to_serve(
        {
            **settings,
            "BROKER_SECRET_SOURCE": "vault",
            "VAULT_ADDR": openbao.address,
            "VAULT_TOKEN": place.create_token().reveal(),
            "VAULT_KV_PATH": place.path,
        }
    )
    assert place.path in message
    assert message.count("\n") == 1


@pytest.mark.process
@pytest.mark.parametrize(
    ("kind", "explanation"),
    [
        ("service_account", "a service account's key"),
        ("authorized_user", "one user's saved credentials"),
    ],
)
def test_a_credentials_file_of_the_wrong_kind(
    settings: dict[str, str], tmp_path: Path, kind: str, explanation: str
) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"type": kind, "private_key": "never-to-be-printed"}))
    message = refusal_to_serve(
        {**settings, "BROKER_SECRET_SOURCE": "file", "GOOGLE_CREDENTIALS_FILE": str(path)}
    )
    assert explanation in message
    assert "Web application" in message
    assert message.count("\n") == 1
