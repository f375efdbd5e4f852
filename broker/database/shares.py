"""Shares of a replica's database connections: concurrency limits per caller, address or purpose.

Each connection counts for one share: a caller, a browser's address, Google's security events,
background work. One share of each kind at its limit and a second caller fit into the pool, so that
one caller, or one address, delays no other. Several at their limits do not fit: five busy callers
need more than all connections, and then all wait in FIFO order.

Statements that may wait in PostgreSQL for the lock of one user, account or grant run one at a time
per share (`KeyedMutex`), so that a lock that is held for long costs a share one connection.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Final, NamedTuple
from uuid import UUID


class Share(NamedTuple):
    """The part of the pool that one user of connections may hold at a time."""

    name: str
    limit: int


CALLER_CONNECTIONS: Final = 6
ADDRESS_CONNECTIONS: Final = 3
SECURITY_EVENT_CONNECTIONS: Final = 2
BACKGROUND_CONNECTIONS: Final = 4
PROACTIVE_REFRESH_CONNECTIONS: Final = 2
MONITORING_CONNECTIONS: Final = 2

POOL_SIZE: Final = 25
"""More than the sum of all the above, by at least a second caller's share."""

BACKGROUND: Final = Share("background work", BACKGROUND_CONNECTIONS)
SECURITY_EVENTS: Final = Share("security events", SECURITY_EVENT_CONNECTIONS)
PROACTIVE_REFRESHES: Final = Share("proactive refreshes", PROACTIVE_REFRESH_CONNECTIONS)
MONITORING: Final = Share("monitoring", MONITORING_CONNECTIONS)
"""Readiness. The change feed has a connection of its own, outside the pool."""

_current: ContextVar[Share] = ContextVar("share", default=BACKGROUND)


def current_share() -> Share:
    """Return the share of the running task; the tasks that it creates inherit it."""
    return _current.get()


def use_share(share: Share) -> None:
    """Count the connections of this task for a share from now on."""
    _current.set(share)


def use_share_of_caller(name: str) -> None:
    """Count the connections of this task for a caller from now on."""
    _current.set(Share("caller " + name, CALLER_CONNECTIONS))


def use_share_of_address(address: str) -> None:
    """Count the connections of this task for an unauthenticated browser's address from now on."""
    _current.set(Share("address " + address, ADDRESS_CONNECTIONS))


class KeyedSemaphore:
    """A semaphore per key, with a FIFO queue. Unused keys take no memory."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}
        """The queue of each key: a dict, for its order and for removal from the middle."""

    def __len__(self) -> int:
        return len(self._held)

    def try_acquire(self, key: str, limit: int) -> bool:
        """Acquire a slot if one is free; True if it did."""
        held = self._held.get(key, 0)
        if held >= limit:
            return False
        self._held[key] = held + 1
        return True

    async def acquire(self, key: str, limit: int) -> None:
        """Wait for a slot and acquire it. A cancelled call holds none."""
        if self.try_acquire(key, limit):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, {})[turn] = None
        try:
            await turn
        except BaseException:
            self._leave(key, turn)
            if turn.done() and not turn.cancelled():
                # The slot was handed over just before the call was cancelled.
                self.release(key)
            raise

    def held(self, key: str) -> int:
        """The number of slots held."""
        return self._held.get(key, 0)

    def waiting(self, key: str) -> int:
        """The number of calls that wait for the key."""
        return len(self._waiting.get(key, ()))

    @property
    def all_waiting(self) -> int:
        """The number of calls that wait for any key."""
        return sum(map(len, self._waiting.values()))

    def release(self, key: str) -> None:
        """Hand the slot over to the call that has waited longest, or free it."""
        while waiting := self._waiting.get(key):
            turn = next(iter(waiting))
            self._leave(key, turn)
            if not turn.done():
                turn.set_result(None)
                return
        held = self._held[key] - 1
        if held:
            self._held[key] = held
        else:
            del self._held[key]

    def _leave(self, key: str, turn: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key, {})
        waiting.pop(turn, None)
        if not waiting:
            self._waiting.pop(key, None)


class KeyedMutex:
    """Mutual exclusion per key, for tasks that will wait for the same lock in PostgreSQL; they wait
    here without a connection.
    """

    def __init__(self, *, timeout_seconds: float) -> None:
        self._semaphore = KeyedSemaphore()
        self._timeout_seconds = timeout_seconds

    async def acquire(self, keys: Iterable[str]) -> Sequence[str]:
        """Acquire all keys, and return what `release` needs. Raises `TimeoutError`.

        Pass all keys to one call, and never nest calls: the keys are sorted, so that no two tasks
        deadlock.
        """
        acquired: list[str] = []
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for key in sorted(set(keys)):
                    await self._semaphore.acquire(key, 1)
                    acquired.append(key)
        except BaseException:
            self.release(acquired)
            raise
        return acquired

    def release(self, acquired: Iterable[str]) -> None:
        """Release the keys for the next tasks."""
        for key in acquired:
            self._semaphore.release(key)


def user_lock(user_id: str) -> str:
    """Return the mutex's key of a user."""
    return "user " + user_id


def account_lock(google_sub: str) -> str:
    """Return the mutex's key of a Google account."""
    return "account " + google_sub


def grant_lock(grant_id: UUID) -> str:
    """Return the mutex's key of a grant's row, and of rows that refer to it."""
    return f"grant {grant_id}"


def link_lock(link_id: UUID) -> str:
    """Return the mutex's key of a connect link's row, or of a visit's."""
    return f"link {link_id}"


def state_lock(state_hash: bytes) -> str:
    """Return the mutex's key of an authorization request's row."""
    return "state " + state_hash.hex()
