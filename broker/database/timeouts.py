"""Time-outs in PostgreSQL, and how soon each side notices the loss of the other.

A machine that is lost in the middle of a transaction does not close its connections. Without these
settings PostgreSQL would keep its locks until TCP gives up, after two hours by default.
"""

import socket
from dataclasses import dataclass
from typing import Literal

import asyncpg

LOCK_SECONDS = 2.0
"""For a row lock or an advisory lock. More than PostgreSQL's `deadlock_timeout` of a second, so
that a deadlock is reported as one."""

IDLE_IN_TRANSACTION_SECONDS = 5.0
"""No transaction here pauses between its statements: a client that does is lost, and its locks are
released then."""

TRANSACTION_SECONDS = 8.0
"""For a whole transaction, from waiting for a connection to the commit. It does not include the
wait in `Database.exclusively`: a caller with a deadline needs one around both."""

LONG_TRANSACTION_SECONDS = 20.0
"""For a transaction of the audit trail: thousands of rows, and no request waits for it."""

_MARGIN_SECONDS = 2.0
"""PostgreSQL ends a transaction itself that runs for this much longer. Needed if the client is lost
between the messages of one statement: that is neither idle nor, until all have arrived, a
statement."""

_HAS_TRANSACTION_TIMEOUT = 17
"""PostgreSQL's version. Older ones detect the loss by TCP, which works only for a lost machine."""

KEEPALIVE_IDLE_SECONDS = 5
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_COUNT = 3
UNACKNOWLEDGED_SECONDS = 10
"""Data that the other side has not acknowledged for this long closes the connection."""

Isolation = Literal["read_committed"]

_ISOLATION_LEVELS: dict[Isolation | None, str] = {
    None: "",
    "read_committed": " ISOLATION LEVEL READ COMMITTED",
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """PostgreSQL's settings for connections on which a statement may take `command_seconds`."""

    command_seconds: float

    def begin(
        self, isolation: Isolation | None, *, within: float, server: asyncpg.types.ServerVersion
    ) -> str:
        """Return the SQL that begins a transaction, in one round trip.

        It leaves nothing in the session: behind a pooler, session settings would apply to other
        clients.
        """
        settings = {
            "lock_timeout": LOCK_SECONDS,
            "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_SECONDS,
            "statement_timeout": self._statement_seconds,
        }
        if server.major >= _HAS_TRANSACTION_TIMEOUT:
            settings["transaction_timeout"] = within + _MARGIN_SECONDS
        bounds = [f"SET LOCAL {name} = {_ms(seconds)}" for name, seconds in settings.items()]
        return "; ".join([f"BEGIN{_ISOLATION_LEVELS[isolation]}", *bounds])

    async def set_for_session(self, connection: asyncpg.Connection) -> None:
        """Set the time-outs of a connection that no pooler shares with other clients."""
        idle_seconds = max(IDLE_IN_TRANSACTION_SECONDS, self.command_seconds)
        settings = {
            "lock_timeout": _ms(LOCK_SECONDS),
            # A reader of the audit trail in one long transaction may pause.
            "idle_in_transaction_session_timeout": _ms(idle_seconds),
            "statement_timeout": _ms(self._statement_seconds),
            "tcp_keepalives_idle": KEEPALIVE_IDLE_SECONDS,
            "tcp_keepalives_interval": KEEPALIVE_INTERVAL_SECONDS,
            "tcp_keepalives_count": KEEPALIVE_COUNT,
            "tcp_user_timeout": _ms(UNACKNOWLEDGED_SECONDS),
        }
        await connection.execute(
            "; ".join(f"SET {name} = {value}" for name, value in settings.items())
        )

    @property
    def _statement_seconds(self) -> float:
        """After the client's own time-out, when no client is left to cancel the statement."""
        return self.command_seconds + 1


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def enable_keepalive(transport: object) -> None:
    """Let this machine detect the loss of the other one, even while nothing is sent."""
    sock = getattr(transport, "get_extra_info", lambda _name: None)("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _TCP_OPTIONS.items():
        # A system that lacks an option uses its own default.
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


_TCP_OPTIONS = {
    "TCP_KEEPIDLE": KEEPALIVE_IDLE_SECONDS,
    "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_SECONDS,
    "TCP_KEEPCNT": KEEPALIVE_COUNT,
    "TCP_USER_TIMEOUT": _ms(UNACKNOWLEDGED_SECONDS),
}
