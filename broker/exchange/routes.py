"""`POST /oauth/token`: what comes in by HTTP, and what goes out.

The way to a token is the one of every other route: the same policy, dispenser, counts and audit.
"""

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.clock import Clock
from broker.exchange.clients import ClientAuthentication
from broker.exchange.errors import (
    OAuthError,
    error_response,
    from_problem,
    invalid_request,
    unauthorized_client,
)
from broker.exchange.form import Form, read_form
from broker.exchange.subjects import ACCESS_TOKEN, SUBJECT_TOKEN_TYPES, SubjectTokens
from broker.exchange.targets import is_google
from broker.issuers.model import IssuerUnavailable, JwtRefused
from broker.issuers.refusals import JwtRefusals
from broker.tokens.cache.cached_token import HeldToken
from broker.tokens.cache.token_cache import TokenRequest
from broker.tokens.counting import RequestLedger
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.questions import checked_account, checked_min_ttl, checked_scopes
from broker.web import problems
from broker.web.problems import NO_STORE, Problem, forbidden, issuer_unavailable

EXCHANGE_ROUTE: Final = "/oauth/token"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_SUBJECT_REFUSED = "subject_token_refused"


class ExchangeRoute:
    """The route, with what it depends on."""

    def __init__(
        self,
        *,
        gate: Gate,
        clients: ClientAuthentication,
        subjects: SubjectTokens,
        dispenser: TokenDispenser,
        ledger: RequestLedger,
        refusals: JwtRefusals,
        clock: Clock,
    ) -> None:
        self._gate = gate
        self._clients = clients
        self._subjects = subjects
        self._dispenser = dispenser
        self._ledger = ledger
        self._refusals = refusals
        self._clock = clock

    def routes(self) -> list[Route]:
        """What it serves."""
        return [Route(EXCHANGE_ROUTE, self.exchange, methods=["POST"])]

    async def exchange(self, request: Request) -> Response:
        """A Google token for the user whom `subject_token` proves, or an error of RFC 6749."""
        self._ledger.begin(request)
        try:
            return await self._exchanged(request)
        except OAuthError as error:
            return error_response(error, request.state.request_id)
        except Problem as problem:
            return error_response(from_problem(problem), request.state.request_id)

    async def _exchanged(self, request: Request) -> Response:
        if request.scope["query_string"]:
            in_url = problems.invalid_request(
                "query", "Parameters belong into the body, none into the URL."
            )
            raise await self._gate.refuse_url(request, in_url, reason="parameters_in_url")
        async with self._gate.reading(request, self._clients.of_head(request)):
            form = await read_form(request)
        generation = self._gate.generation
        caller = await self._clients.authenticate(request, form)
        self._ledger.begin(request, caller)
        await self._gate.count(caller)
        request_id = request.state.request_id
        while True:
            asked = await self._admitted(request, caller, form)
            answer = await self._dispenser.dispense(caller, asked, request_id=request_id)
            if generation == self._gate.generation:
                return self._answer(caller, asked, answer, request_id)
            # Google may be slow, and the caller have lost its rights meanwhile.
            generation = self._gate.generation
            caller = await self._clients.authenticate(request, form)

    async def _admitted(self, request: Request, caller: Caller, form: Form) -> TokenRequest:
        """What is asked for, if the caller may ask. Raises `OAuthError` or `Problem`."""
        try:
            _check_kind(form)
        except OAuthError as error:
            self._refused(request, caller, error.code or error.error)
            raise
        if not caller.may(Permission.TOKENS_READ):
            problem = forbidden(f"This caller's policy does not include {Permission.TOKENS_READ}.")
            self._gate.note_refusal(request, caller, None, problem)
            raise unauthorized_client(problem.detail)
        asked = await self._question(request, caller, form)
        refusal = self._gate.refusal(request, caller, asked.user_id)
        if refusal is not None:
            raise refusal
        return asked

    async def _question(self, request: Request, caller: Caller, form: Form) -> TokenRequest:
        """What is asked for, by whom it is for. Nothing of the JWT is told on before it is good."""
        try:
            scopes = checked_scopes(form.get("scope"))
            account = checked_account(form.get("account"))
            min_ttl = checked_min_ttl(form.get("min_ttl"))
        except Problem as malformed:
            self._refused(request, caller, malformed.code)
            raise
        subject_token = form.required("subject_token")
        try:
            user_id = await self._subjects.user_id(
                subject_token, form.required("subject_token_type"), caller
            )
        except JwtRefused as refusal:
            self._refusals.note("subject", refusal, caller=caller.name)
            self._refused(request, caller, _SUBJECT_REFUSED)
            raise _subject_refused() from None
        except IssuerUnavailable:
            problem = issuer_unavailable()
            self._refused(request, caller, problem.code)
            raise problem from None
        return TokenRequest(user_id=user_id, scopes=scopes, account=account, min_ttl=min_ttl)

    def _answer(
        self, caller: Caller, asked: TokenRequest, answer: HeldToken | Problem, request_id: str
    ) -> Response:
        if isinstance(answer, Problem):
            self._ledger.refused(
                caller, asked.user_id, answer.code, scopes=asked.scopes or (), request_id=request_id
            )
            raise answer
        epoch = self._clock.epoch()
        noted = self._ledger.hand_outs(caller)
        noted.note(answer, request_id=request_id.encode(), epoch=epoch)
        return _success(answer, epoch)

    def _refused(self, request: Request, caller: Caller, code: str) -> None:
        self._ledger.refused(caller, None, code, scopes=(), request_id=request.state.request_id)


def _check_kind(form: Form) -> None:
    """RFC 8693 §2.1, as far as the broker goes. Raises `OAuthError`."""
    if form.required("grant_type") != GRANT_TYPE:
        raise OAuthError("unsupported_grant_type", f"The only grant_type here is {GRANT_TYPE}.")
    form.required("subject_token")
    if form.required("subject_token_type") not in SUBJECT_TOKEN_TYPES:
        raise invalid_request("subject_token_type must be one of " + " ".join(SUBJECT_TOKEN_TYPES))
    if form.get("actor_token") or form.get("actor_token_type"):
        raise invalid_request("actor_token: there is no delegation here; the caller is the actor.")
    if form.get("requested_token_type") not in (None, ACCESS_TOKEN):
        raise invalid_request(f"requested_token_type must be {ACCESS_TOKEN}.")
    if not all(map(is_google, form.targets)):
        raise OAuthError("invalid_target", "Tokens are for Google's own APIs only.")


def _subject_refused() -> OAuthError:
    # RFC 8693 §2.2.2 names this error for a subject token that is invalid for whatever reason.
    return OAuthError(
        "invalid_request",
        "The subject_token is expired, not meant for this service, or of an unknown issuer.",
        code=_SUBJECT_REFUSED,
    )


def _success(token: HeldToken, epoch: float) -> Response:
    """RFC 8693 §2.2.1."""
    members = json.loads(token.body(max(0, int(token.expires_at - epoch))))
    document = {
        "access_token": members["access_token"],
        "issued_token_type": ACCESS_TOKEN,
        "token_type": members["token_type"],
        "expires_in": members["expires_in"],
        "scope": members["scope"],
    }
    return JSONResponse(document, headers={**NO_STORE, "Pragma": "no-cache"})
