"""`POST /oauth/token`: token exchange (RFC 8693).

It has the policies, the dispenser, the metrics and the audit records of every other route.
"""

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.callers.refusals import AccessRefused, RefusalReason
from broker.clock import Clock
from broker.exchange.clients import ClientAuthentication
from broker.exchange.errors import (
    OAuthError,
    error_response,
    from_malformed,
    from_refusal,
    invalid_request,
)
from broker.exchange.form import Form, is_google, read_form
from broker.exchange.subjects import ACCESS_TOKEN, SUBJECT_TOKEN_TYPES, SubjectTokens
from broker.issuers.model import IssuerUnavailable, JwtRefused
from broker.issuers.trusted import JwtRefusalLog
from broker.tokens.cache.cached_token import CachedToken
from broker.tokens.dispenser import TokenDispenser
from broker.tokens.request_ledger import RequestLedger
from broker.tokens.results import TokenResult
from broker.tokens.token_request import (
    TokenRequest,
    checked_account,
    checked_min_ttl,
    checked_scopes,
)
from broker.web.problems import NO_STORE, Problem

EXCHANGE_ROUTE: Final = "/oauth/token"
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_SUBJECT_REFUSED = "subject_token_refused"


class ExchangeRoute:
    """The route `POST /oauth/token`."""

    def __init__(
        self,
        *,
        gate: Gate,
        clients: ClientAuthentication,
        subjects: SubjectTokens,
        dispenser: TokenDispenser,
        ledger: RequestLedger,
        refusals: JwtRefusalLog,
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
        """Return the route for Starlette."""
        return [Route(EXCHANGE_ROUTE, self.exchange, methods=["POST"])]

    async def exchange(self, request: Request) -> Response:
        """Return a Google token for the user that `subject_token` proves, or an OAuth error."""
        self._ledger.begin(request)
        try:
            return await self._exchange(request)
        except OAuthError as error:
            return error_response(error, request.state.request_id)
        except AccessRefused as refused:
            return error_response(from_refusal(refused), request.state.request_id)
        except Problem as malformed:
            return error_response(from_malformed(malformed), request.state.request_id)

    async def _exchange(self, request: Request) -> Response:
        if request.scope["query_string"]:
            raise await self._gate.refuse_url(request, RefusalReason.PARAMETERS_IN_URL)
        async with self._gate.reading_form(request, self._clients.of_head(request)):
            form = await read_form(request)
        generation = self._gate.generation
        caller = await self._clients.authenticate(request, form)
        self._ledger.begin(request, caller)
        await self._gate.count_request(caller)
        request_id = request.state.request_id
        while True:
            asked = await self._admitted(request, caller, form)
            answer = await self._dispenser.dispense(caller, asked, request_id=request_id)
            if generation == self._gate.generation:
                return self._answer(caller, asked, answer, request_id)
            # While Google was slow, the caller may have lost its permission.
            generation = self._gate.generation
            caller = await self._clients.authenticate(request, form)

    async def _admitted(self, request: Request, caller: Caller, form: Form) -> TokenRequest:
        """Return the request, if the caller may make it. Raises `OAuthError`, `AccessRefused`."""
        try:
            _check_kind(form)
        except OAuthError as error:
            self._refused(request, caller, error.code or error.error)
            raise
        if not caller.may(Permission.TOKENS_READ):
            refused = AccessRefused(
                RefusalReason.PERMISSION_MISSING, permission=Permission.TOKENS_READ
            )
            self._gate.audit_refusal(request, caller, None, refused.audit_outcome)
            raise refused
        asked = await self._token_request(request, caller, form)
        not_for_user = self._gate.check_user(request, caller, asked.user_id)
        if not_for_user is not None:
            raise not_for_user
        return asked

    async def _token_request(self, request: Request, caller: Caller, form: Form) -> TokenRequest:
        """Return the request that form and JWT mean; no record has the user before it is proved."""
        try:
            scopes = _scopes(form)
            account = checked_account(form.get("account"))
            min_ttl = checked_min_ttl(form.get("min_ttl"))
        except (OAuthError, Problem) as malformed:
            self._refused(request, caller, malformed.code or "invalid_request")
            raise
        subject_token = form.required("subject_token")
        try:
            user_id = await self._subjects.user_id(
                subject_token, form.required("subject_token_type"), caller
            )
        except JwtRefused as refusal:
            self._refusals.record("subject", refusal, caller=caller.name)
            self._refused(request, caller, _SUBJECT_REFUSED)
            raise _subject_refused() from None
        except IssuerUnavailable:
            refused = AccessRefused(RefusalReason.ISSUER_UNAVAILABLE)
            self._refused(request, caller, refused.code)
            raise refused from None
        return TokenRequest(user_id=user_id, scopes=scopes, account=account, min_ttl=min_ttl)

    def _answer(
        self, caller: Caller, asked: TokenRequest, answer: TokenResult, request_id: str
    ) -> Response:
        if not isinstance(answer, CachedToken):
            self._ledger.refused(
                caller, asked.user_id, answer.code, scopes=asked.scopes or (), request_id=request_id
            )
            raise from_refusal(answer)
        epoch = self._clock.epoch()
        hand_outs = self._ledger.hand_outs(caller)
        hand_outs.record(answer, request_id=request_id.encode(), epoch=epoch)
        return _success(answer, epoch)

    def _refused(self, request: Request, caller: Caller, code: str) -> None:
        self._ledger.refused(caller, None, code, scopes=(), request_id=request.state.request_id)


def _check_kind(form: Form) -> None:
    """Check the parameters of RFC 8693 §2.1 that the broker supports. Raises `OAuthError`."""
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


def _scopes(form: Form) -> tuple[str, ...] | None:
    try:
        return checked_scopes(form.get("scope"))
    except Problem as malformed:
        # RFC 6749 §5.2 has one error for a malformed scope and for one that is not granted.
        raise from_malformed(malformed, error="invalid_scope") from None


def _subject_refused() -> OAuthError:
    # RFC 8693 §2.2.2 has this error for a subject token that is invalid for any reason.
    return OAuthError(
        "invalid_request",
        "The subject_token is expired, not meant for this service, or of an unknown issuer.",
        code=_SUBJECT_REFUSED,
    )


def _success(token: CachedToken, epoch: float) -> Response:
    """Return the answer of RFC 8693 §2.2.1."""
    members = json.loads(token.body(max(0, int(token.expires_at - epoch))))
    document = {
        "access_token": members["access_token"],
        "issued_token_type": ACCESS_TOKEN,
        "token_type": members["token_type"],
        "expires_in": members["expires_in"],
        "scope": members["scope"],
    }
    return JSONResponse(document, headers={**NO_STORE, "Pragma": "no-cache"})
