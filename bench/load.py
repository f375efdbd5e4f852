"""Load generator: many keep-alive connections, each with one request at a time.

It speaks raw HTTP/1.1 and parses only what it must, so that it needs less CPU time than any server.
Everything but a complete 200 counts as a failure.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from bench.loops import new_event_loop

_OK = b"HTTP/1.1 200 "
_LENGTH = b"\r\ncontent-length: "
_LENGTH_IN_CAPITALS = b"\r\nContent-Length: "

_EXTRA_STEPS = 1000
"""Of 10 ms. A round without any response continues this long: without one it has no rate."""


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one round."""

    seconds: float
    answers: int
    failures: int
    p50: float
    """Seconds from a request to its complete response; so is `p99`."""
    p99: float
    cpu_seconds: float
    """CPU time of the server's process."""
    own_cpu_seconds: float
    """CPU time of this process. Near `seconds`, the load generator is the bottleneck."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.answers / self.seconds

    @property
    def cpu_per_answer(self) -> float:
        """Seconds of the server's CPU time."""
        return self.cpu_seconds / max(1, self.answers)


class _RoundResults:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.failures = 0
        self.is_over = False


class _Connection(asyncio.Protocol):
    """Repeats one request."""

    def __init__(self, request: bytes, results: _RoundResults) -> None:
        self._request = request
        self._results = results
        self._received = b""
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        head_end = data.find(b"\r\n\r\n")
        found = data.find(_LENGTH, 0, head_end)
        if found < 0:
            found = data.find(_LENGTH_IN_CAPITALS, 0, head_end)
        length_at = found + len(_LENGTH)
        length_end = data.find(b"\r", length_at)
        if head_end < 0 or len(data) < head_end + 4 + int(data[length_at:length_end]):
            self._received = data
            return
        self._received = b""
        now = time.perf_counter()
        results = self._results
        results.times.append(now - self._sent)
        if not data.startswith(_OK):
            results.failures += 1
        if not results.is_over:
            self._sent = now
            self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._results.is_over:
            self._results.failures += 1


def run_round(
    port: int,
    requests: Sequence[bytes],
    *,
    warm_up: float,
    seconds: float,
    cpu_seconds: Callable[[], float],
) -> Round:
    """Run one connection per request; the first `warm_up` seconds do not count."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_round(port, requests, warm_up, seconds, cpu_seconds))


async def _round(
    port: int,
    requests: Sequence[bytes],
    warm_up: float,
    seconds: float,
    cpu_seconds: Callable[[], float],
) -> Round:
    loop = asyncio.get_running_loop()
    results = _RoundResults()
    connections = [
        await loop.create_connection(partial(_Connection, request, results), "127.0.0.1", port)
        for request in requests
    ]
    gc.disable()
    try:
        await asyncio.sleep(warm_up)
        results.times.clear()
        began, cpu_began, own_began = time.perf_counter(), cpu_seconds(), time.process_time()
        await asyncio.sleep(seconds)
        for _ in range(_EXTRA_STEPS):
            if results.times or results.failures:
                break
            await asyncio.sleep(0.01)
        took = time.perf_counter() - began
        cpu, own = cpu_seconds() - cpu_began, time.process_time() - own_began
        times = sorted(results.times)
    finally:
        gc.enable()
        results.is_over = True
        for transport, _ in connections:
            transport.close()
    return Round(
        seconds=took,
        answers=len(times),
        failures=results.failures,
        p50=times[len(times) // 2] if times else 0.0,
        p99=times[len(times) * 99 // 100] if times else 0.0,
        cpu_seconds=cpu,
        own_cpu_seconds=own,
    )
