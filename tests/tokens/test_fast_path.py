"""The fast path beside the regular path, on real sockets: the same bytes, records and checks."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.callers import authentication_limits as attempts
from broker.server.listener import Listener
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen
from tests.server.sockets import Answer, Wire
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.waiting import eventually
from tests.support.world import World, stanza

PATH = "/v1/users/user-1/token"
_DATE = re.compile(rb"date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")
_OWN_ID = re.compile(rb"[0-9a-f]{12}-[0-9a-f]+")
_LENGTH_WITH_OWN_ID = re.compile(
    rb'content-length: (\d+)((?:(?!content-length).)*?"request_id": ")([0-9a-f]{12}-[0-9a-f]+)"',
    re.DOTALL,
)
"""Of a problem: two request ids may differ in length."""


@dataclass
class Paths:
    """One broker behind two ports: with the fast path and without."""

    world: World
    fast_port: int
    regular_port: int
    fast_answers: int = 0

    def get(self, path: str = PATH, *headers: str) -> bytes:
        """A request with the caller's credential."""
        lines = (
            f"GET {path} HTTP/1.1",
            "Host: broker.test",
            f"Authorization: Bearer {self.world.key}",
            *headers,
            "",
            "",
        )
        return "\r\n".join(lines).encode()


@pytest.fixture(autouse=True)
def many_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the limit: hundreds of wrong credentials come from one address here."""
    monkeypatch.setattr(attempts, "FAILURE_BURST", 1_000_000)


@pytest.fixture
async def paths(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Paths]:
    await world.connect()
    listener = world.broker.internal
    assert isinstance(listener, Listener)
    fast_path = listener.fast_path
    assert fast_path is not None
    # Ids of one length, so that answers that hold one have one length too.
    monkeypatch.setattr(listener._request_ids, "_numbers", itertools.count(0x10000))
    bound = [bind(Listen("127.0.0.1", 0)) for _ in range(2)]
    ports = [each.getsockname()[1] for each in bound]
    paths = Paths(world, *ports)

    def counting(target: bytes, headers: Mapping[bytes, bytes]) -> bytes | None:
        answer = fast_path(target, headers)
        paths.fast_answers += answer is not None
        return answer

    listener.fast_path = counting
    warm = Listeners([(listener, bound[0])])
    listener.fast_path = None
    long = Listeners([(listener, bound[1])])
    await asyncio.gather(warm.start(), long.start())
    yield paths
    await asyncio.gather(warm.stop(), long.stop())


@asynccontextmanager
async def _line(port: int) -> AsyncIterator["_Line"]:
    wire = await asyncio.to_thread(Wire, port)
    with wire:
        yield _Line(wire)


class _Line:
    """A connection, used from within the event loop that serves it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def ask(self, said: bytes, *, answers: int = 1) -> list[Answer]:
        def exchange() -> list[Answer]:
            self._wire.say(said)
            return [self._wire.hear() for _ in range(answers)]

        return await asyncio.to_thread(exchange)

    async def status(self, said: bytes) -> int:
        return (await self.ask(said))[0].status


def _all_of(port: int, said: bytes) -> bytes:
    """Return all answers, with the parts equalised that no two answers share."""
    with Wire(port) as wire:
        wire.say(said)
        heard = wire.hear_the_end()
    heard = _LENGTH_WITH_OWN_ID.sub(_without_the_ids_length, heard)
    return _OWN_ID.sub(b"an-id", _DATE.sub(b"date: now\r\n", heard))


def _without_the_ids_length(problem: re.Match[bytes]) -> bytes:
    length = int(problem[1]) - len(problem[3])
    return b'content-length: %d%ban-id"' % (length, problem[2])


async def _same(paths: Paths, said: bytes) -> bytes:
    """Return the answer, which must be the same on both paths."""
    warm, long = await asyncio.gather(
        asyncio.to_thread(_all_of, paths.fast_port, said),
        asyncio.to_thread(_all_of, paths.regular_port, said),
    )
    assert warm == long
    return warm


# ---- the same bytes


