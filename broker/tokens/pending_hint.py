"""Whether a refusal is to say that a consent waits for its confirmation; asked on refusals only.

Questions that come in one turn of the event loop, as those of a batch do, are one query; those of
each caller, for it is made with the caller's own share of the connections.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from broker.database.database import StorageUnavailable
from broker.database.shares import Share, current_share
from broker.google.scopes import missing
from broker.grants.pending.rows import PendingConsent
from broker.grants.pending.store import PendingConsents
from broker.grants.rows import StoredGrant
from broker.tokens.cache.token_cache import TokenRequest
from broker.tokens.choice import grant_meant, is_account
from broker.web.problems import Problem, confirmation_pending

logger = logging.getLogger(__name__)

_MAY_WAIT: Final = frozenset({"grant_not_found", "reauthorization_required", "scope_not_granted"})


class UnconfirmedConsents:
    """What waits for a confirmation, as far as a refused request is concerned."""

    def __init__(self, pending: PendingConsents) -> None:
        self._pending = pending
        self._asked: dict[Share, dict[str, asyncio.Future[Sequence[PendingConsent]]]] = {}
        self._looks: set[asyncio.Task[None]] = set()

    async def instead_of(
        self, refusal: Problem, grants: Sequence[StoredGrant], request: TokenRequest
    ) -> Problem:
        """`confirmation_pending` where a confirmation would help, else the refusal as it is."""
        if refusal.code not in _MAY_WAIT:
            return refusal
        try:
            waiting = await self._of(request.user_id)
        except StorageUnavailable as error:
            # What is known is an answer; the rest is a refinement of it.
            logger.info(error.headline, extra={"reason": str(error)})
            return refusal
        helps = any(_helps(pending, refusal, grants, request) for pending in waiting)
        return confirmation_pending() if helps else refusal

    async def _of(self, user_id: str) -> Sequence[PendingConsent]:
        loop = asyncio.get_running_loop()
        share = current_share()
        if share not in self._asked:
            self._asked[share] = {}
            loop.call_soon(self._look, share)
        answer = self._asked[share].setdefault(user_id, loop.create_future())
        # Whoever is cancelled must not take the answer away from the others.
        return await asyncio.shield(answer)

    def _look(self, share: Share) -> None:
        task = asyncio.create_task(self._answer(self._asked.pop(share)))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _answer(self, asked: Mapping[str, asyncio.Future[Sequence[PendingConsent]]]) -> None:
        try:
            found = await self._pending.of_users(list(asked))
        except BaseException as error:
            for answer in asked.values():
                answer.set_exception(error)
                answer.exception()
            if not isinstance(error, Exception):
                raise
            return
        for user_id, answer in asked.items():
            answer.set_result(found.get(user_id, ()))


def _helps(
    pending: PendingConsent,
    refusal: Problem,
    grants: Sequence[StoredGrant],
    request: TokenRequest,
) -> bool:
    """Whether the request could be met, once this is confirmed."""
    if request.account is not None:
        is_meant = is_account(request.account, pending.google_sub, pending.email)
    else:
        meant = grant_meant(grants, None)
        is_meant = isinstance(meant, Problem) or meant.grant.google_sub == pending.google_sub
    lacking = refusal.members.get("missing", ())
    return is_meant and not missing(lacking, pending.scopes)
