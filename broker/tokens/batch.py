"""Answers a batch of token requests: one read of the grants, a bounded number of refreshes.

Each request gets the answer that it would get alone. A slow one holds the batch up until its
deadline at most, and a failing one fails alone.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from broker.callers.model import Caller
from broker.database.database import StorageUnavailable
from broker.grants.store import GrantStore
from broker.limits.loop_fairness import LoopFairness
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import TokenCache, Watch
from broker.tokens.dispenser import GrantsRead, TokenDispenser
from broker.tokens.refresh.google_refresh import Requester
from broker.tokens.results import BatchResult, Defect, TokenResult, google_unavailable
from broker.tokens.token_request import TokenRequest

logger = logging.getLogger(__name__)

DEADLINE = timedelta(seconds=18)
"""For a whole batch; a little less than the timeout that the documentation recommends."""

_ATTEMPTS = 4
"""How often requests whose grants change meanwhile are answered again."""

_PORTION = 20
"""Requests that start in one event-loop iteration."""


class BatchDispenser:
    """Gives a caller many tokens."""

    def __init__(
        self,
        *,
        cache: TokenCache,
        grants: GrantStore,
        dispenser: TokenDispenser,
        portions: LoopFairness,
    ) -> None:
        """`dispenser` bounds refreshes per caller; all batches share `portions`."""
        self._admit_portion = portions.admit
        self._cache = cache
        self._grants = grants
        self._dispenser = dispenser

    async def dispense(
        self, caller: Caller, requests: Collection[TokenRequest]
    ) -> Mapping[TokenRequest, BatchResult]:
        """Return an answer for each request, none of them recorded.

        The caller must be allowed to act for all the users. No token among the answers was revoked
        while others were fetched: all are good at the moment that this returns, so record and send
        them before anything else can happen.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + DEADLINE.total_seconds()
        answers: dict[TokenRequest, BatchResult] = {}
        unsettled = list(requests)
        watches = _Watches(self._cache)
        try:
            for _ in range(_ATTEMPTS):
                watches.renew({request.user_id for request in unsettled})
                answers |= await self._answer_once(caller, unsettled, watches, until)
                unsettled = [
                    request
                    for request, answer in answers.items()
                    if watches.of(request.user_id).changed or self._is_expired(answer)
                ]
                if not unsettled or loop.time() >= until:
                    break
        finally:
            watches.end()
        return answers | dict.fromkeys(unsettled, _KEEPS_CHANGING)

    async def _answer_once(
        self,
        caller: Caller,
        requests: Sequence[TokenRequest],
        watches: "_Watches",
        until: float,
    ) -> Mapping[TokenRequest, BatchResult]:
        answers: dict[TokenRequest, BatchResult] = {}
        cold: list[TokenRequest] = []
        for portion in _portions(requests):
            await self._admit_portion(caller.name)
            for request in portion:
                answer = self._dispenser.try_cached(caller, request)
                if answer is None:
                    cold.append(request)
                else:
                    answers[request] = answer
        if cold:
            answers |= await self._answer_cold(caller, cold, watches, until)
        return answers

    async def _answer_cold(
        self, caller: Caller, cold: Sequence[TokenRequest], watches: "_Watches", until: float
    ) -> Mapping[TokenRequest, BatchResult]:
        try:
            found = await self._grants.find_many(list({request.user_id for request in cold}))
        except StorageUnavailable as error:
            logger.warning(error.headline, extra={"event": error.event, "reason": str(error)})
            return {request: self._dispenser.without_storage(caller, request) for request in cold}
        tasks: dict[TokenRequest, asyncio.Task[TokenResult]] = {}
        try:
            for portion in _portions(cold):
                await self._admit_portion(caller.name)
                for request in portion:
                    user_id = request.user_id
                    stored = found.get(user_id)
                    seen = None if stored is None else GrantsRead(stored, watches.of(user_id))
                    fetch = self._dispenser.fetch(
                        caller, request, Requester(caller.name), seen=seen
                    )
                    tasks[request] = asyncio.create_task(fetch)
            time_left = max(0.0, until - asyncio.get_running_loop().time())
            await asyncio.wait(tasks.values(), timeout=time_left)
            return {request: _result_of(task) for request, task in tasks.items()}
        finally:
            # A refresh that is still in progress goes on, for later requests.
            for task in tasks.values():
                task.cancel()

    def _is_expired(self, answer: BatchResult) -> bool:
        return isinstance(answer, CachedToken) and self._dispenser.is_expired(answer)


class _Watches:
    """One watch per user, begun again before each attempt."""

    def __init__(self, cache: TokenCache) -> None:
        self._cache = cache
        self._by_user: dict[str, Watch] = {}

    def of(self, user_id: str) -> Watch:
        return self._by_user[user_id]

    def renew(self, user_ids: Iterable[str]) -> None:
        for user_id in user_ids:
            before = self._by_user.get(user_id)
            watch = self._by_user[user_id] = self._cache.watch(user_id)
            watch.begin()
            if before is not None:
                before.end()

    def end(self) -> None:
        for watch in self._by_user.values():
            watch.end()


_KEEPS_CHANGING = google_unavailable("The user's grants keep changing.")


def _portions(requests: Sequence[TokenRequest]) -> Iterator[Sequence[TokenRequest]]:
    return (requests[at : at + _PORTION] for at in range(0, len(requests), _PORTION))


def _result_of(task: asyncio.Task[TokenResult]) -> BatchResult:
    """Return a request's result; a defect in one does not fail the others."""
    if not task.done():
        return google_unavailable("A refresh is taking too long.")
    error = task.exception()
    if error is None:
        return task.result()
    logger.error(
        "a request of a batch failed unexpectedly",
        exc_info=error,
        extra={"event": "batch_request_failed"},
    )
    return Defect()
