"""The load in a process of its own, for when this one has something else to do meanwhile."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench.load import Round, run_round
from bench.servers import BenchError


async def run_distant_round(
    port: int, requests: Sequence[bytes], *, warm_up: float, seconds: float
) -> Round:
    """As `run_round`; the server's processor time is not asked for."""
    asked = {
        "port": port,
        "requests": [request.decode("latin-1") for request in requests],
        "warm_up": warm_up,
        "seconds": seconds,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.distant_load",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate(json.dumps(asked).encode())
    if process.returncode != 0:
        raise BenchError("the load ended by itself")
    return Round(**json.loads(told))


def _main() -> None:
    asked = json.load(sys.stdin)
    measured = run_round(
        asked["port"],
        [request.encode("latin-1") for request in asked["requests"]],
        warm_up=asked["warm_up"],
        seconds=asked["seconds"],
        cpu_seconds=lambda: 0.0,
    )
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    _main()
