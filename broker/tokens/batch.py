"""Answers many questions for tokens together: one look at the table, refreshes in a bounded number.

Each question gets the answer that it would get alone. Nobody's trouble is anybody else's: who is
slow holds the batch up until its deadline at most, and who fails, fails alone.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

from broker.callers.model import Caller
from broker.database.database import StorageUnavailable
from broker.grants.store import GrantStore
from broker.limits.loop_fairness import Rounds
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import HeldTokens, TokenRequest, Watch
from broker.tokens.dispenser import Sighting, TokenDispenser
from broker.tokens.refresh.refresher import Behalf
from broker.web.problems import Problem, google_unavailable, internal_error

logger = logging.getLogger(__name__)

DEADLINE = timedelta(seconds=18)
"""For a batch as a whole; a little less than callers are told to wait."""

_ROUNDS = 4
"""How often users whose grants change meanwhile are looked at."""

_PORTION = 20
"""Questions begun before others get their turn on the event loop."""

Answer = HeldToken | Problem


class BatchDispenser:
    """The way to many tokens."""

    def __init__(
        self,
        *,
        held: HeldTokens,
        grants: GrantStore,
        dispenser: TokenDispenser,
        portions: Rounds,
    ) -> None:
        """`dispenser` is one whose refreshes are bounded in number, each caller's apart; `portions`
        are those of all batches.
        """
        self._begin_portion = portions.begin
        self._held = held
        self._grants = grants
        self._dispenser = dispenser

    async def dispense(
        self,
        caller: Caller,
        requests: Collection[TokenRequest],
    ) -> Mapping[TokenRequest, Answer]:
        """An answer for each, none of them written down; the caller may act for all the users.

        No token among them was withdrawn while others were waited for: all are good at the moment
        that this returns, so write them down and send them before anything else can happen.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + DEADLINE.total_seconds()
        answers: dict[TokenRequest, Answer] = {}
        unsettled = list(requests)
        watches = _Watches(self._held)
        try:
            for _ in range(_ROUNDS):
                watches.renew({request.user_id for request in unsettled})
                answers |= await self._answer_once(caller, unsettled, watches, until)
                unsettled = [
                    request
                    for request, answer in answers.items()
                    if watches.of(request.user_id).changed or self._is_over(answer)
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
    ) -> Mapping[TokenRequest, Answer]:
        answers: dict[TokenRequest, Answer] = {}
        cold: list[TokenRequest] = []
        for portion in _portions(requests):
            await self._begin_portion(caller.name)
            for request in portion:
                answer = self._dispenser.at_once(caller, request)
                if answer is None:
                    cold.append(request)
                else:
                    answers[request] = answer
        if cold:
            answers |= await self._answer_cold(caller, cold, watches, until)
        return answers

    async def _answer_cold(
        self, caller: Caller, cold: Sequence[TokenRequest], watches: "_Watches", until: float
    ) -> Mapping[TokenRequest, Answer]:
        try:
            found = await self._grants.find_many(list({request.user_id for request in cold}))
        except StorageUnavailable as error:
            logger.warning(error.headline, extra={"reason": str(error)})
            return {request: self._dispenser.without_storage(caller, request) for request in cold}
        tasks: dict[TokenRequest, asyncio.Task[Answer]] = {}
        try:
            for portion in _portions(cold):
                await self._begin_portion(caller.name)
                for request in portion:
                    user_id = request.user_id
                    stored = found.get(user_id)
                    seen = None if stored is None else Sighting(stored, watches.of(user_id))
                    fetch = self._dispenser.fetch(caller, request, Behalf(caller.name), seen)
                    tasks[request] = asyncio.create_task(fetch)
            time_left = max(0.0, until - asyncio.get_running_loop().time())
            await asyncio.wait(tasks.values(), timeout=time_left)
            return {request: _outcome(task) for request, task in tasks.items()}
        finally:
            # Whoever is still waited for goes on in the refresher, for those who ask next.
            for task in tasks.values():
                task.cancel()

    def _is_over(self, answer: Answer) -> bool:
        return isinstance(answer, HeldToken) and self._dispenser.is_over(answer)


class _Watches:
    """One watch for each user, begun again with each look."""

    def __init__(self, held: HeldTokens) -> None:
        self._held = held
        self._by_user: dict[str, Watch] = {}

    def of(self, user_id: str) -> Watch:
        return self._by_user[user_id]

    def renew(self, user_ids: Iterable[str]) -> None:
        for user_id in user_ids:
            before = self._by_user.get(user_id)
            self._by_user[user_id] = self._held.watch(user_id)
            if before is not None:
                self._held.unwatch(user_id, before)

    def end(self) -> None:
        for user_id, watch in self._by_user.items():
            self._held.unwatch(user_id, watch)


_KEEPS_CHANGING = google_unavailable(1, "The user's grants keep changing.")


def _portions(requests: Sequence[TokenRequest]) -> Iterator[Sequence[TokenRequest]]:
    return (requests[at : at + _PORTION] for at in range(0, len(requests), _PORTION))


def _outcome(task: asyncio.Task[Answer]) -> Answer:
    """What came of one question; a defect met there is not the others'."""
    if not task.done():
        return google_unavailable(1, "A refresh is taking too long.")
    error = task.exception()
    if error is None:
        return task.result()
    logger.error("a question of a batch failed unexpectedly", exc_info=error)
    return internal_error()
