"""`POST /v1/tokens`: many questions come in by HTTP, and their answers go out together.

An item that was answered before, letter by letter, is answered without reading it, as single
requests are on the warm path: the same is skipped, and nothing else. Everything that is not known
is read, and dispensed together.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.clock import Clock
from broker.tokens.batch import BatchDispenser
from broker.tokens.batch_items import items_of, read_item
from broker.tokens.counting import RequestLedger
from broker.tokens.held import TokenRequest
from broker.tokens.warm_path import WarmAnswer
from broker.web.bodies import read_json_bytes
from broker.web.problems import NO_STORE, Problem

BATCH_ROUTE: Final = "/v1/tokens"
BATCH_BODY_LIMIT = 1024 * 1024
"""Bytes; a thousand items of a kilobyte each. A longer one would take too long to read."""

_PORTION = 200
"""Items that are read before others get their turn on the event loop."""

_LONGEST_REMEMBERED = 512
"""Characters of an item's values, as they were sent."""


class BatchRoute:
    """The route, with the answers that it remembers."""

    def __init__(
        self,
        *,
        gate: Gate,
        batches: BatchDispenser,
        ledger: RequestLedger,
        clock: Clock,
        remembered_at_most: int = 100_000,
    ) -> None:
        self._gate = gate
        self._batches = batches
        self._ledger = ledger
        self._clock = clock
        self._remembered_at_most = remembered_at_most
        self._remembered: dict[tuple[str, object], WarmAnswer] = {}

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route(BATCH_ROUTE, self.give_tokens, methods=["POST"])]

    async def give_tokens(self, request: Request) -> Response:
        """Answer a batch, each item in its place."""
        caller = await self._gate.admit_for_some(request, Permission.TOKENS_READ)
        items = items_of(await read_json_bytes(request, limit=BATCH_BODY_LIMIT))
        known = self._known(caller, items)
        answers: Sequence[_Answer | None] = known
        if None in known:
            answers = await self._long_way(request, caller, items, known)
        # Nothing is waited for from here on, so that what was good is good when it is sent.
        body = self._handed_out(caller, answers, request.state.request_id)
        return Response(body, media_type="application/json", headers=NO_STORE)

    def _known(self, caller: Caller, items: Sequence[object]) -> list[WarmAnswer | None]:
        """What was answered before, where it still is the answer."""
        name, epoch, remembered = caller.name, self._clock.epoch(), self._remembered.get
        try:
            found = [remembered((name, item)) for item in items]
        except TypeError:
            # Something in it has no hash, which nothing has that was ever answered.
            return [None] * len(items)
        return [
            answer
            if answer is not None
            and answer.caller is caller
            and answer.token.alive
            and epoch <= answer.good_until
            else None
            for answer in found
        ]

    async def _long_way(
        self,
        request: Request,
        caller: Caller,
        items: Sequence[object],
        known: Sequence[WarmAnswer | None],
    ) -> list["_Answer | None"]:
        """Read what is not known, refuse what is to be refused, and have the rest dispensed."""
        asked: list[TokenRequest | Problem] = []
        for place, (item, answer) in enumerate(zip(items, known, strict=True)):
            asked.append(answer.request if answer is not None else read_item(item, place))
            if place % _PORTION == 0:
                await asyncio.sleep(0)
        answers = [self._refused_at_the_gate(request, caller, each) for each in asked]
        wanted = dict.fromkeys(
            each
            for each, refusal in zip(asked, answers, strict=True)
            if refusal is None and isinstance(each, TokenRequest)
        )
        before = {answer.request: answer for answer in known if answer is not None}
        dispensed = await self._batches.dispense(caller, wanted, before)
        for place, each in enumerate(asked):
            if answers[place] is None and isinstance(each, TokenRequest):
                answers[place] = self._taken_over(caller, items[place], each, dispensed[each])
        return answers

    def _refused_at_the_gate(
        self, request: Request, caller: Caller, asked: TokenRequest | Problem
    ) -> "_Answer | None":
        if isinstance(asked, Problem):
            return _Refusal(asked)
        problem = self._gate.refusal(request, caller, asked.user_id)
        return _Refusal(problem) if problem is not None else None

    def _taken_over(
        self, caller: Caller, item: object, asked: TokenRequest, answer: WarmAnswer | Problem
    ) -> "_Answer":
        """An answer as it goes out; what will answer the same item again is remembered."""
        if isinstance(answer, Problem):
            return _Refusal(answer, asked)
        if _size(item) <= _LONGEST_REMEMBERED:
            if len(self._remembered) >= self._remembered_at_most:
                # The oldest goes; if it is still asked, it comes back by the long way.
                del self._remembered[next(iter(self._remembered))]
            self._remembered[(caller.name, item)] = answer
        return answer

    def _handed_out(
        self, caller: Caller, answers: Sequence["_Answer | None"], request_id: str
    ) -> bytes:
        """The answer's body, with each hand-out and refusal written down."""
        epoch, id_bytes = self._clock.epoch(), request_id.encode()
        results: list[bytes] = []
        for answer in answers:
            if isinstance(answer, WarmAnswer):
                token = answer.token
                answer.hand_outs.note(request_id=id_bytes, epoch=epoch)
                results.append(token.body(int(token.expires_at - epoch)))
            else:
                assert answer is not None  # noqa: S101  (the long way answers everything)
                results.append(self._refused(caller, answer, request_id))
        return b'{"results":[%b]}' % b",".join(results)

    def _refused(self, caller: Caller, refusal: "_Refusal", request_id: str) -> bytes:
        problem, asked = refusal.problem, refusal.asked
        if asked is not None:
            self._ledger.refused(
                caller,
                asked.user_id,
                problem.code,
                scopes=asked.scopes or (),
                request_id=request_id,
            )
        document = problem.body(request_id)
        if problem.retry_after is not None:
            # There is no header for one item.
            document["retry_after"] = problem.retry_after
        return json.dumps({"error": document}, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class _Refusal:
    problem: Problem
    asked: TokenRequest | None = None
    """To be written down; nothing where the gate has done so, or nothing could be read."""


_Answer = WarmAnswer | _Refusal


def _size(item: object) -> int:
    return sum(len(value) for _, value in item) if isinstance(item, tuple) else 0
