"""The slowest of the warm fetches, while the broker has much else to do."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import cycle
from statistics import median

from bench.asking import Line, ask_each
from bench.distant_load import run_distant_round
from bench.load import Round
from bench.rows.plan import Plan
from bench.servers import ServerProcess
from bench.table import Bound, Figure, Sense
from bench.world import Surroundings, http_request

_CONNECTIONS = 16
_REVOCATIONS_A_SECOND = 50
_REFRESHES_A_SECOND = 20


def measure_trouble(plan: Plan, around: Surroundings) -> list[Figure]:
    """Rounds in peace and rounds in a storm, by turns; each hand-out is audited in both."""
    url = around.new_database()
    rounds, seconds = plan.rounds(4), plan.seconds(4.0)
    warm = around.fill(url, _CONNECTIONS)
    withdrawn = around.fill(url, round((seconds + 4) * _REVOCATIONS_A_SECOND) * rounds)
    refreshed = [f"user-{number:03}" for number in range(plan.count(40, 3))]
    with around.broker(url) as broker:
        around.connect(broker, refreshed)
        requests = [around.request(broker, user_id) for user_id in warm]
        for _ in range(2):
            asyncio.run(ask_each(broker.port, requests))
        storm = _Storm(around, broker, withdrawn, refreshed)
        pairs = []
        for number in range(rounds):
            turns = [False, True] if number % 2 == 0 else [True, False]
            done = {
                stormy: asyncio.run(_round(broker, requests, seconds, storm if stormy else None))
                for stormy in turns
            }
            pairs.append((done[True], done[False]))
    return [
        Figure(
            "trouble",
            "p99 of warm fetches amid refreshes, audit and revocations ÷ p99 in peace",
            median(stormy.p99 / calm.p99 for stormy, calm in pairs),
            Bound(Sense.AT_MOST, 2),
            {
                "p99 in peace ms": median(calm.p99 for _, calm in pairs) * 1000,
                "p99 in the storm ms": median(stormy.p99 for stormy, _ in pairs) * 1000,
                "revocations": storm.revocations,
                "refreshes": storm.refreshes,
            },
            failures=storm.failures + sum(a.failures + b.failures for a, b in pairs),
        )
    ]


class _Storm:
    """Withdrawals and refreshes at a steady pace, and how many there were."""

    def __init__(
        self,
        around: Surroundings,
        broker: ServerProcess,
        withdrawn: Sequence[str],
        refreshed: Sequence[str],
    ) -> None:
        self.revocations = 0
        self.refreshes = 0
        self.failures = 0
        self._port = broker.port
        self._withdrawals = iter(
            [
                http_request("DELETE", f"/v1/users/{user_id}/grants", broker.port, around.key)
                for user_id in withdrawn
            ]
        )
        # Longer than any token lives: each of these makes the broker ask Google.
        self._refreshes = cycle(
            [around.request(broker, user_id, "?min_ttl=7200") for user_id in refreshed]
        )

    async def rage(self) -> None:
        """Until cancelled."""
        async with (
            await Line.open(self._port) as one,
            await Line.open(self._port) as other,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._withdraw(one))
            group.create_task(self._refresh(other))

    async def _withdraw(self, line: Line) -> None:
        async for request in _paced(self._withdrawals, _REVOCATIONS_A_SECOND):
            heard = await line.ask(request)
            self.revocations += 1
            self.failures += heard.status != 204

    async def _refresh(self, line: Line) -> None:
        async for request in _paced(self._refreshes, _REFRESHES_A_SECOND):
            heard = await line.ask(request)
            self.refreshes += 1
            self.failures += heard.status != 200


async def _round(
    broker: ServerProcess, requests: Sequence[bytes], seconds: float, storm: _Storm | None
) -> Round:
    raging = asyncio.create_task(storm.rage()) if storm else None
    measured = await run_distant_round(broker.port, requests, warm_up=0.5, seconds=seconds)
    if raging is not None:
        if raging.done():
            raging.result()
        raging.cancel()
        await asyncio.wait([raging])
    return measured


async def _paced(requests: Iterator[bytes], a_second: float) -> AsyncIterator[bytes]:
    for request in requests:
        yield request
        await asyncio.sleep(1 / a_second)
