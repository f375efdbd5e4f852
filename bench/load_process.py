"""The load generator in its own process, while this one does something else."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench.load import Round, run_round
from bench.servers import BenchError


async def run_round_in_process(
    port: int, requests: Sequence[bytes], *, warm_up: float, seconds: float
) -> Round:
    """Like `run_round`, without the server's CPU time."""
    arguments = {
        "port": port,
        "requests": [request.decode("latin-1") for request in requests],
        "warm_up": warm_up,
        "seconds": seconds,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.load_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps(arguments).encode())
    if process.returncode != 0:
        raise BenchError("the load generator ended")
    return Round(**json.loads(output))


def _main() -> None:
    arguments = json.load(sys.stdin)
    measured = run_round(
        arguments["port"],
        [request.encode("latin-1") for request in arguments["requests"]],
        warm_up=arguments["warm_up"],
        seconds=arguments["seconds"],
        cpu_seconds=lambda: 0.0,
    )
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    _main()
