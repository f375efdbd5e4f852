"""Latency of the fast path while the broker does much other work."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import cycle
from statistics import median

from bench.environment import BenchEnvironment, http_request
from bench.keep_alive import KeepAliveConnection, ask_each
from bench.load import Round
from bench.load_process import run_round_in_process
from bench.rows.plan import Plan
from bench.servers import ServerProcess
from bench.table import Bound, Figure, Sense

_CONNECTIONS = 16
_REVOCATIONS_A_SECOND = 50
_REFRESHES_A_SECOND = 20


def measure_trouble(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Alternate quiet and busy rounds; each token is audited in both."""
    url = environment.new_database()
    rounds, seconds = plan.repetitions(4), plan.seconds(4.0)
    warm = environment.fill(url, _CONNECTIONS)
    revoked = environment.fill(url, round((seconds + 4) * _REVOCATIONS_A_SECOND) * rounds)
    refreshed = [f"user-{number:03}" for number in range(plan.count(40, 3))]
    with environment.broker(url) as broker:
        environment.connect(broker, refreshed)
        requests = [environment.request(broker, user_id) for user_id in warm]
        for _ in range(2):
            asyncio.run(ask_each(broker.port, requests))
        work = _BackgroundWork(environment, broker, revoked, refreshed)
        pairs = []
        for number in range(rounds):
            turns = [False, True] if number % 2 == 0 else [True, False]
            done = {
                busy: asyncio.run(_round(broker, requests, seconds, work if busy else None))
                for busy in turns
            }
            pairs.append((done[True], done[False]))
    return [
        Figure(
            "trouble",
            "p99 of warm fetches amid refreshes, audit and revocations ÷ p99 without",
            median(busy.p99 / quiet.p99 for busy, quiet in pairs),
            Bound(Sense.AT_MOST, 2),
            {
                "p99 without ms": median(quiet.p99 for _, quiet in pairs) * 1000,
                "p99 with ms": median(busy.p99 for busy, _ in pairs) * 1000,
                "revocations": work.revocations,
                "refreshes": work.refreshes,
            },
            failures=work.failures + sum(a.failures + b.failures for a, b in pairs),
        )
    ]


class _BackgroundWork:
    """Revocations and refreshes at a steady pace, with their counts."""

    def __init__(
        self,
        environment: BenchEnvironment,
        broker: ServerProcess,
        revoked: Sequence[str],
        refreshed: Sequence[str],
    ) -> None:
        self.revocations = 0
        self.refreshes = 0
        self.failures = 0
        self._port = broker.port
        self._revocations = iter(
            [
                http_request("DELETE", f"/v1/users/{user_id}/grants", broker.port, environment.key)
                for user_id in revoked
            ]
        )
        # Longer than any token lives: each of these makes the broker call Google.
        self._refreshes = cycle(
            [environment.request(broker, user_id, "?min_ttl=7200") for user_id in refreshed]
        )

    async def run(self) -> None:
        """Run until cancelled."""
        async with (
            await KeepAliveConnection.open(self._port) as one,
            await KeepAliveConnection.open(self._port) as other,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._revoke(one))
            group.create_task(self._refresh(other))

    async def _revoke(self, connection: KeepAliveConnection) -> None:
        async for request in _paced(self._revocations, _REVOCATIONS_A_SECOND):
            answer = await connection.ask(request)
            self.revocations += 1
            self.failures += answer.status != 204

    async def _refresh(self, connection: KeepAliveConnection) -> None:
        async for request in _paced(self._refreshes, _REFRESHES_A_SECOND):
            answer = await connection.ask(request)
            self.refreshes += 1
            self.failures += answer.status != 200


async def _round(
    broker: ServerProcess, requests: Sequence[bytes], seconds: float, work: _BackgroundWork | None
) -> Round:
    running = asyncio.create_task(work.run()) if work else None
    measured = await run_round_in_process(broker.port, requests, warm_up=0.5, seconds=seconds)
    if running is not None:
        if running.done():
            running.result()
        running.cancel()
        await asyncio.wait([running])
    return measured


async def _paced(requests: Iterator[bytes], a_second: float) -> AsyncIterator[bytes]:
    for request in requests:
        yield request
        await asyncio.sleep(1 / a_second)
