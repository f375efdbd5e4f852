"""A proxy that delays every byte by some milliseconds, as to a server in another region."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def distant_port(port: int, *, one_way_seconds: float) -> Iterator[int]:
    """Yield a port of 127.0.0.1 that forwards to another with this delay."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        listening = asyncio.run_coroutine_threadsafe(_listen(port, one_way_seconds), loop)
        server = listening.result(10)
        yield int(server.sockets[0].getsockname()[1])
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _listen(port: int, delay: float) -> asyncio.Server:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(
                _one_way(reader, there[1], delay), _one_way(there[0], writer, delay)
            )
        writer.close()

    return await asyncio.start_server(carry, "127.0.0.1", 0)


async def _one_way(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while chunk := await reader.read(65_536):
            # Chunks overlap in flight: each arrives late, but the throughput is unchanged.
            loop.call_later(delay, writer.write, chunk)
    loop.call_later(delay, writer.close)


async def _end(server: asyncio.Server) -> None:
    server.close()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
