"""A runaway caller as a process: it sends requests endlessly, over many connections.

Prints a line at the first and at the thousandth answer of a status; when its input ends, the number
of answers of each.
"""

import asyncio
import itertools
import json
import sys
import traceback
from collections import Counter

_UNKNOWN_USER_CONNECTIONS = 300
_BATCH_CONNECTIONS = 16
_INVALID_CONNECTIONS = 100
_SLOW_CONNECTIONS = 50
_BATCH = json.dumps({"requests": [{"user_id": f"unknown-{number}"} for number in range(1000)]})
_SLOW_HEAD = (
    "POST /v1/tokens HTTP/1.1\r\nHost: broker.test\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
)


class _RunawayCaller:
    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self.answers: Counter[str] = Counter()

    def _count(self, status: str) -> None:
        self.answers[status] += 1
        if self.answers[status] in (1, 1000):
            sys.stdout.write(f"{status} {self.answers[status]}\n")
            sys.stdout.flush()

    async def request_unknown_users(self, number: int) -> None:
        """Request tokens of users that do not exist, one after another."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for count in itertools.count():
            await self._ask(reader, writer, f"GET /v1/users/unknown-{number}-{count}/token")

    async def request_batches(self) -> None:
        """Request a batch of a thousand of them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while True:
            await self._ask(reader, writer, "POST /v1/tokens", "application/json", _BATCH)

    async def send_invalid_requests(self) -> None:
        """Send invalid requests: they are refused immediately, and so can be repeated quickly."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        kind = "application/x-www-form-urlencoded"
        while True:
            await self._ask(reader, writer, "POST /oauth/token", kind, "grant_type=nonsense")

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: str,
        kind: str = "",
        body: str = "",
    ) -> None:
        entity = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n" if body else ""
        writer.write(
            f"{line} HTTP/1.1\r\nHost: broker.test\r\n"
            f"Authorization: Bearer {self._key}\r\n{entity}\r\n{body}".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        self._count(head[9:12].decode())
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(length)

    async def send_slowly(self) -> None:
        """Send a batch whose body never ends; start again after the broker's answer."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(_SLOW_HEAD.format(key=self._key).encode())
            answer = asyncio.ensure_future(reader.read(12))
            while not answer.done():
                writer.write(b" ")
                await asyncio.wait((answer,), timeout=0.5)
                # Read before sending more: a client that goes on sending after its answer is
                # reset, and loses the answer.
                await asyncio.sleep(0)
            self._count("slow " + answer.result()[9:12].decode())
            writer.close()


async def _run(port: int, key: str) -> None:
    caller = _RunawayCaller(port, key)
    tasks = [
        asyncio.create_task(caller.request_unknown_users(number))
        for number in range(_UNKNOWN_USER_CONNECTIONS)
    ]
    tasks += [asyncio.create_task(caller.request_batches()) for _ in range(_BATCH_CONNECTIONS)]
    tasks += [
        asyncio.create_task(caller.send_invalid_requests()) for _ in range(_INVALID_CONNECTIONS)
    ]
    tasks += [asyncio.create_task(caller.send_slowly()) for _ in range(_SLOW_CONNECTIONS)]
    await asyncio.to_thread(sys.stdin.read)
    faults = [_described(task) for task in tasks if task.done()]
    sys.stdout.write(json.dumps({"answers": caller.answers, "faults": faults}))


def _described(task: asyncio.Task[None]) -> str:
    """Return the traceback of a task that ended."""
    error = task.exception()
    return "".join(traceback.format_exception(error)) if error is not None else repr(task)


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), sys.argv[2]))
