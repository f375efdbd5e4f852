"""Memory of the token cache, and growth by users that come only once."""

import subprocess
import sys

from bench.cache_memory import bytes_each
from bench.environment import BenchEnvironment
from bench.rows.plan import Plan
from bench.servers import BenchError
from bench.table import Bound, Figure, Sense


def measure_memory(plan: Plan, _around: BenchEnvironment) -> list[Figure]:
    """Measure the bytes per cached token, and growth while the cache is full."""
    at_most = plan.count(100_000, 2_000)
    plan.progress(f"holding {at_most:,} tokens")
    filled, later = bytes_each(at_most)
    users, bound = plan.count(1_000_000, 20_000), plan.count(100_000, 1_000)
    plan.progress(f"{users:,} users come once")
    empty, early, late = _sizes(users, bound)
    return [
        Figure(
            "memory",
            f"bytes for each of {at_most:,} tokens held, beyond the token's own: all that is kept",
            max(filled, later),
            Bound(Sense.AT_MOST, 1024, "bytes"),
            {"just filled": round(filled), "when all were pushed out by others": round(later)},
        ),
        Figure(
            "memory",
            f"memory of the process after {users:,} users came once ÷ after a fifth of them, "
            f"{bound:,} held",
            late / early,
            Bound(Sense.AT_MOST, 1.1, "times"),
            {"MB with nobody": empty / 1e6, "MB at the end": late / 1e6},
        ),
    ]


def _sizes(users: int, held: int) -> list[int]:
    """Return the bytes of a separate process: before, after a fifth of the users, at the end."""
    done = subprocess.run(
        (sys.executable, "-m", "bench.cache_memory", f"--users={users}", f"--held={held}"),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchError("python -m bench.cache_memory did not finish")
    return [int(size) for size in done.stdout.split()]
