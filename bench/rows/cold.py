"""A cold fetch: nothing held, so one read of the table and one opening of what is sealed.

In this process, without HTTP: beside a bare read by primary key, in the same loop.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import asyncpg

from bench import filling
from bench.loops import new_event_loop
from bench.rows.plan import Plan
from bench.servers import BenchError
from bench.table import Bound, Figure, Sense
from bench.world import Surroundings
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, Permission
from broker.clock import SystemClock
from broker.database.database import Database
from broker.database.shares import OF_A_CALLER, use_share_of_caller
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import HeldTokens, TokenRequest
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.pending_hint import UnconfirmedConsents
from broker.tokens.refresh.refresher import Refresher

_POOL_SIZE = OF_A_CALLER
"""What one caller may use; so much for the bare reads, too."""

_GROWTH_STEPS = 10
_SHARES = 10

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
    async with _bench(url, around.secret_key) as bench:
        ids = [row["id"] for row in await bench.bare.fetch("SELECT id FROM grants")]
        cold, bare, single = await _by_turns(
            plan, (bench.fetch, users), (bench.read, ids), (bench.read_on_one, ids)
        )
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
    few, many = around.new_database(), around.new_database()
    users_of_few = around.fill(few, small)[: plan.count(2000, 200)]
    users_of_many: list[str] = []
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        for number in range(_GROWTH_STEPS):
            plan.tell(f"growing the table: {number + 1} of {_GROWTH_STEPS}")
            runner.run(filling.fill_with_lookalikes(many, large // _GROWTH_STEPS))
            users_of_many += around.fill(many, plan.count(200, 20))
        before, after = runner.run(
            _compare_tables(plan, around, (few, users_of_few), (many, users_of_many))
        )
    return [
        Figure(
            "growth",
            f"cold fetch p50 when {small:,} grants become {large:,}: grows by",
            median(a / b for a, b in zip(after, before, strict=True)),
            Bound(Sense.AT_MOST, 1.2, "times"),
            {
                "p50 before µs": round(median(before) * 1e6),
                "p50 after µs": round(median(after) * 1e6),
            },
        )
    ]


async def _compare_tables(
    plan: Plan, around: Surroundings, *tables: tuple[str, Sequence[str]]
) -> list[list[float]]:
    async with AsyncExitStack() as stack:
        contestants = []
        for url, users in tables:
            await filling.settle(url)
            bench = await stack.enter_async_context(_bench(url, around.secret_key))
            contestants.append((bench.fetch, users))
        return await _by_turns(plan, *contestants)


async def _by_turns(
    plan: Plan, *contestants: tuple[Callable[[Any], Awaitable[None]], Sequence[object]]
) -> list[list[float]]:
    """Each one's times for a tenth of what it is asked for, medians in seconds; those of one place
    were neighbours in time: a machine that was busy was so for all.
    """
    medians: list[list[float]] = [[] for _ in contestants]
    for number in range(-_SHARES, _SHARES * plan.rounds(3)):
        for times, (what, items) in zip(medians, contestants, strict=True):
            share = len(items) // _SHARES
            at = (number % _SHARES) * share
            taken = await _each(what, items[at : at + share])
            if number >= 0:  # Before, pages come into memory, and statements are prepared.
                times.append(median(taken))
    return medians


async def _each(what: Callable[[Any], Awaitable[None]], items: Iterable[object]) -> list[float]:
    times = []
    for item in items:
        began = time.perf_counter()
        await what(item)
        times.append(time.perf_counter() - began)
    return times


@asynccontextmanager
async def _bench(url: str, secret_key: str) -> AsyncIterator[_Bench]:
    use_share_of_caller(CALLER.name)
    database = Database(Secret(url))
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
