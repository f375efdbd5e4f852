"""Concurrency limits on a replica's database connections: who may hold how many at a time.

Each connection is used on somebody's behalf: a caller, a browser's address, Google's security
events, background work. One of each kind at its limit, and a second caller, fit into the pool: so
one caller, or one address, keeps nobody else waiting. Several at their limits can: five busy
callers are more than there are connections, and then all wait, in the order they came.

What may wait in PostgreSQL for the lock of one user, account or grant does so one at a time in each
share (`Linearizer`), so one lock that somebody keeps costs a share one connection and no more.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple
from uuid import UUID


class Share(NamedTuple):
    """On whose behalf a connection is used, and how many of those there may be at a time."""

    name: str
    at_once: int


OF_A_CALLER: Final = 6
OF_AN_ADDRESS: Final = 3
OF_SECURITY_EVENTS: Final = 2
OF_BACKGROUND_WORK: Final = 4
OF_PROACTIVE_REFRESHES: Final = 2
OF_MONITORING: Final = 2

POOL_SIZE: Final = 25
"""More than all of the above, by at least the share of a second caller."""

BACKGROUND: Final = Share("background work", OF_BACKGROUND_WORK)
SECURITY_EVENTS: Final = Share("security events", OF_SECURITY_EVENTS)
PROACTIVE_REFRESHES: Final = Share("proactive refreshes", OF_PROACTIVE_REFRESHES)
MONITORING: Final = Share("monitoring", OF_MONITORING)
"""Readiness. The change feed has a connection of its own, outside the pool."""

_current: ContextVar[Share] = ContextVar("share", default=BACKGROUND)


def current_share() -> Share:
    """The share of whoever this task works for; tasks begun by it inherit that."""
    return _current.get()


def use_share(share: Share) -> None:
    """From now on this task works on somebody's behalf."""
    _current.set(share)


def use_share_of_caller(name: str) -> None:
    """The same for a caller."""
    _current.set(Share("caller " + name, OF_A_CALLER))


def use_share_of_address(address: str) -> None:
    """The same for a browser, of which only the address is known."""
    _current.set(Share("address " + address, OF_AN_ADDRESS))


class KeyedSemaphore:
    """So many at a time for each key; who comes first is first. Unused keys take no memory."""

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}
        """Of each key that is waited for. A dict for its order, and because anybody may leave."""

    def __len__(self) -> int:
        return len(self._taken)

    def acquire_now(self, key: str, at_once: int) -> bool:
        """Whether it could be had without waiting; if so, it is taken, until `release`."""
        taken = self._taken.get(key, 0)
        if taken >= at_once:
            return False
        self._taken[key] = taken + 1
        return True

    async def acquire(self, key: str, at_once: int) -> None:
        """Wait for it. Who gives up waiting has taken nothing."""
        if self.acquire_now(key, at_once):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[turn] = None
        try:
            await turn
        except BaseException:
            self._leave(key, turn)
            if turn.done() and not turn.cancelled():
                # It was handed over in the very moment of giving up.
                self.release(key)
            raise

    def taken(self, key: str) -> int:
        """How many have it."""
        return self._taken.get(key, 0)

    def waiting(self, key: str) -> int:
        """How many wait for it."""
        return len(self._waiting.get(key, ()))

    @property
    def all_waiting(self) -> int:
        """How many wait, for whichever key."""
        return sum(map(len, self._waiting.values()))

    def release(self, key: str) -> None:
        """Hand it over to who has waited longest, if anybody has."""
        while waiting := self._waiting.get(key):
            turn = next(iter(waiting))
            self._leave(key, turn)
            if not turn.done():
                turn.set_result(None)
                return
        taken = self._taken[key] - 1
        if taken:
            self._taken[key] = taken
        else:
            del self._taken[key]

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key, {})
        waiting.pop(turn, None)
        if not waiting:
            self._waiting.pop(key, None)


class Linearizer:
    """Those who will lock the same thing in PostgreSQL wait here, without a connection."""

    def __init__(self, *, patience_seconds: float) -> None:
        self._semaphore = KeyedSemaphore()
        self._patience_seconds = patience_seconds

    async def acquire(self, keys: Iterable[str]) -> Sequence[str]:
        """Be the only one with any of these keys; what is returned is for `release`.

        All at once and never nested: everybody takes them in the same order. Raises `TimeoutError`
        after the patience.
        """
        acquired: list[str] = []
        try:
            async with asyncio.timeout(self._patience_seconds):
                for key in sorted(set(keys)):
                    await self._semaphore.acquire(key, 1)
                    acquired.append(key)
        except BaseException:
            self.release(acquired)
            raise
        return acquired

    def release(self, acquired: Iterable[str]) -> None:
        """Let the next ones have them."""
        for key in acquired:
            self._semaphore.release(key)


def of_user(user_id: str) -> str:
    """The key of what locks a user."""
    return "user " + user_id


def of_account(google_sub: str) -> str:
    """The key of what locks a Google account."""
    return "account " + google_sub


def of_grant(grant_id: UUID) -> str:
    """The key of what locks a grant's row, or one that refers to it."""
    return f"grant {grant_id}"


def of_link(link_id: UUID) -> str:
    """The key of what locks a link's row, or that of a visit."""
    return f"link {link_id}"


def of_state(state_hash: bytes) -> str:
    """The key of what locks the row of a trip to Google."""
    return "state " + state_hash.hex()
