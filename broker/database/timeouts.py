"""How long anything may wait in PostgreSQL, and how soon either side notices the other's loss.

A machine that is lost in the middle of a transaction does not close its connections: without
these, PostgreSQL would keep its locks until TCP gives up, after two hours by default.
"""

import socket
from dataclasses import dataclass
from typing import Literal

import asyncpg

LOCK_SECONDS = 2.0
"""Waiting for a row or an advisory lock. More than PostgreSQL's `deadlock_timeout` of a second, so
that a deadlock is called one."""

IDLE_IN_TRANSACTION_SECONDS = 5.0
"""No transaction here pauses between its statements: whoever does is lost, and lets go then."""

TRANSACTION_SECONDS = 8.0
"""A transaction as a whole, from waiting for a connection to the commit. The turn that may come
before it (`Database.exclusively`) is not in it: whoever has to answer in time needs a deadline
around both."""

LONG_TRANSACTION_SECONDS = 20.0
"""One of the audit trail's: thousands of rows, which nobody else waits for."""

_BEYOND_SECONDS = 2.0
"""PostgreSQL ends by itself what nobody ended for so much longer. Needed where a client is lost
between the messages of one statement: that is neither idle nor, until all are there, a statement.
"""

_HAS_TRANSACTION_TIMEOUT = 17
"""PostgreSQL's version. An older one finds out by TCP, which works only for a lost machine."""

KEEPALIVE_IDLE_SECONDS = 5
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_SECONDS = 10
"""Data that the other side does not acknowledge for so long end the connection."""

Isolation = Literal["read_committed"]

_ISOLATION_LEVELS: dict[Isolation | None, str] = {
    None: "",
    "read_committed": " ISOLATION LEVEL READ COMMITTED",
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """What PostgreSQL is told, for connections on which a statement may take so long."""

    command_seconds: float

    def begin(
        self, isolation: Isolation | None, *, within: float, server: asyncpg.types.ServerVersion
    ) -> str:
        """Begins a transaction, in one round trip, and leaves nothing in the session: behind a
        pooler, a session's settings would be somebody else's.
        """
        settings = {
            "lock_timeout": LOCK_SECONDS,
            "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECONDS,
            "statement_timeout": self._statement_seconds,
        }
        if server.major >= _HAS_TRANSACTION_TIMEOUT:
            settings["transaction_timeout"] = within + _BEYOND_SECONDS
        bounds = [f"SET LOCAL {name} = {_ms(seconds)}" for name, seconds in settings.items()]
        return "; ".join([f"BEGIN{_ISOLATION_LEVELS[isolation]}", *bounds])

    async def set_for_session(self, connection: asyncpg.Connection) -> None:
        """For whatever is done on a connection that no pooler shares with others."""
        idle_seconds = max(IDLE_IN_TRANSACTION_SECONDS, self.command_seconds)
        settings = {
            "lock_timeout": _ms(LOCK_SECONDS),
            # Whoever reads the audit trail in one long transaction may pause.
            "idle_in_transaction_session_timeout": _ms(idle_seconds),
            "statement_timeout": _ms(self._statement_seconds),
            "tcp_keepalives_idle": KEEPALIVE_IDLE_SECONDS,
            "tcp_keepalives_interval": KEEPALIVE_INTERVAL_SECONDS,
            "tcp_keepalives_count": KEEPALIVE_COUNT,
            "tcp_user_timeout": _ms(UNACKNOWLEDGED_SECONDS),
        }
        await connection.execute("; ".join(f"SET {name} = {it}" for name, it in settings.items()))

    @property
    def _statement_seconds(self) -> float:
        """After whoever waits for it has given up: then nobody is left to cancel it."""
        return self.command_seconds + 1


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def watch_other_end(transport: object) -> None:
    """Have this machine notice that the other one is lost, also while nothing is sent."""
    sock = getattr(transport, "get_extra_info", lambda _name: None)("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        # Not every system has them all; what it lacks is then its own default.
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_TCP_OPTIONS = {
    "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
    "TCP_KEEPCNT": KEEPALIVE_COUNT,
    "TCP_USER_TIMEOUT": _ms(UNACKNOWLEDGED_SECONDS),
}
