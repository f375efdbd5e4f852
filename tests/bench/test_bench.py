"""The benchmark's load generator, and its exit status."""

import asyncio
import json
import subprocess
import sys

import pytest

from bench.comparison import Comparison
from bench.load import Round, run_round


def measured(answers: int, *, failures: int = 0, cpu: float = 1.0, own_cpu: float = 0.5) -> Round:
    return Round(1.0, answers, failures, 0.001, 0.002, cpu, own_cpu)


def test_a_load_generator_that_was_the_bottleneck_is_noticed() -> None:
    busy_load = measured(100, cpu=0.6, own_cpu=0.97)
    idle_load = (measured(100),)
    assert Comparison({"broker": (busy_load,), "bare": idle_load}).load_was_the_limit
    assert not Comparison({"broker": idle_load, "bare": idle_load}).load_was_the_limit


@pytest.mark.parametrize(("status", "failures"), [(b"200 OK", 0), (b"503 Service Unavailable", 1)])
async def test_everything_but_a_200_is_a_failure(status: bytes, failures: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            # In two pieces, as a head and its body may well arrive.
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 5\r\n\r\nhe")
            await asyncio.sleep(0.01)
            writer.write(b"llo")

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome = await asyncio.to_thread(
            run_round,
            port,
            [b"GET / HTTP/1.1\r\n\r\n"],
            warm_up=0.05,
            seconds=1.0,
            cpu_seconds=lambda: 0.0,
        )
    assert outcome.answers > 1
    assert min(outcome.failures, 1) == failures


@pytest.mark.process
def test_a_run_prints_the_ratio_and_fails_below_the_bound() -> None:
    arguments = ("--rounds=1", "--seconds=1", "--connections=2", "--json", "--at-least=99")
    done = subprocess.run(
        (sys.executable, "-m", "bench.warm", *arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    outcome = json.loads(done.stdout)
    assert done.returncode == 1
    assert outcome["failures"] == 0
    assert outcome["ratio"] > 0
    assert outcome["medians"]["broker"]["rate"] > 10