@pytest.mark.parametrize(
    "headers",
    [(), ("X-Request-Id: mine-1",), ("X-Request-Id: not harmless!",), ("Connection: keep-alive",)],
)
@pytest.mark.parametrize("query", ["", "?min_ttl=5", f"?scope={CALENDAR_READONLY}"])
async def test_both_paths_answer_the_same_bytes(
    paths: Paths, query: str, headers: tuple[str, ...]
) -> None:
    await _same(paths, paths.get(PATH + query, *headers, "Connection: close"))
    last = paths.get("/nothing", "Connection: close")
    heard = await _same(paths, paths.get(PATH + query, *headers) + last)
    assert paths.fast_answers == 1
    assert heard.startswith(b"HTTP/1.1 200 OK\r\ndate: now\r\ncache-control: no-store\r\n")


def _mostly(usual: str, *others: str) -> st.SearchStrategy[str]:
    return st.sampled_from([usual] * 6 * len(others) + [*others])


_METHODS = _mostly("GET", "HEAD", "POST", "OPTIONS", "DELETE", "get")
_PREFIXES = _mostly("", "http://broker.test", "//", "http://broker.test:1")
_USERS = _mostly("user-1", "user%2D1", "user-2", "", "%FF", "user-1/")
_QUERIES = _mostly(
    "", "?", "?min_ttl=60", "?min_ttl=7", "?min_ttl=%36", "?min_ttl=x", "??", "#x", "?#x"
)
_VERSIONS = _mostly("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2")
_CREDENTIALS = _mostly("Authorization: Bearer {key}", "X-Nobody: 1")
_FIELDS = st.lists(
    st.sampled_from(
        [
            "Authorization: Bearer {key}",
            "Authorization: bearer {key}",
            "AUTHORIZATION:Bearer {key}  ",
            "Authorization: Bearer  {key}",
            "Authorization: Bearer {key}x",
            "Authorization: Basic {key}",
            "Authorization:",
            "X-Request-Id: one",
            "X-Request-Id: two",
            "X-Request-Id: <script>",
            "X-Request-Id:",
            "Connection: keep-alive",
            "Connection: close",
            "Connection: Keep-Alive, Upgrade",
            "Connection: Upgrade",
            "Proxy-Connection: close",
            "Upgrade: h2c",
            "Upgrade: websocket",
            "Expect: 100-continue",
            "Expect: nothing",
            "Content-Length: 0",
            "Content-Length: 3",
            "Content-Length: 3, 3",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Accept: text/html",
            "Cookie: a=b",
            "Cookie: c=d",
            "Host: elsewhere",
            " folded: yes",
            "Space : before",
            "X-Nul: \0",
            "Te: trailers",
        ]
    ),
    max_size=2,
)
_BODIES = _mostly("", "abc", "3\r\nabc\r\n0\r\n\r\n", "\r\n")
_REQUESTS = st.builds(
    lambda method, prefix, user, query, version, credential, fields, body: (
        f"{method} {prefix}/v1/users/{user}/token{query} {version}\r\nHost: broker.test\r\n"
        + "".join(f"{line}\r\n" for line in (credential, *fields))
        + f"\r\n{body}"
    ),
    _METHODS,
    _PREFIXES,
    _USERS,
    _QUERIES,
    _VERSIONS,
    _CREDENTIALS,
    _FIELDS,
    _BODIES,
)


async def test_both_paths_answer_the_same_bytes_to_any_request(paths: Paths) -> None:
    await _same(paths, paths.get(PATH, "Connection: close"))
    last = paths.get("/nothing", "Connection: close")

    @settings(
        max_examples=400,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(_REQUESTS)
    def compare(request: str) -> None:
        said = request.replace("{key}", paths.world.key).encode() + last
        assert _all_of(paths.fast_port, said) == _all_of(paths.regular_port, said)

    await asyncio.to_thread(compare)
    assert paths.fast_answers > 50


# ---- the same records


async def _records(world: World) -> tuple[float, float, list[tuple[object, ...]]]:
    requests = await world.metric(
        "broker_token_requests_total", caller="calendar-sync", outcome="ok"
    )
    metrics = (await world.ops.get("/metrics")).text
    timed = sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if _TIMED in line)
    return requests, timed, [tuple(row) for row in await world.sql(_AUDITED)]


_TIMED = (
    'duration_seconds_count{listener="internal",method="GET",'
    'route="/v1/users/{user_id}/token",status="200"}'
)
_AUDITED = """
SELECT outcome, caller, user_id, account_sub, scopes, at FROM audit_events
WHERE action = 'token_handed_out' AND request_id = 'same'
"""


