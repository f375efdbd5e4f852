"""What is noticed of a token's end: by Google one refresh, by callers who keep asking nothing."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime

import asyncpg

from bench.asking import Heard, Line, ask_each, open_lines
from bench.rows.plan import Plan
from bench.servers import ServerProcess
from bench.table import Bound, Figure, Sense
from bench.turns import quantile
from bench.world import Surroundings
from devstack.google_standin import Fault

_REPLICAS = 4
_USUAL_LIFE = 3599
_ANY_LIFE = "?min_ttl=0"
_AUDIT_SECONDS = 1.2
"""After so long, what happened is in the table."""


def measure_storm(plan: Plan, around: Surroundings) -> list[Figure]:
    """All callers at once, at every replica, in the second that the token expires."""
    life, callers = plan.count(6, 4), plan.count(1000, 100)
    url = around.new_database()
    with around.replicas(url, plan.count(_REPLICAS, 2)) as replicas:
        around.standin.behave(token_lifetime=life)
        around.connect(replicas[0], ["user-storm"])
        around.standin.behave(token_lifetime=_USUAL_LIFE)
        before = _refreshes(around)
        heard = asyncio.run(_ask_at_expiry(around, url, replicas, callers))
        refreshes = _refreshes(around) - before
    return [
        Figure(
            "storm",
            f"{callers:,} callers over {len(replicas)} replicas as a token expires: refreshes",
            refreshes,
            Bound(Sense.EXACTLY, 1),
            {"slowest answer s": max(each.seconds for each in heard)},
            failures=sum(each.status != 200 for each in heard),
        )
    ]


async def _ask_at_expiry(
    around: Surroundings, url: str, replicas: Sequence[ServerProcess], callers: int
) -> list[Heard]:
    async with AsyncExitStack() as stack:
        asking = []
        for number in range(callers):
            replica = replicas[number % len(replicas)]
            (line,) = await open_lines([replica.port], stack)
            asking.append((line, around.request(replica, "user-storm", _ANY_LIFE)))
        await asyncio.sleep(max(0.0, await _expiry(url) - time.time()))
        return await asyncio.gather(*(line.ask(request) for line, request in asking))


async def _expiry(url: str) -> float:
    connection = await asyncpg.connect(url)
    try:
        moment: datetime = await connection.fetchval("SELECT max(expires_at) FROM access_tokens")
        return moment.timestamp()
    finally:
        await connection.close()


def measure_lifetimes(plan: Plan, around: Surroundings) -> list[Figure]:
    """Users asked for again and again while their tokens expire ten times, Google being slow."""
    life, lives, users = plan.count(6, 3), plan.count(10, 2), plan.count(20, 4)
    url = around.new_database()
    with around.replicas(url, plan.count(_REPLICAS, 2)) as replicas:
        names = [f"user-{number:03}" for number in range(users)]
        around.standin.behave(token_lifetime=life)
        around.connect(replicas[0], names)
        # The first fetch narrows the token to what the caller may have: that is no lifetime's end.
        for replica in replicas:
            asked = [around.request(replica, name, _ANY_LIFE) for name in names]
            asyncio.run(ask_each(replica.port, asked))
        time.sleep(_AUDIT_SECONDS)
        first = asyncio.run(_refreshes_for_callers(url))
        before = _refreshes(around)
        slow = Fault.delay(0.3)
        around.standin.faults.always("token", slow, grant_type="refresh_token")
        try:
            heard = asyncio.run(_ask_steadily(around, replicas, names, seconds=life * lives))
        finally:
            around.standin.faults.clear("token")
            around.standin.behave(token_lifetime=_USUAL_LIFE)
        time.sleep(_AUDIT_SECONDS)
        waited = asyncio.run(_refreshes_for_callers(url)) - first
    times = [each.seconds for each in heard]
    return [
        Figure(
            "lifetimes",
            f"callers who waited for Google in {lives} token lifetimes of steady load",
            waited,
            Bound(Sense.EXACTLY, 0),
            {
                "fetches": len(heard),
                "refreshes": _refreshes(around) - before,
                "lifetime s": life,
                "p99 ms": quantile(times, 0.99) * 1000,
                "slowest ms": max(times) * 1000,
            },
            failures=sum(each.status != 200 for each in heard),
        )
    ]


async def _ask_steadily(
    around: Surroundings, replicas: Sequence[ServerProcess], users: Sequence[str], *, seconds: float
) -> list[Heard]:
    until = time.perf_counter() + seconds
    async with AsyncExitStack() as stack:
        lines = await open_lines([replica.port for replica in replicas], stack)
        heard = await asyncio.gather(
            *(
                _ask_in_turn(line, [around.request(replica, u, _ANY_LIFE) for u in users], until)
                for line, replica in zip(lines, replicas, strict=True)
            )
        )
    return [each for of_line in heard for each in of_line]


async def _ask_in_turn(line: Line, requests: Sequence[bytes], until: float) -> list[Heard]:
    heard = []
    while time.perf_counter() < until:
        for request in requests:
            heard.append(await line.ask(request))
            await asyncio.sleep(0.005)
    return heard


async def _refreshes_for_callers(url: str) -> int:
    """Refreshes that the audit trail says were begun for a caller, who then waited for Google."""
    connection = await asyncpg.connect(url)
    try:
        counted: int = await connection.fetchval(
            "SELECT count(*) FROM audit_events"
            " WHERE action = 'token_refreshed' AND caller IS NOT NULL"
        )
        return counted
    finally:
        await connection.close()


def _refreshes(around: Surroundings) -> int:
    return around.standin.requests.count("token", grant_type="refresh_token")
