"""What tokens held in memory take, and whether users who come once leave anything behind.

In this process, through all that keeps something for a token that was handed out: held tokens, the
warm path's answers, the time table of refreshes ahead, the last uses.
"""

import gc
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import uuid4

from bench.filling import CALENDAR
from bench.rows.cold import CALLER
from bench.rows.plan import Plan
from bench.table import Bound, Figure, Sense
from bench.world import Surroundings
from broker.audit.keys import audit_keys
from broker.callers.registry import CallerRegistry
from broker.clock import SystemClock
from broker.database.database import Database
from broker.grants.last_uses import LastUses
from broker.grants.model import AccessToken, Grant, GrantStatus
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.telemetry.audit import AuditTrail
from broker.telemetry.metrics import Metrics
from broker.tokens.ahead import RefreshAhead
from broker.tokens.counting import RequestLedger
from broker.tokens.held import HeldToken, HeldTokens, TokenRequest
from broker.tokens.refresher import Refresher
from broker.tokens.routes import TOKEN_ROUTE
from broker.tokens.warm_path import WarmPath
from broker.web.request_ids import RequestIds

_TOKEN_BYTES = 220


def measure_memory(plan: Plan, _around: Surroundings) -> list[Figure]:
    """Bytes for each token held, and growth when the memory is full already."""
    at_most = plan.count(100_000, 2_000)
    alone, in_all = _bytes_each(at_most, everything=False), _bytes_each(at_most, everything=True)
    users, bound = plan.count(300_000, 20_000), plan.count(20_000, 1_000)
    early, late = _growth(bound, users)
    return [
        Figure(
            "memory",
            f"bytes for each of {at_most:,} tokens held, beyond the token's own",
            alone,
            Bound(Sense.AT_MOST, 1024, "bytes"),
            {"with its warm answer and its place in the time table": round(in_all)},
        ),
        Figure(
            "memory",
            f"memory after {users:,} users came once ÷ after a fifth of them, {bound:,} held",
            late / early,
            Bound(Sense.AT_MOST, 1.1, "times"),
            {"MB at the end": late / 1e6},
        ),
    ]


def _bytes_each(count: int, *, everything: bool) -> float:
    tracemalloc.start()
    try:
        kept = _Kept(count)
        empty = _allocated()
        for number in range(count):
            kept.hand_out(number, everything=everything)
        return (_allocated() - empty) / count - _TOKEN_BYTES
    finally:
        tracemalloc.stop()


def _growth(at_most: int, users: int) -> tuple[int, int]:
    """Bytes after a fifth of the users, and after all."""
    kept = _Kept(at_most)
    tracemalloc.start()
    try:
        for number in range(users // 5):
            kept.hand_out(number, everything=True)
        early = _allocated()
        for number in range(users // 5, users):
            kept.hand_out(number, everything=True)
        return early, _allocated()
    finally:
        tracemalloc.stop()


class _Kept:
    """The parts of a broker that keep something for each hand-out."""

    def __init__(self, at_most: int) -> None:
        clock, metrics = SystemClock(), Metrics()
        # None of these is ever asked: nothing is read, refreshed or authenticated here.
        database, grants = cast(Database, None), cast(GrantStore, None)
        self._held = HeldTokens(users_at_most=at_most)
        self._ahead = RefreshAhead(
            held=self._held, grants=grants, refresher=cast(Refresher, None), clock=clock
        )
        self._ledger = RequestLedger(
            metrics=metrics,
            audit=AuditTrail(database, clock, metrics, audit_keys([Secret(32 * "-")])),
            last_uses=LastUses(grants, clock),
        )
        self._warm_path = WarmPath(
            registry=cast(CallerRegistry, None),
            ledger=self._ledger,
            metrics=metrics,
            clock=clock,
            request_ids=RequestIds(),
            route=TOKEN_ROUTE,
            answers_at_most=at_most,
        )

    def hand_out(self, number: int, *, everything: bool) -> None:
        """What a user's first fetch leaves behind."""
        user_id = f"user-{number:032}"
        grant, token = _fresh(user_id, number)
        request = TokenRequest(user_id=user_id, scopes=None, account=None, min_ttl=60)
        held = HeldToken(grant, token)
        watch = self._held.watch(user_id)
        self._held.keep(user_id, CALENDAR, held, watch)
        self._held.keep_answer(CALLER, request, held)
        self._held.unwatch(user_id, watch)
        if not everything:
            return
        self._ahead.plan(user_id, CALENDAR, held)
        scope = {"raw_path": f"/v1/users/{user_id}/token".encode(), "query_string": b""}
        self._warm_path.keep(scope, CALLER, request, held)


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _fresh(user_id: str, number: int) -> tuple[Grant, AccessToken]:
    """As if just read from the table: nothing is shared with the one before."""
    now = datetime.now(UTC)
    scopes = (CALENDAR[:10] + CALENDAR[10:],)
    grant = Grant(
        id=uuid4(),
        user_id=user_id,
        google_sub=f"{number:021}",
        email=f"{user_id}@example.com",
        client_id="bench",
        scopes=scopes,
        status=GrantStatus.ACTIVE,
        reason=None,
        is_default=True,
        version=1,
        connected_at=now,
        updated_at=now,
        last_used_at=None,
    )
    value = Secret("ya29." + str(number).rjust(_TOKEN_BYTES - 5, "x"))
    return grant, AccessToken(value, scopes, now, now + timedelta(hours=1))