async def test_both_paths_leave_the_same_records(paths: Paths) -> None:
    said = paths.get(PATH, "X-Request-Id: same")
    async with _line(paths.fast_port) as warm, _line(paths.regular_port) as long:
        await long.ask(paths.get())
        before = await _records(paths.world)
        for line in (warm, warm, long):
            assert await line.status(said) == 200
    assert paths.fast_answers == 2

    async def is_written() -> bool:
        return len(await paths.world.sql(_AUDITED)) == 3

    await eventually(is_written)
    requests, timed, audited = await _records(paths.world)
    assert (requests - before[0], timed - before[1]) == (3, 3)
    assert audited[0] == audited[1] == audited[2]


async def test_a_fast_hand_out_counts_as_a_use_of_the_grant(paths: Paths) -> None:
    async with _line(paths.fast_port) as line:
        await line.ask(paths.get())
        paths.world.clock.advance(timedelta(minutes=10))
        await line.ask(paths.get())
    assert paths.fast_answers == 1
    used_at = paths.world.clock.now()

    async def is_noted() -> bool:
        (grant,) = await paths.world.sql("SELECT last_used_at FROM grants")
        return bool(grant["last_used_at"] == used_at)

    await eventually(is_noted)


# ---- the next request on the same connection


async def test_a_revocation_applies_to_the_next_request(paths: Paths) -> None:
    async with _line(paths.fast_port) as line:
        assert [await line.status(paths.get()) for _ in range(2)] == [200, 200]
        assert paths.fast_answers == 1
        await paths.world.revoke()
        assert await line.status(paths.get()) == 404
    assert paths.fast_answers == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"can": ["grants:read"]}, 403),
        ({"users": ["user-2"]}, 403),
        ({"scopes": [GMAIL_READONLY]}, 409),
    ],
)
async def test_another_policy_applies_to_the_next_request(
    paths: Paths, changes: dict[str, list[str]], status: int
) -> None:
    async with _line(paths.fast_port) as line:
        assert [await line.status(paths.get()) for _ in range(2)] == [200, 200]
        assert paths.fast_answers == 1
        await paths.world.rewrite_callers({"calendar-sync": stanza(paths.world.key, **changes)})
        assert await line.status(paths.get()) == status
    assert paths.fast_answers == 1


async def test_a_removed_key_is_refused_at_the_next_request(paths: Paths) -> None:
    async with _line(paths.fast_port) as line:
        assert [await line.status(paths.get()) for _ in range(2)] == [200, 200]
        await paths.world.rewrite_callers({})
        assert await line.status(paths.get()) == 401
    assert paths.fast_answers == 1


async def test_the_answer_of_one_caller_is_not_served_to_another(paths: Paths) -> None:
    other = f"{paths.world.key}x"
    callers = {
        "calendar-sync": stanza(paths.world.key),
        "other": stanza(other, users=["user-2"], scopes=[CALENDAR]),
    }
    await paths.world.rewrite_callers(callers)
    async with _line(paths.fast_port) as line:
        assert [await line.status(paths.get()) for _ in range(2)] == [200, 200]
        as_other = paths.get().replace(paths.world.key.encode(), other.encode())
        assert await line.status(as_other) == 403
    assert paths.fast_answers == 1


async def test_a_token_that_is_valid_for_too_short_is_not_served_fast(paths: Paths) -> None:
    async with _line(paths.fast_port) as line:
        before = [(await line.ask(paths.get()))[0].json() for _ in range(2)]
        paths.world.clock.advance(timedelta(minutes=59, seconds=1))
        (after,) = await line.ask(paths.get())
    assert paths.fast_answers == 1
    assert before[0] == before[1]
    assert after.json()["access_token"] != before[0]["access_token"]


async def test_fast_and_regular_requests_are_answered_in_their_order(paths: Paths) -> None:
    async with _line(paths.fast_port) as line:
        await line.ask(paths.get())
        names = [f"n{number}" for number in range(20)]
        said = [
            paths.get(PATH if number % 3 else "/v1/users/user-1/grants", f"X-Request-Id: {name}")
            for number, name in enumerate(names)
        ]
        answers = await line.ask(b"".join(said), answers=20)
        assert [answer.header("x-request-id") for answer in answers] == names
        answers = await line.ask(b"".join(said[1:]), answers=19)
        assert [answer.header("x-request-id") for answer in answers] == names[1:]
    assert paths.fast_answers == 2
