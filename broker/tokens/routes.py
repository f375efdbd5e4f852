"""`GET /v1/users/{user_id}/token`: what comes in by HTTP, and what goes out."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.callers.gate import Gate
from broker.callers.model import Permission
from broker.clock import Clock
from broker.tokens.cache.fast_path import WarmPath
from broker.tokens.cache.token_cache import TokenRequest
from broker.tokens.counting import RequestLedger
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.questions import checked_account, checked_min_ttl, checked_scopes
from broker.web.paths import query_parameters, user_id_from
from broker.web.problems import NO_STORE, Problem, problem_response

TOKEN_ROUTE: Final = "/v1/users/{user_id}/token"  # noqa: S105  (a path)


def token_routes(
    *,
    gate: Gate,
    dispenser: TokenDispenser,
    ledger: RequestLedger,
    warm_path: WarmPath,
    clock: Clock,
) -> list[Route]:
    """The route, with what it depends on."""

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
        answer = await dispenser.dispense(caller, asked, request_id=request_id)
        while generation != gate.generation:
            # Google may be slow, and a policy must not be in force for as long as it takes.
            generation = gate.generation
            caller = await gate.admit_again(request, Permission.TOKENS_READ, user_id)
            answer = await dispenser.dispense(caller, asked, request_id=request_id)
        if isinstance(answer, Problem):
            ledger.refused(
                caller, user_id, answer.code, scopes=asked.scopes or (), request_id=request_id
            )
            return problem_response(answer, request_id)
        epoch = clock.epoch()
        ledger.hand_outs(caller).note(answer, request_id=request_id.encode(), epoch=epoch)
        warm_path.keep(request.scope, caller, asked, answer)
        body = answer.body(max(0, int(answer.expires_at - epoch)))
        return Response(body, media_type="application/json", headers=NO_STORE)

    return [Route(TOKEN_ROUTE, give_token, methods=["GET"])]


def token_request_from(request: Request, user_id: str) -> TokenRequest:
    """The question that the query asks. Raises `Problem` naming the field that is malformed."""
    parameters = query_parameters(request, {"scope", "account", "min_ttl"})
    return TokenRequest(
        user_id=user_id,
        scopes=checked_scopes(parameters.get("scope")),
        account=checked_account(parameters.get("account")),
        min_ttl=checked_min_ttl(parameters.get("min_ttl")),
    )
