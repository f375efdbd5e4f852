"""The hosts of an address, asked in turn, each for its share of the time: one hangs, others wait.

The driver gives all the time that there is to the first host, so that a machine that is lost would
keep everybody from the one that took its place. Only hosts of which one at a time can write are
told apart here: the one found last is then the right one, until it no longer answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from broker.secret import Secret

_OneOfThem = TypeVar("_OneOfThem", bound=asyncpg.Connection)

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
        errors: list[Exception] = []
        urls = tuple(self._urls)
        for url in urls:
            try:
                async with asyncio.timeout(within / len(urls)):
                    connection = await way(url.reveal())
            except _NOT_THIS_ONE as error:
                errors.append(error)
            else:
                self._found(url)
                return connection
        # That a standby is not the right one says nothing of the primary that hangs.
        raise next((error for error in errors if isinstance(error, TimeoutError)), errors[-1])

    def _found(self, url: Secret) -> None:
        has_moved = self._was_found and url is not self._urls[0]
        self._urls.remove(url)
        self._urls.insert(0, url)
        self._was_found = True
        if has_moved:
            self._on_moved()


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
