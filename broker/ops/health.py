"""Asks each part how it is, and says whether this replica can serve.

A replica is ready while it can hand out anything at all: one that is taken out of service because
PostgreSQL or Vault is away could not serve the tokens that it holds.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.callers.callers_file import CallersFileError
from broker.database.database import StorageUnavailable
from broker.database.shares import MONITORING, use_share
from broker.google.errors import GoogleError
from broker.issuers.model import IssuerUnavailable
from broker.secret_sources.source import SourceError
from broker.telemetry.failed_revocations import RevocationsFailedError

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.8
"""A prober waits a second by default: were the answer later, a part that hangs would take every
replica out of service at once."""

_DOWN = (
    StorageUnavailable,
    SourceError,
    GoogleError,
    CallersFileError,
    IssuerUnavailable,
    RevocationsFailedError,
)
"""How the parts say that they are not well; none of these messages holds a secret."""

_LATE: Mapping[str, Any] = {"status": "down", "reason": "no answer in time"}


@dataclass(frozen=True, slots=True)
class Part:
    """Something that can be away, and how to ask it."""

    name: str
    ping: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Health:
    """What `/readyz` says: `ready`, `degraded` (serving, but a part is down) or `unavailable`."""

    status: str
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def can_serve(self) -> bool:
        return self.status != "unavailable"


class HealthCheck:
    """Pings every part at once, and waits for none longer than a prober would.

    A ping that takes longer goes on, and whoever asks meanwhile waits for the same one: a part that
    hangs is not asked again by each who looks.
    """

    def __init__(self, parts: Sequence[Part], *, holds_tokens: Callable[[], bool]) -> None:
        self._parts = parts
        self._holds_tokens = holds_tokens
        self._pings: dict[str, asyncio.Task[Mapping[str, Any]]] = {}
        self.is_draining = False

    async def check(self) -> Health:
        """How everything is now."""
        pings = {part.name: self._ping(part) for part in self._parts}
        await asyncio.wait(pings.values(), timeout=_PATIENCE_SECONDS)
        parts = {name: ping.result() if ping.done() else _LATE for name, ping in pings.items()}
        down = [name for name, answer in parts.items() if answer["status"] == "down"]
        if self.is_draining or ("database" in down and not self._holds_tokens()):
            return Health("unavailable", parts)
        return Health("degraded" if down else "ready", parts)

    async def aclose(self) -> None:
        """Give up the pings that are under way."""
        for ping in self._pings.values():
            ping.cancel()
        await asyncio.gather(*self._pings.values(), return_exceptions=True)

    def _ping(self, part: Part) -> asyncio.Task[Mapping[str, Any]]:
        """The ping under way, or a new one."""
        ping = self._pings.get(part.name)
        if ping is None or ping.done():
            ping = asyncio.create_task(_ask(part), name=f"ping {part.name}")
            self._pings[part.name] = ping
        return ping


async def _ask(part: Part) -> Mapping[str, Any]:
    use_share(MONITORING)
    began = time.perf_counter()
    try:
        await part.ping()
    except _DOWN as error:
        return {"status": "down", "reason": str(error)}
    except Exception:
        # A defect in asking must not hide how the other parts are.
        logger.exception("a part could not be asked", extra={"part": part.name})
        return {"status": "down", "reason": "it could not be asked; the log says why"}
    return {"status": "up", "milliseconds": round((time.perf_counter() - began) * 1000, 1)}
