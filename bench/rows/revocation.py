"""How long after a revocation was answered some replica still hands the token out."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import asyncpg

from bench.asking import Heard, Line, ask_each, open_lines
from bench.rows.plan import Plan
from bench.servers import BenchError, ServerProcess
from bench.table import Bound, Figure, Sense
from bench.turns import quantile
from bench.world import Surroundings, http_request

_REPLICAS = 4
_LOOK_SECONDS = 0.002

# What a replica gets when its notices are lost: the change is in the table, and nobody says so.
_SAY_NOTHING = """
CREATE OR REPLACE FUNCTION note_grant_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$$
"""


def measure_revocation(plan: Plan, around: Surroundings) -> list[Figure]:
    """The same revocations twice: with the notices delivered, and with all of them lost."""
    url = around.new_database()
    # More of those that take milliseconds: of a hundred, the second slowest alone would decide.
    users = around.fill(url, plan.count(500, 12))
    lost_from = len(users) - plan.count(100, 6)
    with around.replicas(url, plan.count(_REPLICAS, 2)) as replicas:
        requests = {r.port: [around.request(r, user) for user in users] for r in replicas}
        _warm(requests)
        delivered = asyncio.run(_revoke_each(around, replicas, users[:lost_from]))
        asyncio.run(_execute(url, _SAY_NOTHING))
        lost = asyncio.run(_revoke_each(around, replicas, users[lost_from:]))
    return [
        _figure("delivered", delivered, 0.1),
        _figure("lost", lost, 1.0),
    ]


def _figure(how: str, late: list[float], limit: float) -> Figure:
    return Figure(
        "revocation",
        f"revocation refused by every replica, notice {how}: p99",
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
    around: Surroundings, replicas: Sequence[ServerProcess], users: Sequence[str]
) -> list[float]:
    """For each user: seconds from the withdrawal's answer to the last token of any replica."""
    ports = [replica.port for replica in replicas]
    async with AsyncExitStack() as stack:
        lines = await open_lines(ports, stack)
        late = []
        for number, user_id in enumerate(users):
            # Another replica each time, and another moment between two looks at the table.
            at = number % len(ports)
            withdrawal = http_request(
                "DELETE", f"/v1/users/{user_id}/grants", ports[at], around.key
            )
            answer = await lines[at].ask(withdrawal)
            if answer.status != 204:
                raise BenchError(f"the broker answers {answer.status} to a withdrawal")
            lasts = await asyncio.gather(
                *(
                    _last_token(line, around.request(replica, user_id))
                    for line, replica in zip(lines, replicas, strict=True)
                )
            )
            late.append(max(0.0, max(lasts) - answer.at))
        return late


async def _last_token(line: Line, request: bytes) -> float:
    """When the replica was last asked in vain to refuse; minus infinity if it did at once."""
    last = float("-inf")
    while True:
        heard: Heard = await line.ask(request)
        if heard.status == 404:
            return last
        if heard.status != 200:
            raise BenchError(f"the broker answers {heard.status} for a grant that was revoked")
        last = heard.at
        await asyncio.sleep(_LOOK_SECONDS)


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()
