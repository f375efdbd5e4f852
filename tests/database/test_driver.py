"""A connection may be given up at any moment of its making, and nothing is said of it later."""

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

TURNS = 16
"""Turns of the event loop, more than it takes until the server is asked for TLS."""


@pytest.fixture
async def complaints() -> AsyncIterator[list[str]]:
    """What the event loop finds wrong while the test runs."""
    found: list[str] = []

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        found.append(f"{context['message']}: {context.get('exception')}")

    # What earlier tests have left is none of it.
    gc.collect()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(note)
    yield found
    loop.set_exception_handler(None)


async def _turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_connecting_can_be_given_up_at_any_moment(
    database_url: str, complaints: list[str]
) -> None:
    for turns in range(TURNS):
        connecting = asyncio.create_task(connect(database_url))
        await _turn(turns)
        connecting.cancel()
        await asyncio.wait([connecting])
        if not connecting.cancelled():
            # Where turns take long, it is made within a few.
            connecting.result().terminate()
        del connecting
        await asyncio.sleep(0.01)
        gc.collect()
    assert complaints == []


async def test_a_query_can_be_broken_off_and_its_connection_lost_at_any_moment(
    database_url: str, complaints: list[str]
) -> None:
    for turns in range(TURNS):
        connection: asyncpg.Connection = await connect(database_url)
        query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.01)
        query.cancel()
        await _turn(turns)
        connection.terminate()
        await asyncio.wait([query])
        del query, connection
        await asyncio.sleep(0.01)
        gc.collect()
    assert complaints == []


async def test_a_server_that_hangs_up_when_asked_for_tls_is_told_of(complaints: list[str]) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionError):
            await connect(f"postgresql://broker@127.0.0.1:{port}/broker")
    gc.collect()
    assert complaints == []


def test_a_driver_without_what_is_mended_is_taken_as_it_is() -> None:
    script = (
        "from asyncpg import connect_utils; del connect_utils.TLSUpgradeProto;"
        "import broker.database.driver"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_the_broker_connects_in_no_other_way() -> None:
    assert [
        str(path.relative_to(ROOT))
        for path in Path(ROOT, "broker").rglob("*.py")
        if path.name != "driver.py" and "asyncpg.connect(" in path.read_text(encoding="utf-8")
    ] == []
