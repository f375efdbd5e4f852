"""Connecting may be cancelled at any time, and asyncio logs no error later."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from broker.database.driver import connect
from tests.docs.documents import ROOT

ITERATIONS = 16
"""Event-loop iterations: more than it takes until the TLS request is sent."""


@pytest.fixture
async def loop_errors() -> AsyncIterator[list[str]]:
    """The errors that the event loop reports while the test runs."""
    found: list[str] = []

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found.append(f"{context['message']}: {context.get('exception')}")

    # Collect the garbage of earlier tests first.
    gc.collect()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(note)
    yield found
    loop.set_exception_handler(None)


async def _iterate(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_connecting_can_be_cancelled_at_any_time(
    database_url: str, loop_errors: list[str]
) -> None:
    for iterations in range(ITERATIONS):
        connecting = asyncio.create_task(connect(database_url))
        await _iterate(iterations)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            # On a slow machine it connects within a few iterations.
            connecting.result().terminate()
        del connecting
        await asyncio.sleep(0.01)
        gc.collect()
    assert loop_errors == []


async def test_a_query_can_be_cancelled_and_its_connection_lost_at_any_time(
    database_url: str, loop_errors: list[str]
) -> None:
    for iterations in range(ITERATIONS):
        connection: asyncpg.Connection = await connect(database_url)
        query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.01)
        query.cancel()
        await _iterate(iterations)
        connection.terminate()
        await asyncio.wait([query])
        del query, connection
        await asyncio.sleep(0.01)
        gc.collect()
    assert loop_errors == []


async def test_a_server_that_closes_the_connection_at_the_tls_request_raises(
    loop_errors: list[str],
) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError):
            await connect(f"postgresql://broker@127.0.0.1:{port}/broker")
    gc.collect()
    assert loop_errors == []


def test_a_driver_without_the_fixed_class_can_be_used() -> None:
    script = (
        "from asyncpg import connect_utils; del connect_utils.TLSUpgradeProto;"
        "import broker.database.driver"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_no_other_module_calls_asyncpg_connect() -> None:
    assert [
        str(path.relative_to(ROOT))
        for path in Path(ROOT, "broker").rglob("*.py")
        if path.name != "driver.py" and "asyncpg.connect(" in path.read_text(encoding="utf-8")
    ] == []
