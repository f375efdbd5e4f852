"""Finds the refusals that should be `confirmation_pending`; reads nothing for other requests.

The users asked about in one event-loop iteration, as by a batch, are read in one query per caller:
each caller reads with its own share of the database connections.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from broker.database.database import StorageUnavailable
from broker.database.shares import Share, current_share
from broker.grants.pending_consents.model import PendingConsent
from broker.grants.pending_consents.store import PendingConsents
from broker.grants.rows import StoredGrant
from broker.scopes import missing
from broker.tokens.grant_choice import find_grant, is_account
from broker.tokens.results import Denial, NotGranted
from broker.tokens.token_request import TokenRequest

logger = logging.getLogger(__name__)

_MAY_BE_PENDING: Final = frozenset(
    {Denial.GRANT_NOT_FOUND, Denial.REAUTHORIZATION_REQUIRED, Denial.SCOPE_NOT_GRANTED}
)


class PendingConsentHints:
    """Finds the pending consents that a refused request could be granted by."""

    def __init__(self, pending: PendingConsents) -> None:
        self._pending = pending
        self._waiting: dict[Share, dict[str, asyncio.Future[Sequence[PendingConsent]]]] = {}
        self._reads: set[asyncio.Task[None]] = set()

    async def refine(
        self, refusal: NotGranted, grants: Sequence[StoredGrant], request: TokenRequest
    ) -> NotGranted:
        """Return `CONFIRMATION_PENDING` if a confirmation would help, else the refusal itself."""
        if refusal.reason not in _MAY_BE_PENDING:
            return refusal
        try:
            consents = await self._of_user(request.user_id)
        except StorageUnavailable as error:
            # The refusal is correct without the hint.
            logger.info(error.headline, extra={"event": error.event, "reason": str(error)})
            return refusal
        helps = any(_helps(pending, refusal, grants, request) for pending in consents)
        return NotGranted(Denial.CONFIRMATION_PENDING) if helps else refusal

    async def _of_user(self, user_id: str) -> Sequence[PendingConsent]:
        loop = asyncio.get_running_loop()
        share = current_share()
        if share not in self._waiting:
            self._waiting[share] = {}
            loop.call_soon(self._start_read, share)
        found = self._waiting[share].setdefault(user_id, loop.create_future())
        # Cancelling one request must not take the result away from the others.
        return await asyncio.shield(found)

    def _start_read(self, share: Share) -> None:
        task = asyncio.create_task(self._read(self._waiting.pop(share)))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self, waiting: Mapping[str, asyncio.Future[Sequence[PendingConsent]]]) -> None:
        try:
            by_user = await self._pending.find_for_users(list(waiting))
        except BaseException as error:
            for found in waiting.values():
                found.set_exception(error)
                found.exception()
            if not isinstance(error, Exception):
                raise
            return
        for user_id, found in waiting.items():
            found.set_result(by_user.get(user_id, ()))


def _helps(
    pending: PendingConsent,
    refusal: NotGranted,
    grants: Sequence[StoredGrant],
    request: TokenRequest,
) -> bool:
    """True if the request could be granted once this consent is confirmed."""
    if request.account is not None:
        is_meant = is_account(request.account, pending.google_sub, pending.email)
    else:
        meant = find_grant(grants, None)
        is_meant = isinstance(meant, NotGranted) or meant.grant.google_sub == pending.google_sub
    lacking = refusal.scopes if refusal.reason is Denial.SCOPE_NOT_GRANTED else ()
    return is_meant and not missing(lacking, pending.scopes)
