"""How long replicas still serve a token after the response to its revocation."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import asyncpg

from bench.alternation import quantile
from bench.environment import BenchEnvironment, http_request
from bench.keep_alive import KeepAliveConnection, TimedAnswer, ask_each, open_connections
from bench.rows.plan import Plan
from bench.servers import BenchError, ServerProcess
from bench.table import Bound, Figure, Sense

_REPLICAS = 4
_POLL_SECONDS = 0.002

# What a replica gets when notifications are lost: the change is only in the table.
_NOTIFY_NOTHING = """
CREATE OR REPLACE FUNCTION note_grant_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$$
"""


def measure_revocation(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Measure revocations twice: with notifications delivered, and with all of them lost."""
    url = environment.new_database()
    # More of the fast ones: of a hundred, the second slowest alone would be the p99.
    users = environment.fill(url, plan.count(500, 12))
    lost_from = len(users) - plan.count(100, 6)
    with environment.replicas(url, plan.count(_REPLICAS, 2)) as replicas:
        requests = {r.port: [environment.request(r, user) for user in users] for r in replicas}
        _warm(requests)
        delivered = asyncio.run(_revoke_each(environment, replicas, users[:lost_from]))
        asyncio.run(_execute(url, _NOTIFY_NOTHING))
        lost = asyncio.run(_revoke_each(environment, replicas, users[lost_from:]))
    return [
        _figure("delivered", delivered, 0.1),
        _figure("lost", lost, 1.0),
    ]


def _figure(how: str, late: list[float], limit: float) -> Figure:
    return Figure(
        "revocation",
        f"revocation refused by every replica, notification {how}: p99",
        quantile(late, 0.99),
        Bound(Sense.AT_MOST, limit, "s"),
        {"revocations": len(late), "p50 s": quantile(late, 0.5), "slowest s": max(late)},
    )


def _warm(requests: dict[int, list[bytes]]) -> None:
    for port, asked in requests.items():
        for _ in range(2):
            refused = [h.status for h in asyncio.run(ask_each(port, asked)) if h.status != 200]
            if refused:
                raise BenchError(f"the broker answers {refused[0]} to a token request")


async def _revoke_each(
    environment: BenchEnvironment, replicas: Sequence[ServerProcess], users: Sequence[str]
) -> list[float]:
    """Return per user the seconds from the response to the last token of any replica."""
    ports = [replica.port for replica in replicas]
    async with AsyncExitStack() as stack:
        connections = await open_connections(ports, stack)
        late = []
        for number, user_id in enumerate(users):
            # Another replica each time, and another moment between two polls of the table.
            at = number % len(ports)
            revocation = http_request(
                "DELETE", f"/v1/users/{user_id}/grants", ports[at], environment.key
            )
            answer = await connections[at].ask(revocation)
            if answer.status != 204:
                raise BenchError(f"the broker answers {answer.status} to a revocation")
            lasts = await asyncio.gather(
                *(
                    _last_token(connection, environment.request(replica, user_id))
                    for connection, replica in zip(connections, replicas, strict=True)
                )
            )
            late.append(max(0.0, max(lasts) - answer.at))
        return late


async def _last_token(connection: KeepAliveConnection, request: bytes) -> float:
    """Return when the replica last served the token; minus infinity if it never did."""
    last = float("-inf")
    while True:
        answer: TimedAnswer = await connection.ask(request)
        if answer.status == 404:
            return last
        if answer.status != 200:
            raise BenchError(f"the broker answers {answer.status} for a revoked grant")
        last = answer.at
        await asyncio.sleep(_POLL_SECONDS)


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
