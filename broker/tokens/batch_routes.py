"""`POST /v1/tokens`: many questions come in by HTTP, and their answers go out together.

An item whose question was answered before is answered from memory at once, as single requests are
on the warm path: to the very caller object that was admitted then. Everything that is not known is
read with care, and dispensed together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker.callers.gate import Gate
from broker.callers.limits import CallerLimits
from broker.callers.model import Caller, Permission
from broker.clock import Clock
from broker.tokens.batch import BatchDispenser
from broker.tokens.batch_items import Questions, items_of, read_item
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import LAST_SECOND, HeldTokens, TokenRequest
from broker.tokens.counting import RequestLedger
from broker.web.bodies import read_json_bytes
from broker.web.paths import query_parameters
from broker.web.problems import NO_STORE, Problem

BATCH_ROUTE: Final = "/v1/tokens"
BATCH_BODY_LIMIT = 1024 * 1024
"""Bytes; a thousand items of a kilobyte each. A longer one would take too long to read."""

_PORTION = 200
"""Items that are read before others get their turn on the event loop."""


class BatchRoute:
    """The route, with what it depends on."""

    def __init__(
        self,
        *,
        gate: Gate,
        held: HeldTokens,
        batches: BatchDispenser,
        ledger: RequestLedger,
        limits: CallerLimits,
        clock: Clock,
    ) -> None:
        self._limits = limits
        self._gate = gate
        self._held = held
        self._batches = batches
        self._ledger = ledger
        self._clock = clock

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route(BATCH_ROUTE, self.give_tokens, methods=["POST"])]

    async def give_tokens(self, request: Request) -> Response:
        """Answer a batch, each item in its place."""
        self._ledger.begin(request)
        generation = self._gate.generation
        caller = await self._gate.admit_for_some(request, Permission.TOKENS_READ)
        self._ledger.begin(request, caller)
        query_parameters(request, ())
        request.state.at_end = await self._limits.begin_batch(caller)
        return await self._give_tokens(request, caller, generation)

    async def _give_tokens(self, request: Request, caller: Caller, generation: int) -> Response:
        try:
            body = await read_json_bytes(request, limit=BATCH_BODY_LIMIT)
            await self._limits.portions.begin(caller.name)
            items = items_of(body)
        except Problem as problem:
            self._gate.note_refusal(request, caller, None, problem)
            raise
        self._ledger.begin(request, caller, len(items))
        # The first one is counted already.
        await self._limits.charge(caller, len(items) - 1)
        answers: Sequence[_Answer] | None = self._known(caller, items)
        if answers is None:
            answers = await self._long_way(request, caller, items)
        while generation != self._gate.generation:
            # The body or Google may have been slow, and the caller have lost its rights meanwhile.
            generation = self._gate.generation
            caller = await self._gate.admit_again(request, Permission.TOKENS_READ)
            answers = await self._long_way(request, caller, items)
        # Nothing is waited for from here on, so that what was good is good when it is sent.
        results = self._handed_out(caller, answers, request.state.request_id)
        return _LongAnswer(results, media_type="application/json", headers=NO_STORE)

    def _known(self, caller: Caller, items: Sequence[object]) -> list[HeldToken] | None:
        """What answered all of it before, where it still does; nothing if there is any gap."""
        epoch, known = self._clock.epoch(), self._held.known
        found: list[HeldToken] = []
        try:
            for user_id, question in Questions().split_all(items):
                if question is None:
                    return None
                scopes, account, min_ttl = question
                token = known(caller, user_id, scopes, account)
                if token is None or token.expires_at - epoch < (min_ttl or LAST_SECOND):
                    return None
                found.append(token)
        except TypeError:
            # Something in it has no hash, which nothing has that was ever answered.
            return None
        return found

    async def _long_way(
        self, request: Request, caller: Caller, items: Sequence[object]
    ) -> list["_Answer"]:
        """Read everything, refuse what is to be refused, and have the rest dispensed."""
        asked: list[TokenRequest | Problem] = []
        questions = Questions()
        for place, item in enumerate(items):
            asked.append(self._answered_before(caller, item, questions) or read_item(item, place))
            if place % _PORTION == 0:
                await self._limits.portions.begin(caller.name)
        admitted = [self._at_the_gate(request, caller, each) for each in asked]
        wanted = dict.fromkeys(each for each in admitted if isinstance(each, TokenRequest))
        dispensed = await self._batches.dispense(caller, wanted)
        return [_answer_to(each, dispensed) for each in admitted]

    def _answered_before(
        self, caller: Caller, item: object, questions: Questions
    ) -> TokenRequest | None:
        """The question of an item, if it was answered before: then it is known to be well put."""
        try:
            asked = questions.split(item)
            if asked is None:
                return None
            user_id, question = asked
            token = self._held.known(caller, user_id, question.scopes, question.account)
        except TypeError:
            return None
        return TokenRequest(user_id, *question) if token is not None else None

    def _at_the_gate(
        self, request: Request, caller: Caller, asked: TokenRequest | Problem
    ) -> "TokenRequest | _Refusal":
        if isinstance(asked, Problem):
            # For whom it was may be what could not be read.
            self._ledger.refused(
                caller, None, asked.code, scopes=(), request_id=request.state.request_id
            )
            return _Refusal(asked)
        problem = self._gate.refusal(request, caller, asked.user_id)
        return _Refusal(problem) if problem is not None else asked

    def _handed_out(self, caller: Caller, answers: Sequence["_Answer"], request_id: str) -> bytes:
        """The answer's body, with each hand-out and refusal written down."""
        epoch = self._clock.epoch()
        # No hand-out waits for its record, nor takes the room of others'.
        id_bytes = request_id.encode() if self._ledger.audit.has_room(len(answers)) else None
        results: list[bytes] = []
        note = self._ledger.hand_outs(caller).note
        for answer in answers:
            if isinstance(answer, HeldToken):
                note(answer, request_id=id_bytes, epoch=epoch)
                results.append(answer.body(int(answer.expires_at - epoch)))
            else:
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


class _LongAnswer(Response):
    """Ends once most of it has been read: what nobody reads is under way, and takes memory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        # The server takes this as soon as little of it is left to be sent.
        await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True, slots=True)
class _Refusal:
    problem: Problem
    asked: TokenRequest | None = None
    """To be written down; nothing where that has been done."""


_Answer = HeldToken | _Refusal


def _answer_to(
    asked: TokenRequest | _Refusal, dispensed: Mapping[TokenRequest, HeldToken | Problem]
) -> _Answer:
    if isinstance(asked, _Refusal):
        return asked
    answer = dispensed[asked]
    return _Refusal(answer, asked) if isinstance(answer, Problem) else answer
