"""Memory per cached token, measured on the token cache alone.

`python -m bench.cache_memory` caches a token for each of many users and prints the memory used.
"""

import ctypes
import gc
import resource
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from bench.sample_grants import CALENDAR, sample_grant
from broker.callers.model import Caller, Permission
from broker.clock import SystemClock
from broker.grants.model import AccessToken, to_scope_set
from broker.secret import Secret
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache
from broker.tokens.fast_path import cacheable_target
from broker.tokens.refresh.proactive_refresh import RefreshSchedule
from broker.tokens.token_request import TokenRequest

TOKEN_BYTES = 220

CALLER = Caller(
    name="bench",
    key_hashes=frozenset(),
    permissions=frozenset(Permission),
    scopes=(CALENDAR,),
    users=("*",),
)


class FilledCache:
    """The token cache and the schedule of proactive refreshes."""

    def __init__(self, at_most: int) -> None:
        self.schedule = RefreshSchedule(SystemClock())
        self.held = TokenCache(
            tokens_at_most=at_most,
            answers_at_most=2 * at_most,
            on_put=self.schedule.add,
            on_removed=self.schedule.remove,
        )

    def hand_out(self, number: int) -> None:
        """Cache a user's first token; the expiry times spread over the next hour."""
        user_id = f"user-{number:032}"
        now = datetime.now(UTC) - timedelta(seconds=number * 7919 % 3600)
        # As if read from the table and the wire: no object is shared by chance.
        grant = sample_grant(_copy(user_id), now, sub=f"{number:021}", scope=_copy(CALENDAR))
        value = Secret("ya29." + str(number).rjust(TOKEN_BYTES - 5, "x"))
        token = CachedToken(
            grant, AccessToken(value, grant.scopes, now, now + timedelta(seconds=3599))
        )
        request = TokenRequest(user_id=_copy(user_id), scopes=None, account=None, min_ttl=60)
        scope = {"raw_path": f"/v1/users/{user_id}/token".encode(), "query_string": b""}
        with self.held.watch(user_id) as watch:
            self.held.put(grant.user_id, to_scope_set(grant.scopes), token, watch)
            self.held.put_answer(CALLER, request, token, target=cacheable_target(scope))


def bytes_each(count: int) -> tuple[float, float]:
    """Return the bytes per cached token beyond its own: just after filling, and later.

    Later means after as many users again have evicted the first ones: tables have grown by then and
    are fragmented.
    """
    tracemalloc.start()
    try:
        holding = FilledCache(count)
        # Create what all tokens share before.
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


def _copy(text: str) -> str:
    """Return an equal string that is another object."""
    return text.encode().decode()


def _resident() -> int:
    """Return the process's resident bytes, or their maximum so far where the system has no /proc.

    The C library's free memory is returned to the system first: after each resize of a large table,
    the old one's memory would count until it is reused.
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
    """Cache a token per user; print the process's bytes before, after a fifth, and at the end."""
    holding = FilledCache(held)
    sizes = [_resident()]
    for number in range(users):
        holding.hand_out(number)
        if number + 1 in (users // 5, users):
            sizes.append(_resident())
    click.echo(" ".join(map(str, sizes)))


if __name__ == "__main__":
    main()
