"""A cold fetch: nothing held, so one read of the table and one opening of what is sealed.

In this process, without HTTP: beside a bare read by primary key, in the same loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import asyncpg

from bench import filling
from bench.loops import new_event_loop
from bench.rows.plan import Plan
from bench.servers import BenchError
from bench.table import Bound, Figure, Sense
from bench.turns import quantile
from bench.world import Surroundings
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, Permission
from broker.clock import SystemClock
from broker.database.database import Database
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.held import HeldTokens, TokenRequest
from broker.tokens.held_token import HeldToken
from broker.tokens.refresher import Refresher
from broker.tokens.unconfirmed import UnconfirmedConsents

_POOL_SIZE = 10
_GROWTH_STEPS = 10

CALLER = Caller(
    name="bench",
    key_hashes=frozenset(),
    permissions=frozenset(Permission),
    scopes=(filling.CALENDAR,),
    users=("*",),
    return_to=(),
    require_confirmation=False,
    workload=None,
)

LIMITS = CallerLimits(Metrics())


@dataclass(frozen=True, slots=True)
class _Bench:
    """The broker's part and the bare one, on the same database."""

    store: GrantStore
    bare: asyncpg.Pool
    single: asyncpg.Connection

    async def fetch(self, user_id: str) -> None:
        """As for a caller, in a broker that holds nothing yet."""
        dispenser = TokenDispenser(
            held=HeldTokens(),
            grants=self.store,
            # What is stored lives for an hour: nobody asks Google.
            refresher=cast(Refresher, None),
            limits=LIMITS,
            unconfirmed=cast(UnconfirmedConsents, None),
            clock=SystemClock(),
        )
        request = TokenRequest(user_id=user_id, scopes=None, account=None, min_ttl=60)
        answer = await dispenser.dispense(CALLER, request)
        if not isinstance(answer, HeldToken):
            raise BenchError(f"a cold fetch was refused: {answer.code}")

    async def read(self, grant_id: object) -> None:
        await self.bare.fetchrow("SELECT * FROM grants WHERE id = $1", grant_id)

    async def read_on_one(self, grant_id: object) -> None:
        await self.single.fetchrow("SELECT * FROM grants WHERE id = $1", grant_id)


def measure_cold(plan: Plan, around: Surroundings) -> list[Figure]:
    """The ratio to a bare read; and beside it, how both fare without the pool."""
    url = around.new_database()
    users = around.fill(url, plan.count(2000, 200))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return [runner.run(_compare(plan, around, url, users))]


async def _compare(plan: Plan, around: Surroundings, url: str, users: Sequence[str]) -> Figure:
    await filling.settle(url)
    share = len(users) // 10
    async with _bench(url, around.secret_key) as bench:
        ids = [row["id"] for row in await bench.bare.fetch("SELECT id FROM grants")]
        cold: list[float] = []
        bare: list[float] = []
        single: list[float] = []
        for number in range(-1, 10 * plan.rounds(3)):
            at = (number % 10) * share
            taken = [
                await _each(bench.fetch, users[at : at + share]),
                await _each(bench.read, ids[at : at + share]),
                await _each(bench.read_on_one, ids[at : at + share]),
            ]
            if number >= 0:  # The first prepares the statements.
                for times, time_taken in zip((cold, bare, single), taken, strict=True):
                    times.append(median(time_taken))
    return Figure(
        "cold",
        "cold fetch ÷ a bare asyncpg read by primary key",
        median(b / c for b, c in zip(bare, cold, strict=True)),
        Bound(Sense.AT_LEAST, 0.6),
        {
            "cold p50 µs": round(median(cold) * 1e6),
            "bare pool p50 µs": round(median(bare) * 1e6),
            "one bare connection p50 µs": round(median(single) * 1e6),
        },
    )


def measure_growth(plan: Plan, around: Surroundings) -> list[Figure]:
    """The same fetch from a small table, and from one a hundred times as large."""
    small, large = plan.count(10_000, 1_000), plan.count(1_000_000, 10_000)
    url = around.new_database()
    users = around.fill(url, small)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        before = runner.run(_median_fetch(plan, around, url, users))
        step = (large - small) // _GROWTH_STEPS
        users = []
        for number in range(_GROWTH_STEPS):
            plan.tell(f"growing the table: {number + 1} of {_GROWTH_STEPS}")
            runner.run(filling.fill_with_lookalikes(url, step))
            users += around.fill(url, plan.count(200, 20))
        after = runner.run(_median_fetch(plan, around, url, users))
    return [
        Figure(
            "growth",
            f"cold fetch p50 when {small:,} grants become {large:,}: grows by",
            after / before,
            Bound(Sense.AT_MOST, 1.2, "times"),
            {"p50 before µs": round(before * 1e6), "p50 after µs": round(after * 1e6)},
        )
    ]


async def _median_fetch(plan: Plan, around: Surroundings, url: str, users: Sequence[str]) -> float:
    await filling.settle(url)
    async with _bench(url, around.secret_key) as bench:
        await _each(bench.fetch, users)  # Pages in memory, statements prepared.
        rounds = range(plan.rounds(5))
        return quantile([median(await _each(bench.fetch, users[:2000])) for _ in rounds], 0.5)


async def _each(what: Callable[[Any], Awaitable[None]], items: Iterable[object]) -> list[float]:
    times = []
    for item in items:
        began = time.perf_counter()
        await what(item)
        times.append(time.perf_counter() - began)
    return times


@asynccontextmanager
async def _bench(url: str, secret_key: str) -> AsyncIterator[_Bench]:
    database = Database(Secret(url), max_connections=_POOL_SIZE)
    await database.open()
    store = GrantStore(
        database, filling.sealer_of(secret_key), SystemClock(), keep_access_tokens=True
    )
    single = await asyncpg.connect(url)
    try:
        async with asyncpg.create_pool(url, min_size=1, max_size=_POOL_SIZE) as bare:
            yield _Bench(store, bare, single)
    finally:
        await single.close()
        await database.close()
