"""Expiring tokens: Google gets one refresh, and callers notice nothing."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime

import asyncpg

from bench.alternation import quantile
from bench.environment import BenchEnvironment
from bench.keep_alive import KeepAliveConnection, TimedAnswer, ask_each, open_connections
from bench.rows.plan import Plan
from bench.servers import ServerProcess
from bench.table import Bound, Figure, Sense
from devstack.google_standin import Fault

_REPLICAS = 4
_USUAL_LIFE = 3599
_ANY_LIFE = "?min_ttl=0"
_AUDIT_SECONDS = 1.2
"""Audit records are written within this time."""


def measure_storm(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Let all callers request the token at every replica in the second in which it expires."""
    life, callers = plan.count(6, 4), plan.count(1000, 100)
    url = environment.new_database()
    with environment.replicas(url, plan.count(_REPLICAS, 2)) as replicas:
        environment.standin.behave(token_lifetime=life)
        environment.connect(replicas[0], ["user-storm"])
        environment.standin.behave(token_lifetime=_USUAL_LIFE)
        before = _refreshes(environment)
        answers = asyncio.run(_ask_at_expiry(environment, url, replicas, callers))
        refreshes = _refreshes(environment) - before
    return [
        Figure(
            "storm",
            f"{callers:,} callers over {len(replicas)} replicas as a token expires: refreshes",
            refreshes,
            Bound(Sense.EXACTLY, 1),
            {"slowest answer s": max(each.seconds for each in answers)},
            failures=sum(each.status != 200 for each in answers),
        )
    ]


async def _ask_at_expiry(
    environment: BenchEnvironment, url: str, replicas: Sequence[ServerProcess], callers: int
) -> list[TimedAnswer]:
    async with AsyncExitStack() as stack:
        asking = []
        for number in range(callers):
            replica = replicas[number % len(replicas)]
            (connection,) = await open_connections([replica.port], stack)
            asking.append((connection, environment.request(replica, "user-storm", _ANY_LIFE)))
        await asyncio.sleep(max(0.0, await _expiry(url) - time.time()))
        return await asyncio.gather(*(connection.ask(request) for connection, request in asking))


async def _expiry(url: str) -> float:
    connection = await asyncpg.connect(url)
    try:
        moment: datetime = await connection.fetchval("SELECT max(expires_at) FROM access_tokens")
        return moment.timestamp()
    finally:
        await connection.close()


def measure_lifetimes(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Request users' tokens steadily while they expire ten times and Google is slow."""
    life, lives, users = plan.count(6, 3), plan.count(10, 2), plan.count(20, 4)
    url = environment.new_database()
    with environment.replicas(url, plan.count(_REPLICAS, 2)) as replicas:
        names = [f"user-{number:03}" for number in range(users)]
        environment.standin.behave(token_lifetime=life)
        environment.connect(replicas[0], names)
        # The first request narrows the token to the caller's scopes: no token expires then.
        for replica in replicas:
            asked = [environment.request(replica, name, _ANY_LIFE) for name in names]
            asyncio.run(ask_each(replica.port, asked))
        time.sleep(_AUDIT_SECONDS)
        first = asyncio.run(_refreshes_for_callers(url))
        before = _refreshes(environment)
        slow = Fault.delay(0.3)
        environment.standin.faults.always("token", slow, grant_type="refresh_token")
        try:
            answers = asyncio.run(_ask_steadily(environment, replicas, names, seconds=life * lives))
        finally:
            environment.standin.faults.clear("token")
            environment.standin.behave(token_lifetime=_USUAL_LIFE)
        time.sleep(_AUDIT_SECONDS)
        waited = asyncio.run(_refreshes_for_callers(url)) - first
    times = [each.seconds for each in answers]
    return [
        Figure(
            "lifetimes",
            f"callers who waited for Google in {lives} token lifetimes of steady load",
            waited,
            Bound(Sense.EXACTLY, 0),
            {
                "fetches": len(answers),
                "refreshes": _refreshes(environment) - before,
                "lifetime s": life,
                "p99 ms": quantile(times, 0.99) * 1000,
                "slowest ms": max(times) * 1000,
            },
            failures=sum(each.status != 200 for each in answers),
        )
    ]


async def _ask_steadily(
    environment: BenchEnvironment,
    replicas: Sequence[ServerProcess],
    users: Sequence[str],
    *,
    seconds: float,
) -> list[TimedAnswer]:
    until = time.perf_counter() + seconds
    async with AsyncExitStack() as stack:
        connections = await open_connections([replica.port for replica in replicas], stack)
        answers = await asyncio.gather(
            *(
                _ask_in_turn(
                    connection, [environment.request(replica, u, _ANY_LIFE) for u in users], until
                )
                for connection, replica in zip(connections, replicas, strict=True)
            )
        )
    return [each for of_connection in answers for each in of_connection]


async def _ask_in_turn(
    connection: KeepAliveConnection, requests: Sequence[bytes], until: float
) -> list[TimedAnswer]:
    answers = []
    while time.perf_counter() < until:
        for request in requests:
            answers.append(await connection.ask(request))
            await asyncio.sleep(0.005)
    return answers


async def _refreshes_for_callers(url: str) -> int:
    """Return the audited refreshes that a caller waited for."""
    connection = await asyncpg.connect(url)
    try:
        counted: int = await connection.fetchval(
            "SELECT count(*) FROM audit_events"
            " WHERE action = 'token_refreshed' AND caller IS NOT NULL"
        )
        return counted
    finally:
        await connection.close()


def _refreshes(environment: BenchEnvironment) -> int:
    return environment.standin.requests.count("token", grant_type="refresh_token")
