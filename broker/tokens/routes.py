"""`GET /v1/users/{user_id}/token`: what comes in by HTTP, and what goes out."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.callers.gate import Gate
from broker.callers.model import Permission
from broker.clock import Clock
from broker.google.scopes import is_scope_name, parse_scopes
from broker.tokens.counting import RequestLedger
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.held import TokenRequest
from broker.tokens.warm_path import WarmPath
from broker.web.paths import query_parameters, user_id_from
from broker.web.problems import NO_STORE, Problem, invalid_request, problem_response

TOKEN_ROUTE: Final = "/v1/users/{user_id}/token"  # noqa: S105  (a path)
DEFAULT_MIN_TTL = 60
LONGEST_MIN_TTL = 86_400
_ACCOUNT_LIMIT = 320
_SCOPE_LIMIT = 8192


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
        user_id = user_id_from(request)
        caller = gate.admit(request, Permission.TOKENS_READ, user_id)
        request_id = request.state.request_id
        try:
            asked = token_request_from(request, user_id)
        except Problem as problem:
            ledger.refused(caller, user_id, problem.code, scopes=(), request_id=request_id)
            raise
        answer = await dispenser.dispense(caller, asked, request_id=request_id)
        if isinstance(answer, Problem):
            ledger.refused(
                caller, user_id, answer.code, scopes=asked.scopes or (), request_id=request_id
            )
            return problem_response(answer, request_id)
        epoch = clock.epoch()
        ledger.handed_out(caller, user_id, answer, request_id=request_id, epoch=epoch)
        warm_path.keep(request.scope, caller, asked, answer)
        body = answer.body(max(0, int(answer.expires_at - epoch)))
        return Response(body, media_type="application/json", headers=NO_STORE)

    return [Route(TOKEN_ROUTE, give_token, methods=["GET"])]


def token_request_from(request: Request, user_id: str) -> TokenRequest:
    """The question that the query asks. Raises `Problem` naming the field that is malformed."""
    parameters = query_parameters(request, {"scope", "account", "min_ttl"})
    return TokenRequest(
        user_id=user_id,
        scopes=_scopes(parameters.get("scope")),
        account=_account(parameters.get("account")),
        min_ttl=_min_ttl(parameters.get("min_ttl")),
    )


def _scopes(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if len(text) > _SCOPE_LIMIT:
        raise invalid_request("scope", f"scope is longer than {_SCOPE_LIMIT} characters.")
    scopes = parse_scopes(text)
    if not all(map(is_scope_name, scopes)):
        raise invalid_request("scope", "scope has a name that no scope may have.")
    if not scopes:
        raise invalid_request("scope", "scope is empty; leave it out to get all there is.")
    return scopes


def _account(text: str | None) -> str | None:
    if text is None:
        return None
    if not 0 < len(text) <= _ACCOUNT_LIMIT or not text.isprintable():
        raise invalid_request("account", "account must be a Google `sub` or an email address.")
    return text


def _min_ttl(text: str | None) -> int:
    if text is None:
        return DEFAULT_MIN_TTL
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise invalid_request("min_ttl", "min_ttl must be a whole number of seconds.")
    seconds = int(text)
    if seconds > LONGEST_MIN_TTL:
        raise invalid_request("min_ttl", f"min_ttl is at most {LONGEST_MIN_TTL} seconds.")
    return seconds
