"""A cold request: no cached token, so one read of the table and one sealed token to open.

It runs in this process, without HTTP, and is compared with a bare read by primary key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import asyncpg

from bench import sample_grants
from bench.environment import BenchEnvironment
from bench.loops import new_event_loop
from bench.rows.plan import Plan
from bench.servers import BenchError
from bench.table import Bound, Figure, Sense
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, Permission
from broker.clock import SystemClock
from broker.database.database import Database
from broker.database.shares import CALLER_CONNECTIONS, use_share_of_caller
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.pending_hints import PendingConsentHints
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.token_request import TokenRequest

_POOL_SIZE = CALLER_CONNECTIONS
"""The concurrency of one caller; the bare reads have the same."""

_GROWTH_STEPS = 10
_SHARES = 10

CALLER = Caller(
    name="bench",
    key_hashes=frozenset(),
    permissions=frozenset(Permission),
    scopes=(sample_grants.CALENDAR,),
    users=("*",),
    return_to=(),
    require_confirmation=False,
    workload=None,
)

LIMITS = CallerLimits(Metrics())


@dataclass(frozen=True, slots=True)
class _Bench:
    """The broker's dispenser and bare reads, on the same database."""

    store: GrantStore
    bare: asyncpg.Pool
    single: asyncpg.Connection

    async def fetch(self, user_id: str) -> None:
        """Request a token as a caller does, with an empty cache."""
        dispenser = TokenDispenser(
            cache=TokenCache(),
            grants=self.store,
            # Stored tokens live for an hour: nothing calls Google.
            refresher=cast(Refresher, None),
            limits=LIMITS,
            pending=cast(PendingConsentHints, None),
            clock=SystemClock(),
        )
        request = TokenRequest(user_id=user_id, scopes=None, account=None, min_ttl=60)
        answer = await dispenser.dispense(CALLER, request)
        if not isinstance(answer, CachedToken):
            raise BenchError(f"a cold request was refused: {answer.code}")

    async def read(self, grant_id: object) -> None:
        await self.bare.fetchrow("SELECT * FROM grants WHERE id = $1", grant_id)

    async def read_on_one(self, grant_id: object) -> None:
        await self.single.fetchrow("SELECT * FROM grants WHERE id = $1", grant_id)


def measure_cold(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Compare with a bare read; both also without the pool."""
    url = environment.new_database()
    users = environment.fill(url, plan.count(2000, 200))
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return [runner.run(_compare(plan, environment, url, users))]


async def _compare(
    plan: Plan, environment: BenchEnvironment, url: str, users: Sequence[str]
) -> Figure:
    await sample_grants.settle(url)
    async with _bench(url, environment.secret_key) as bench:
        ids = [row["id"] for row in await bench.bare.fetch("SELECT id FROM grants")]
        cold, bare, single = await _alternate(
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


def measure_growth(plan: Plan, environment: BenchEnvironment) -> list[Figure]:
    """Compare a small table with one a hundred times as large."""
    small, large = plan.count(10_000, 1_000), plan.count(1_000_000, 10_000)
    few, many = environment.new_database(), environment.new_database()
    users_of_few = environment.fill(few, small)[: plan.count(2000, 200)]
    users_of_many: list[str] = []
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        for number in range(_GROWTH_STEPS):
            plan.progress(f"growing the table: {number + 1} of {_GROWTH_STEPS}")
            runner.run(sample_grants.fill_with_lookalikes(many, large // _GROWTH_STEPS))
            users_of_many += environment.fill(many, plan.count(200, 20))
        before, after = runner.run(
            _compare_tables(plan, environment, (few, users_of_few), (many, users_of_many))
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
    plan: Plan, environment: BenchEnvironment, *tables: tuple[str, Sequence[str]]
) -> list[list[float]]:
    async with AsyncExitStack() as stack:
        contestants = []
        for url, users in tables:
            await sample_grants.settle(url)
            bench = await stack.enter_async_context(_bench(url, environment.secret_key))
            contestants.append((bench.fetch, users))
        return await _alternate(plan, *contestants)


async def _alternate(
    plan: Plan, *contestants: tuple[Callable[[Any], Awaitable[None]], Sequence[object]]
) -> list[list[float]]:
    """Return each measurement's medians in seconds, per tenth of its requests. Medians with the
    same index were measured next to each other, so that a busy machine slows all of them.
    """
    medians: list[list[float]] = [[] for _ in contestants]
    for number in range(-_SHARES, _SHARES * plan.repetitions(3)):
        for times, (what, items) in zip(medians, contestants, strict=True):
            share = len(items) // _SHARES
            at = (number % _SHARES) * share
            taken = await _each(what, items[at : at + share])
            if number >= 0:  # Load pages into memory and prepare statements first.
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
        database, sample_grants.sealer_of(secret_key), SystemClock(), keep_access_tokens=True
    )
    single = await asyncpg.connect(url)
    try:
        async with asyncpg.create_pool(url, min_size=1, max_size=_POOL_SIZE) as bare:
            yield _Bench(store, bare, single)
    finally:
        await single.close()
        await database.close()
