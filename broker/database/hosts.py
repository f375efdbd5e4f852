"""The hosts of an address, the likeliest first: one that hangs keeps nobody from the others.

The driver gives all the time that there is to the first host, so that a machine that is lost would
keep everybody from the one that took its place. Here each gets a head start only, and then the next
is tried beside it. Only hosts of which one at a time can write are told apart here: the one found
last is then the right one, until it no longer answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from broker.secret import Secret

_OneOfThem = TypeVar("_OneOfThem", bound=asyncpg.Connection)

HEAD_START_SECONDS = 0.25
"""How long a host has for itself before the next one is tried as well."""

_ONLY_ONE = {"read-write", "primary"}

_NOT_THIS_ONE = (
    OSError,
    TimeoutError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.TargetServerAttributeNotMatched,
)


class Hosts:
    """Where a database may be, the likeliest first."""

    def __init__(self, url: Secret, *, on_moved: Callable[[], None]) -> None:
        """`on_moved` is called when another host than before is the right one."""
        self._urls = _one_each(url)
        self._on_moved = on_moved
        self._was_found = False

    async def connect(
        self, way: Callable[[str], Awaitable[_OneOfThem]], *, within: float
    ) -> _OneOfThem:
        """What `way` makes of the first address that works.

        Raises `TimeoutError` when one of them hangs and no other is the right one; else what the
        last one raises.
        """
        urls = tuple(self._urls)
        attempts: dict[asyncio.Task[_OneOfThem], Secret] = {}
        errors: list[Exception] = []
        try:
            async with asyncio.timeout(within):
                for url in urls:
                    attempts[asyncio.create_task(_as_coroutine(way(url.reveal())))] = url
                    head_start = None if url is urls[-1] else HEAD_START_SECONDS
                    found = await self._first_of(attempts, errors, head_start)
                    if found is not None:
                        return found
            raise errors[-1]
        finally:
            _give_up(attempts)

    async def _first_of(
        self,
        attempts: dict["asyncio.Task[_OneOfThem]", Secret],
        errors: list[Exception],
        seconds: float | None,
    ) -> _OneOfThem | None:
        """The first that works; nothing after so many seconds, or when all have failed."""
        loop = asyncio.get_running_loop()
        until = None if seconds is None else loop.time() + seconds
        while attempts:
            left = None if until is None else max(0.0, until - loop.time())
            done, _ = await asyncio.wait(
                attempts, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return None
            for attempt in done:
                url = attempts.pop(attempt)
                try:
                    connection = attempt.result()
                except _NOT_THIS_ONE as error:
                    errors.append(error)
                else:
                    self._found(url)
                    return connection
        return None

    def _found(self, url: Secret) -> None:
        has_moved = self._was_found and url is not self._urls[0]
        self._urls.remove(url)
        self._urls.insert(0, url)
        self._was_found = True
        if has_moved:
            self._on_moved()


async def _as_coroutine(connecting: Awaitable[_OneOfThem]) -> _OneOfThem:
    """What a task can be made of."""
    return await connecting


def _give_up(attempts: Iterable["asyncio.Task[_OneOfThem]"]) -> None:
    """Waits for none: who is cancelled meanwhile would lose the connection that was found."""
    for attempt in attempts:
        attempt.add_done_callback(_terminate)
        attempt.cancel()


def _terminate(attempt: "asyncio.Task[_OneOfThem]") -> None:
    """One may just have been made."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _one_each(url: Secret) -> list[Secret]:
    """An address for each host, or the one as it is."""
    try:
        parts = urlsplit(url.reveal())
        options = parse_qs(parts.query)
    except ValueError:
        return [url]
    if options.get("target_session_attrs", [""])[0] not in _ONLY_ONE or {"host", "port"} & set(
        options
    ):
        return [url]
    user, at, hosts = parts.netloc.rpartition("@")
    return [
        Secret(parts._replace(netloc=f"{user}{at}{host}").geturl()) for host in hosts.split(",")
    ]
