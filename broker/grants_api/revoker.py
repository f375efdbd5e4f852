"""Ends grants: here at once, at Google as soon as it answers, however long that takes."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from broker.clock import Clock
from broker.crypto.sealing import UnsealingError
from broker.google.errors import GoogleError, GoogleUnavailable, RequestRefused
from broker.google.oauth import GoogleOAuth
from broker.grants.model import Grant
from broker.grants.revocation_outbox import PendingRevocation, PendingRevocations
from broker.grants.store import GrantStore
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

_LEASE = timedelta(seconds=30)
"""Longer than any call to Google; a replica that dies with a revocation in hand lets go then."""

POLL_SECONDS = 1.0
"""How often the table is looked at; what this replica revokes itself is told at once."""

_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=10)
AT_ONCE = 10
"""Revocations that Google is told of at a time."""


class Revoker:
    """Withdraws grants, and tells Google until it has answered."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        pending: PendingRevocations,
        google: GoogleOAuth,
        metrics: Metrics,
        failed: FailedRevocations,
        clock: Clock,
        forget: Callable[[str], None],
    ) -> None:
        self._grants = grants
        self._pending = pending
        self._google = google
        self._revocations = metrics.revocations
        self._failed = failed
        self._clock = clock
        self._forget = forget
        self.due = asyncio.Event()
        """Set when there is something new to tell."""

    async def revoke(self, user_id: str, google_sub: str | None, *, origin: str) -> Sequence[Grant]:
        """End the user's grants (of one account, or all). When this returns no token goes out.

        Returns the grants that ended by this call; none is not an error. Raises
        `StorageUnavailable`, within ten seconds, and reports it: then nothing has changed, or, if
        the answer to the commit was lost, all of it.
        """
        asked_at = self._clock.now()
        async with self._failed.reporting(
            ("revocation", user_id, google_sub),
            "a revocation could not be carried out",
            about={"user": cut_user_id(user_id), "origin": origin},
            counted=[self._revocations.labels(origin, "failed")],
            is_done=lambda: self._grants.is_revoked(user_id, google_sub, since=asked_at),
        ):
            return await self._ended(
                user_id, self._grants.revoke(user_id, google_sub, origin=origin), origin
            )

    async def revoke_again(self, grant: Grant) -> Sequence[Grant]:
        """Revoke a grant whose revocation a failover lost, only if it still has this version."""
        origin = "failover"
        return await self._ended(
            grant.user_id, self._grants.revoke_unchanged(grant, origin=origin), origin
        )

    async def _ended(
        self, user_id: str, revoking: Awaitable[Sequence[Grant]], origin: str
    ) -> Sequence[Grant]:
        try:
            revoked = await revoking
        finally:
            # Also after a failure: what is held may or may not be revoked, so it is read again.
            self._forget(user_id)
        for _grant in revoked:
            self._revocations.labels(origin, "revoked").inc()
        self.due.set()
        return revoked

    async def tell_all_due(self) -> None:
        """Tell Google all that is due now. Raises `StorageUnavailable`."""
        while await self.tell_google():
            pass

    async def tell_google(self) -> int:
        """Tell Google what is due now; returns how many were tried. Raises `StorageUnavailable`."""
        claimed = await self._pending.claim(lease=_LEASE, limit=AT_ONCE)
        await asyncio.gather(*(self._tell(pending) for pending in claimed))
        return len(claimed)

    async def _tell(self, pending: PendingRevocation) -> None:
        try:
            await self._google.revoke(self._pending.open(pending))
        except RequestRefused as error:
            logger.exception(
                "Google refuses to revoke a token, and would again",
                extra={"reason": error.reason, "attempts": pending.attempts},
            )
            await self._pending.finish(pending)
            self._revocations.labels(pending.origin, "refused").inc()
        except (GoogleError, UnsealingError) as error:
            wait = _wait_after(pending.attempts)
            if isinstance(error, GoogleUnavailable) and error.retry_after is not None:
                wait = max(wait, error.retry_after)
            await self._pending.postpone(pending, until=self._clock.now() + wait)
            self._revocations.labels(pending.origin, "retried").inc()
            logger.warning(
                "Google could not be told of a revocation; it will be told again",
                extra={"reason": str(error), "attempts": pending.attempts},
            )
        else:
            await self._pending.finish(pending)
            self._revocations.labels(pending.origin, "told").inc()


def _wait_after(attempts: int) -> timedelta:
    """Doubles with each attempt, with jitter, up to ten minutes."""
    doublings: int = min(attempts - 1, 12)
    wait = min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)
    return wait * random.uniform(0.8, 1.2)  # noqa: S311  (jitter, not a secret)
