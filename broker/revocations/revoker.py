"""Revokes grants immediately here. `sender` then revokes them at Google."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from broker.clock import Clock
from broker.grants.model import Grant
from broker.grants.store import GrantStore
from broker.telemetry.failed_revocations import FailedRevocations
from broker.telemetry.logs import cut_user_id
from broker.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class Revoker:
    """Revokes grants, which queues the revocations for Google."""

    def __init__(
        self,
        *,
        grants: GrantStore,
        metrics: Metrics,
        failed: FailedRevocations,
        clock: Clock,
        forget: Callable[[str], None],
        on_queued: Callable[[], None],
    ) -> None:
        """`forget` drops a user's cached tokens; `on_queued` has Google called soon."""
        self._grants = grants
        self._revocations = metrics.revocations
        self._failed = failed
        self._clock = clock
        self._forget = forget
        self._on_queued = on_queued

    async def revoke(self, user_id: str, google_sub: str | None, *, origin: str) -> Sequence[Grant]:
        """Revoke the user's grants (of one account, or all). After that no token is handed out.

        Returns the grants that this call ended; none is not an error. Raises `StorageUnavailable`
        within ten seconds, and reports it: then nothing has changed, or, if only the response to
        the commit was lost, everything has.
        """
        asked_at = self._clock.now()
        async with self._failed.reporting(
            ("revocation", user_id, google_sub),
            "a revocation could not be carried out",
            about={
                "event": "revocation_failed",
                "user": cut_user_id(user_id),
                "origin": origin,
            },
            counted=[self._revocations.labels(origin, "failed")],
            is_done=lambda: self._grants.is_revoked(user_id, google_sub, since=asked_at),
        ):
            return await self._finish(
                user_id, self._grants.revoke(user_id, google_sub, origin=origin), origin
            )

    async def revoke_again(self, grant: Grant) -> Sequence[Grant]:
        """Repeat a revocation that a failover lost, only if the grant still has this version."""
        origin = "failover"
        return await self._finish(
            grant.user_id, self._grants.revoke_if_unchanged(grant, origin=origin), origin
        )

    async def _finish(
        self, user_id: str, revoking: Awaitable[Sequence[Grant]], origin: str
    ) -> Sequence[Grant]:
        try:
            revoked = await revoking
        finally:
            # Also after a failure: the grants may or may not be revoked, so they are read again.
            self._forget(user_id)
        for _grant in revoked:
            self._revocations.labels(origin, "revoked").inc()
        self._on_queued()
        return revoked
