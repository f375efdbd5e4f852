"""Authenticates the caller at the token endpoint, in each way that OAuth libraries know.

Bearer as on every other route; HTTP Basic or `client_id` and `client_secret` in the form, with the
caller's name and key (RFC 6749 §2.3.1); a workload's JWT as `client_assertion` (RFC 7523 §2.2).
"""

import base64
import binascii
from urllib.parse import unquote_plus

from starlette.requests import Request

from broker.callers.gate import Gate
from broker.callers.model import Caller
from broker.callers.refusals import RefusalReason
from broker.callers.registry import CallerRegistry
from broker.exchange.errors import REALM, invalid_client, invalid_request
from broker.exchange.form import Form

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_BASIC = f'Basic realm="{REALM}", charset="UTF-8"'
_SCHEME = "basic "
_LONGEST_BASIC = 8192


class ClientAuthentication:
    """Finds the caller by the only credential of the request."""

    def __init__(self, *, gate: Gate, registry: CallerRegistry) -> None:
        self._gate = gate
        self._registry = registry

    def of_head(self, request: Request) -> Caller | None:
        """Return the caller that the header authenticates; None also if the form may do it."""
        authorization = _authorization(request)
        if _is_basic(authorization):
            return self._by_basic(authorization)
        return self._registry.authenticate(authorization.encode("latin-1"))

    async def authenticate(self, request: Request, form: Form) -> Caller:
        """Return the caller. Raises `OAuthError` or `AccessRefused`."""
        _refuse_several_ways(request, form)
        client_id = form.get("client_id")
        authorization = _authorization(request)
        if _is_basic(authorization):
            caller = self._by_basic(authorization)
            return await self._checked(request, caller, client_id, _BASIC)
        if form.get("client_assertion") or form.get("client_assertion_type"):
            return await self._checked(request, await self._by_assertion(request, form), client_id)
        secret = form.get("client_secret")
        if secret is not None:
            # Without an id the secret would be a bearer token in the wrong place.
            caller = self._with_key(secret) if client_id is not None else None
            return await self._checked(request, caller, client_id)
        caller = await self._gate.identify(request)
        return await self._checked(request, caller, client_id)

    async def _checked(
        self,
        request: Request,
        caller: Caller | None,
        client_id: str | None,
        challenge: str = "Bearer",
    ) -> Caller:
        if caller is None or client_id not in (None, caller.name):
            refused = await self._gate.refuse_unauthenticated(request)
            if refused.reason is RefusalReason.UNAUTHENTICATED:
                raise invalid_client(challenge)
            raise refused
        return caller

    def _by_basic(self, authorization: str) -> Caller | None:
        encoded = authorization[len(_SCHEME) :].strip()
        if len(encoded) > _LONGEST_BASIC:
            return None
        try:
            pair = base64.b64decode(encoded, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return None
        name, colon, key = pair.partition(":")
        if not colon:
            return None
        caller = self._with_key(_form_decoded(key))
        return caller if caller is not None and caller.name == _form_decoded(name) else None

    async def _by_assertion(self, request: Request, form: Form) -> Caller | None:
        assertion = form.get("client_assertion")
        if form.get("client_assertion_type") != JWT_BEARER or assertion is None:
            raise invalid_request(
                f"client_assertion comes with client_assertion_type {JWT_BEARER}."
            )
        return await self._gate.authenticate_jwt(request, assertion.encode())

    def _with_key(self, key: str) -> Caller | None:
        return self._registry.with_key(key.encode())


def _authorization(request: Request) -> str:
    """Return the header's only value; several values are as none."""
    values = request.headers.getlist("authorization")
    return values[0] if len(values) == 1 else ""


def _is_basic(authorization: str) -> bool:
    return authorization[: len(_SCHEME)].lower() == _SCHEME


def _form_decoded(text: str) -> str:
    """Decode a name or key as RFC 6749 §2.3.1 requires, or return it as many libraries send it.

    Neither has a space, so a plus sign that is not encoded is a plus sign.
    """
    return unquote_plus(text) if "%" in text else text


def _refuse_several_ways(request: Request, form: Form) -> None:
    """RFC 6749 §2.3: a client must not use more than one authentication method."""
    ways = [
        "authorization" in request.headers,
        form.get("client_secret") is not None,
        form.get("client_assertion") is not None,
    ]
    if sum(ways) > 1:
        raise invalid_request("Authenticate in one way only.")
