"""The token API: `GET /v1/users/{user_id}/token` and `POST /v1/tokens`.

A batch whose requests were all answered before is answered from the cache immediately, to the very
caller object that was admitted then, as a single request is on the fast path. Otherwise every item
is read and checked, and the cache and Google answer what they can.
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
from broker.tokens.answers import problem_of
from broker.tokens.batch import BatchDispenser
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.cache.token_cache import LEAST_LIFE_SECONDS, TokenCache
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.fast_path import cacheable_target
from broker.tokens.request_ledger import RequestLedger
from broker.tokens.results import BatchResult
from broker.tokens.token_request import (
    ItemSplitter,
    TokenRequest,
    checked_account,
    checked_min_ttl,
    checked_scopes,
    read_item,
    read_items,
)
from broker.web.bodies import read_json_bytes
from broker.web.parameters import query_parameters, user_id_from
from broker.web.problems import NO_STORE, Problem, problem_response

TOKEN_ROUTE: Final = "/v1/users/{user_id}/token"  # noqa: S105  (a path)


def token_routes(
    *, gate: Gate, dispenser: TokenDispenser, ledger: RequestLedger, clock: Clock
) -> list[Route]:
    """Return the route for Starlette."""

    async def give_token(request: Request) -> Response:
        ledger.begin(request)
        user_id = user_id_from(request)
        generation = gate.generation
        caller = await gate.admit(request, Permission.TOKENS_READ, user_id)
        ledger.begin(request, caller)
        request_id = request.state.request_id
        try:
            asked = token_request_from(request, user_id)
        except Problem as problem:
            ledger.refused(caller, user_id, problem.code, scopes=(), request_id=request_id)
            raise
        target = cacheable_target(request.scope)
        answer = await dispenser.dispense(caller, asked, request_id=request_id, target=target)
        while generation != gate.generation:
            # Google may be slow; a withdrawn permission must not stay in force that long.
            generation = gate.generation
            caller = await gate.admit_again(request, Permission.TOKENS_READ, user_id)
            answer = await dispenser.dispense(caller, asked, request_id=request_id, target=target)
        if not isinstance(answer, CachedToken):
            ledger.refused(
                caller, user_id, answer.code, scopes=asked.scopes or (), request_id=request_id
            )
            return problem_response(problem_of(answer), request_id)
        epoch = clock.epoch()
        ledger.hand_outs(caller).record(answer, request_id=request_id.encode(), epoch=epoch)
        body = answer.body(max(0, int(answer.expires_at - epoch)))
        return Response(body, media_type="application/json", headers=NO_STORE)

    return [Route(TOKEN_ROUTE, give_token, methods=["GET"])]


def token_request_from(request: Request, user_id: str) -> TokenRequest:
    """Return the request that the query means. Raises `Problem`, which names the wrong field."""
    parameters = query_parameters(request, {"scope", "account", "min_ttl"})
    return TokenRequest(
        user_id=user_id,
        scopes=checked_scopes(parameters.get("scope")),
        account=checked_account(parameters.get("account")),
        min_ttl=checked_min_ttl(parameters.get("min_ttl")),
    )


# ---- batches

BATCH_ROUTE: Final = "/v1/tokens"
BATCH_BODY_LIMIT = 1024 * 1024
"""Bytes; a thousand items of a kilobyte each. A longer body would take too long to parse."""

_PORTION = 200
"""Items that are read in one event-loop iteration."""


class BatchRoute:
    """The route `POST /v1/tokens`."""

    def __init__(
        self,
        *,
        gate: Gate,
        cache: TokenCache,
        batches: BatchDispenser,
        ledger: RequestLedger,
        limits: CallerLimits,
        clock: Clock,
    ) -> None:
        self._limits = limits
        self._gate = gate
        self._cache = cache
        self._batches = batches
        self._ledger = ledger
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the route for Starlette."""
        return [Route(BATCH_ROUTE, self.give_tokens, methods=["POST"])]

    async def give_tokens(self, request: Request) -> Response:
        """Answer a batch, each item in its place."""
        self._ledger.begin(request)
        generation = self._gate.generation
        caller = await self._gate.admit_for_any_user(request, Permission.TOKENS_READ)
        self._ledger.begin(request, caller)
        query_parameters(request, ())
        request.state.at_end = await self._limits.acquire_batch(caller)
        return await self._give_tokens(request, caller, generation)

    async def _give_tokens(self, request: Request, caller: Caller, generation: int) -> Response:
        try:
            body = await read_json_bytes(request, limit=BATCH_BODY_LIMIT)
            await self._limits.portions.admit(caller.name)
            items = read_items(body)
        except Problem as problem:
            self._gate.audit_refusal(request, caller, None, problem.code)
            raise
        self._ledger.begin(request, caller, len(items))
        # The gate has counted the first one.
        await self._limits.charge(caller, len(items) - 1)
        answers: Sequence[_ItemAnswer] | None = self._cached(caller, items)
        if answers is None:
            answers = await self._dispensed(request, caller, items)
        while generation != self._gate.generation:
            # While the body or Google was slow, the caller may have lost its permission.
            generation = self._gate.generation
            caller = await self._gate.admit_again(request, Permission.TOKENS_READ)
            answers = await self._dispensed(request, caller, items)
        # No await from here on: what is good now is good when it is sent.
        results = self._recorded(caller, answers, request.state.request_id)
        return _LargeResponse(results, media_type="application/json", headers=NO_STORE)

    def _cached(self, caller: Caller, items: Sequence[object]) -> list[CachedToken] | None:
        """Return the tokens that answered the same requests before; None if one is missing."""
        epoch, find = self._clock.epoch(), self._cache.find
        found: list[CachedToken] = []
        try:
            for user_id, query in ItemSplitter().split_all(items):
                if query is None:
                    return None
                scopes, account, min_ttl = query
                token = find(caller, user_id, scopes, account)
                if token is None or token.expires_at - epoch < (min_ttl or LEAST_LIFE_SECONDS):
                    return None
                found.append(token)
        except TypeError:
            # A value has no hash, so this request was never answered.
            return None
        return found

    async def _dispensed(
        self, request: Request, caller: Caller, items: Sequence[object]
    ) -> list["_ItemAnswer"]:
        """Read every item, refuse what must be refused, and dispense the rest together."""
        asked: list[TokenRequest | Problem] = []
        splitter = ItemSplitter()
        for place, item in enumerate(items):
            asked.append(self._answered_before(caller, item, splitter) or read_item(item, place))
            if place % _PORTION == 0:
                await self._limits.portions.admit(caller.name)
        admitted = [self._admit_item(request, caller, each) for each in asked]
        wanted = dict.fromkeys(each for each in admitted if isinstance(each, TokenRequest))
        dispensed = await self._batches.dispense(caller, wanted)
        return [_answer_to(each, dispensed) for each in admitted]

    def _answered_before(
        self, caller: Caller, item: object, splitter: ItemSplitter
    ) -> TokenRequest | None:
        """Return an item's request if it was answered before, and so is known to be valid."""
        try:
            asked = splitter.split(item)
            if asked is None:
                return None
            user_id, query = asked
            token = self._cache.find(caller, user_id, query.scopes, query.account)
        except TypeError:
            return None
        return TokenRequest(user_id, *query) if token is not None else None

    def _admit_item(
        self, request: Request, caller: Caller, asked: TokenRequest | Problem
    ) -> "TokenRequest | _RefusedItem":
        if isinstance(asked, Problem):
            # The user may be what could not be read.
            self._ledger.refused(
                caller, None, asked.code, scopes=(), request_id=request.state.request_id
            )
            return _RefusedItem(asked)
        refused = self._gate.check_user(request, caller, asked.user_id)
        return _RefusedItem(problem_of(refused)) if refused is not None else asked

    def _recorded(self, caller: Caller, answers: Sequence["_ItemAnswer"], request_id: str) -> bytes:
        """Record each hand-out and refusal, and return the answer's body."""
        epoch = self._clock.epoch()
        # No hand-out waits for its record, nor takes the place of other records.
        id_bytes = request_id.encode() if self._ledger.audit.has_room(len(answers)) else None
        results: list[bytes] = []
        record = self._ledger.hand_outs(caller).record
        for answer in answers:
            if isinstance(answer, CachedToken):
                record(answer, request_id=id_bytes, epoch=epoch)
                results.append(answer.body(int(answer.expires_at - epoch)))
            else:
                results.append(self._refused(caller, answer, request_id))
        return b'{"results":[%b]}' % b",".join(results)

    def _refused(self, caller: Caller, refused: "_RefusedItem", request_id: str) -> bytes:
        problem, asked = refused.problem, refused.unrecorded
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
            # An item has no header for it.
            document["retry_after"] = problem.retry_after
        return json.dumps({"error": document}, ensure_ascii=False).encode()


class _LargeResponse(Response):
    """Ends when most of it has been sent: until then, an unread response takes memory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytes(self.body)
        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        # The server accepts this when little of the body is left to be sent.
        await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True, slots=True)
class _RefusedItem:
    problem: Problem
    unrecorded: TokenRequest | None = None
    """The request, if the refusal is still to be recorded."""


_ItemAnswer = CachedToken | _RefusedItem


def _answer_to(
    asked: TokenRequest | _RefusedItem, dispensed: Mapping[TokenRequest, BatchResult]
) -> _ItemAnswer:
    if isinstance(asked, _RefusedItem):
        return asked
    answer = dispensed[asked]
    return answer if isinstance(answer, CachedToken) else _RefusedItem(problem_of(answer), asked)
