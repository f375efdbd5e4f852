"""Pings each part and decides whether this replica is ready to serve.

A replica is ready while it can serve anything at all. One that is taken out of service because
PostgreSQL or Vault is down could not serve the tokens in its cache.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from broker.callers.callers_file import CallersFileError
from broker.database.database import StorageUnavailable
from broker.database.shares import MONITORING, use_share
from broker.google.errors import GoogleError
from broker.issuers.model import IssuerUnavailable
from broker.secret_sources.source import SourceError
from broker.single_flight import SingleFlight
from broker.telemetry.failed_revocations import RevocationsFailedError

logger = logging.getLogger(__name__)

_PING_SECONDS = 0.8
"""Probes time out after a second by default. If the response came later, one part that hangs would
take every replica out of service."""

_DOWN = (
    StorageUnavailable,
    SourceError,
    GoogleError,
    CallersFileError,
    IssuerUnavailable,
    RevocationsFailedError,
)
"""A ping raises one of these if its part is down. None of their messages holds a secret."""

_LATE: Mapping[str, Any] = {"status": "down", "reason": "no answer in time"}


@dataclass(frozen=True, slots=True)
class Part:
    """A dependency that can be down, and its ping."""

    name: str
    ping: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Health:
    """The status is `ready`, `degraded` (serving, but a part is down) or `unavailable`."""

    status: str
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def can_serve(self) -> bool:
        return self.status != "unavailable"


class HealthCheck:
    """Pings all parts concurrently, each for 0.8 seconds at most.

    A ping that takes longer continues, and later checks share it: a part that hangs is not pinged
    again by every probe.
    """

    def __init__(self, parts: Sequence[Part], *, holds_tokens: Callable[[], bool]) -> None:
        self._parts = parts
        self._holds_tokens = holds_tokens
        self._pings: SingleFlight[str, Mapping[str, Any]] = SingleFlight()
        self._is_draining = False

    def drain(self) -> None:
        """Report `unavailable` from now on: the broker stops."""
        self._is_draining = True

    async def check(self) -> Health:
        """Ping every part and return the result."""
        pings = {
            part.name: self._pings.start(part.name, partial(_ping, part)) for part in self._parts
        }
        await asyncio.wait(pings.values(), timeout=_PING_SECONDS)
        parts = {name: ping.result() if ping.done() else _LATE for name, ping in pings.items()}
        down = [name for name, result in parts.items() if result["status"] == "down"]
        if self._is_draining or ("database" in down and not self._holds_tokens()):
            return Health("unavailable", parts)
        return Health("degraded" if down else "ready", parts)

    async def aclose(self) -> None:
        """Cancel the pings in flight."""
        await self._pings.aclose()


async def _ping(part: Part) -> Mapping[str, Any]:
    use_share(MONITORING)
    began = time.perf_counter()
    try:
        await part.ping()
    except _DOWN as error:
        return {"status": "down", "reason": str(error)}
    except Exception:
        # A defect in one ping must not hide the state of the other parts.
        logger.exception(
            "health check of a part failed",
            extra={"event": "health_check_failed", "part": part.name},
        )
        return {"status": "down", "reason": "the check failed; the log says why"}
    return {"status": "up", "milliseconds": round((time.perf_counter() - began) * 1000, 1)}
