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

from broker.callers.clients_file import ClientsFileError
from broker.database.database import StorageUnavailable
from broker.google.errors import GoogleError
from broker.secret_sources.source import SourceError

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 2.0

_DOWN = (StorageUnavailable, SourceError, GoogleError, ClientsFileError)
"""How the parts say that they are not well; none of these messages holds a secret."""


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
    """Pings every part at once, none for longer than two seconds."""

    def __init__(self, parts: Sequence[Part], *, holds_tokens: Callable[[], bool]) -> None:
        self._parts = parts
        self._holds_tokens = holds_tokens
        self.is_draining = False

    async def check(self) -> Health:
        """How everything is now."""
        answers = await asyncio.gather(*(_ask(part) for part in self._parts))
        parts = dict(zip((part.name for part in self._parts), answers, strict=True))
        down = [name for name, answer in parts.items() if answer["status"] == "down"]
        if self.is_draining or ("database" in down and not self._holds_tokens()):
            return Health("unavailable", parts)
        return Health("degraded" if down else "ready", parts)


async def _ask(part: Part) -> Mapping[str, Any]:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await part.ping()
    except TimeoutError:
        return {"status": "down", "reason": "no answer in time"}
    except _DOWN as error:
        return {"status": "down", "reason": str(error)}
    except Exception:
        # A defect in asking must not hide how the other parts are.
        logger.exception("a part could not be asked", extra={"part": part.name})
        return {"status": "down", "reason": "it could not be asked; the log says why"}
    return {"status": "up", "milliseconds": round((time.perf_counter() - began) * 1000, 1)}
