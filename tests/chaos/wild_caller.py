"""A caller gone wild, as a process of its own: it asks for ever, over many connections.

Prints a line when it got the first answer of a status, and the thousandth; when its input ends, how
many there were of each.
"""

import asyncio
import itertools
import json
import sys
import traceback
from collections import Counter

_ASKING = 300
_BATCHING = 16
_TALKING_NONSENSE = 100
_DAWDLING = 50
_BATCH = json.dumps({"requests": [{"user_id": f"unknown-{number}"} for number in range(1000)]})
_DAWDLING_HEAD = (
    "POST /v1/tokens HTTP/1.1\r\nHost: broker.test\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
)


class _WildCaller:
    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._key = key
        self.answers: Counter[str] = Counter()

    def _count(self, status: str) -> None:
        self.answers[status] += 1
        if self.answers[status] in (1, 1000):
            sys.stdout.write(f"{status} {self.answers[status]}\n")
            sys.stdout.flush()

    async def ask_for_strangers(self, number: int) -> None:
        """One user after the other that nobody has ever heard of."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for count in itertools.count():
            await self._ask(reader, writer, f"GET /v1/users/unknown-{number}-{count}/token")

    async def ask_for_many(self) -> None:
        """A thousand of them at a time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while True:
            await self._ask(reader, writer, "POST /v1/tokens", "application/json", _BATCH)

    async def talk_nonsense(self) -> None:
        """What is refused at once, and so may be said again at once."""
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

    async def dawdle(self) -> None:
        """A batch whose body never ends; anew when the broker has had enough of it."""
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            writer.write(_DAWDLING_HEAD.format(key=self._key).encode())
            answer = asyncio.ensure_future(reader.read(12))
            while not answer.done():
                writer.write(b" ")
                await asyncio.wait((answer,), timeout=0.5)
                # What has come is read before more is sent: whoever goes on sending after its
                # answer is reset in the end, and loses it.
                await asyncio.sleep(0)
            self._count("slow " + answer.result()[9:12].decode())
            writer.close()


async def _run(port: int, key: str) -> None:
    wild = _WildCaller(port, key)
    tasks = [asyncio.create_task(wild.ask_for_strangers(number)) for number in range(_ASKING)]
    tasks += [asyncio.create_task(wild.ask_for_many()) for _ in range(_BATCHING)]
    tasks += [asyncio.create_task(wild.talk_nonsense()) for _ in range(_TALKING_NONSENSE)]
    tasks += [asyncio.create_task(wild.dawdle()) for _ in range(_DAWDLING)]
    await asyncio.to_thread(sys.stdin.read)
    faults = [_described(task) for task in tasks if task.done()]
    sys.stdout.write(json.dumps({"answers": wild.answers, "faults": faults}))


def _described(task: asyncio.Task[None]) -> str:
    """Which of them ended, where, and by what."""
    error = task.exception()
    return "".join(traceback.format_exception(error)) if error is not None else repr(task)


if __name__ == "__main__":
    asyncio.run(_run(int(sys.argv[1]), sys.argv[2]))
