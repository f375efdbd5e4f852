"""What a broker keeps for each token that it handed out, without the rest of a broker around it.

`python -m bench.holding` has users come once, and says how much memory the process takes.
"""

import ctypes
import gc
import resource
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import click

from bench.filling import CALENDAR, sample_grant
from broker.audit.keys import audit_keys
from broker.audit.trail import AuditTrail
from broker.callers.model import Caller, Permission
from broker.callers.registry import CallerRegistry
from broker.clock import SystemClock
from broker.database.database import Database
from broker.grants.last_uses import LastUses
from broker.grants.model import AccessToken, scope_set
from broker.grants.store import GrantStore
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.fast_path import WarmPath
from broker.tokens.cache.proactive_refresh import RefreshAhead
from broker.tokens.cache.token_cache import HeldTokens, TokenRequest
from broker.tokens.counting import RequestLedger
from broker.tokens.refresh.refresher import Refresher
from broker.tokens.routes import TOKEN_ROUTE
from broker.web.request_ids import RequestIds

TOKEN_BYTES = 220

CALLER = Caller(
    name="bench",
    key_hashes=frozenset(),
    permissions=frozenset(Permission),
    scopes=(CALENDAR,),
    users=("*",),
)


class Holding:
    """Held tokens, the questions that they answer, the warm path, and the time table."""

    def __init__(self, at_most: int) -> None:
        clock, metrics = SystemClock(), Metrics()
        # None of these is ever asked: nothing is read, refreshed or authenticated here.
        database, grants = cast(Database, None), cast(GrantStore, None)
        self.held = HeldTokens(tokens_at_most=at_most, answers_at_most=2 * at_most)
        self.ahead = RefreshAhead(
            held=self.held, grants=grants, refresher=cast(Refresher, None), clock=clock
        )
        self.held.on_held, self.held.on_gone = self.ahead.plan, self.ahead.drop
        self._warm_path = WarmPath(
            registry=cast(CallerRegistry, None),
            held=self.held,
            ledger=RequestLedger(
                metrics=metrics,
                audit=AuditTrail(database, clock, metrics, audit_keys([Secret(32 * "-")])),
                last_uses=LastUses(grants, clock),
            ),
            metrics=metrics,
            clock=clock,
            request_ids=RequestIds(),
            route=TOKEN_ROUTE,
        )

    def hand_out(self, number: int) -> None:
        """What a user's first fetch leaves behind; tokens run out all through the next hour."""
        user_id = f"user-{number:032}"
        now = datetime.now(UTC) - timedelta(seconds=number * 7919 % 3600)
        # As if just read from the table, and from the wire: nothing is shared by chance.
        grant = sample_grant(_anew(user_id), now, sub=f"{number:021}", scope=_anew(CALENDAR))
        value = Secret("ya29." + str(number).rjust(TOKEN_BYTES - 5, "x"))
        token = HeldToken(
            grant, AccessToken(value, grant.scopes, now, now + timedelta(seconds=3599))
        )
        request = TokenRequest(user_id=_anew(user_id), scopes=None, account=None, min_ttl=60)
        watch = self.held.watch(user_id)
        self.held.keep(grant.user_id, scope_set(grant.scopes), token, watch)
        self.held.keep_answer(CALLER, request, token)
        self.held.unwatch(user_id, watch)
        scope = {"raw_path": f"/v1/users/{user_id}/token".encode(), "query_string": b""}
        self._warm_path.keep(scope, CALLER, request, token)


def bytes_each(count: int) -> tuple[float, float]:
    """For each token held, beyond its own bytes: when the memory has just filled, and later on.

    Later, as many users again have come and pushed the first ones out: tables have grown by then,
    and have holes.
    """
    tracemalloc.start()
    try:
        holding = Holding(count)
        # What all have in common is there before.
        holding.hand_out(2 * count)
        empty = _allocated()
        each = []
        for fill in range(2):
            for number in range(fill * count, (fill + 1) * count):
                holding.hand_out(number)
            each.append((_allocated() - empty) / count - TOKEN_BYTES)
        return each[0], each[1]
    finally:
        tracemalloc.stop()


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _anew(text: str) -> str:
    """An equal string that is another object."""
    return text.encode().decode()


def _resident() -> int:
    """Bytes of memory that this process takes now; where that can't be seen, the most so far.

    What the C library holds free is given back before: each time that a large table was made anew,
    the old one's room would be counted until it is used again.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--users", type=click.IntRange(5), default=1_000_000, show_default=True)
@click.option("--held", type=click.IntRange(1), default=100_000, show_default=True)
def main(*, users: int, held: int) -> None:
    """Have users come once each; print the process's bytes before, after a fifth and at the end."""
    holding = Holding(held)
    sizes = [_resident()]
    for number in range(users):
        holding.hand_out(number)
        if number + 1 in (users // 5, users):
            sizes.append(_resident())
    click.echo(" ".join(map(str, sizes)))


if __name__ == "__main__":
    main()
