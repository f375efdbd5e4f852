"""The callers' API of connect links: create one, and confirm the consent that it brought.

`POST /v1/users/{user_id}/connect-links` and `POST /v1/connect-links/{id}/confirm`. Only the caller
knows in whose session the confirmation code came back; until it sends the code, no token is handed
out.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from broker.audit.trail import AuditTrail
from broker.callers.gate import Gate
from broker.callers.model import Caller, Permission
from broker.consent.consent_records import ConsentRecords
from broker.consent.consent_storage import OnConnected
from broker.consent.links import ConnectLink, ConnectLinks, LinkTokens
from broker.database.database import StorageUnavailable
from broker.grants.model import Grant
from broker.grants.pending_consents.store import ConfirmationFailure, Confirmed, PendingConsents
from broker.scopes import IDENTITY_SCOPES, canonical, is_scope_name, missing, parse_scopes
from broker.secret import Secret
from broker.settings import ALWAYS_REQUESTED
from broker.web.bodies import read_json_object
from broker.web.parameters import path_parameter, query_parameters, user_id_from
from broker.web.problems import (
    NO_STORE,
    Problem,
    confirmation_invalid,
    invalid_request,
    scope_not_allowed,
)

_LINK_MEMBERS = ("scopes", "return_to", "login_hint", "redirect_uri", "confirm")
_MOST_SCOPES = 100
_LONGEST_HINT = 320
"""Characters of the longest email address (RFC 5321 §4.5.3.1)."""
_LONGEST_CODE = 255

_KIND_NAMES: Mapping[type, str] = {str: "string", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """A caller's request for a connect link, checked against its policy."""

    scopes: tuple[str, ...]
    """Identity scopes included; no scope twice under two names."""
    redirect_uri: str
    return_to: str | None
    login_hint: str | None
    confirm: bool


class CreateLinkRoute:
    """Creates connect links."""

    def __init__(
        self,
        *,
        gate: Gate,
        links: ConnectLinks,
        tokens: LinkTokens,
        audit: AuditTrail,
        allowed_scopes: Sequence[str],
        redirect_uris: Sequence[str],
    ) -> None:
        """The first of `redirect_uris` is the default."""
        self._gate = gate
        self._links = links
        self._tokens = tokens
        self._audit = audit
        self._allowed_scopes = tuple(allowed_scopes)
        self._redirect_uris = tuple(redirect_uris)

    def routes(self) -> list[Route]:
        """Return the routes, for the internal listener."""
        return [Route("/v1/users/{user_id}/connect-links", self.create, methods=["POST"])]

    async def create(self, request: Request) -> Response:
        """Answer 201 with the link. Raises `Problem`; `StorageUnavailable`."""
        user_id = user_id_from(request)
        caller = await self._gate.admit(request, Permission.LINKS_CREATE, user_id)
        try:
            wanted = await self._read(request, caller, user_id)
        except Problem as problem:
            scopes = problem.members.get("scopes", ())
            self._record(request, caller, user_id, problem.code, scopes)
            raise
        try:
            link = await self._links.create(
                caller=caller.name,
                user_id=user_id,
                scopes=wanted.scopes,
                redirect_uri=wanted.redirect_uri,
                return_to=wanted.return_to,
                login_hint=wanted.login_hint,
                confirm=wanted.confirm,
            )
        except StorageUnavailable:
            self._record(request, caller, user_id, "storage_unavailable", wanted.scopes)
            raise
        self._record(request, caller, user_id, "created", link.scopes)
        return JSONResponse(self._document(link), status_code=201, headers=NO_STORE)

    async def _read(self, request: Request, caller: Caller, user_id: str) -> LinkRequest:
        if user_id in (".", ".."):
            # Browsers resolve such a path segment, percent-encoded or not (WHATWG URL).
            raise invalid_request("user_id", "This user_id cannot be part of a URL.")
        query_parameters(request, ())
        return read_link_request(
            await read_json_object(request),
            caller,
            allowed_scopes=self._allowed_scopes,
            redirect_uris=self._redirect_uris,
        )

    def _document(self, link: ConnectLink) -> dict[str, str]:
        return {
            "id": str(link.id),
            "url": self._tokens.url(link),
            "expires_at": link.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _record(
        self, request: Request, caller: Caller, user_id: str, outcome: str, scopes: Sequence[str]
    ) -> None:
        self._audit.record(
            action="connect_link",
            outcome=outcome,
            caller=caller.name,
            user_id=user_id,
            scopes=scopes,
            request_id=request.state.request_id,
        )


class ConfirmLinkRoute:
    """Confirms pending consents."""

    def __init__(
        self,
        *,
        gate: Gate,
        pending: PendingConsents,
        records: ConsentRecords,
        document_of: Callable[[Grant], Mapping[str, Any]],
        on_connected: OnConnected,
    ) -> None:
        """`document_of` returns a grant as lists of grants show it."""
        self._gate = gate
        self._pending = pending
        self._records = records
        self._document_of = document_of
        self._on_connected = on_connected

    def routes(self) -> list[Route]:
        """Return the routes, for the internal listener."""
        return [Route("/v1/connect-links/{id}/confirm", self.confirm, methods=["POST"])]

    async def confirm(self, request: Request) -> Response:
        """Answer 200 with the grant. Raises `Problem`; `StorageUnavailable`."""
        caller = await self._gate.admit_for_any_user(request, Permission.LINKS_CREATE)
        query_parameters(request, ())
        link_id = _link_id(request)
        code = _confirmation_code(await read_json_object(request))
        user_id = await self._pending.find_user(link_id, caller=caller.name)
        if user_id is None:
            self._record_refusal(request, caller, None, ConfirmationFailure.UNKNOWN)
            raise confirmation_invalid()
        refusal = self._gate.check_user(request, caller, user_id)
        if refusal is not None:
            raise refusal
        result = await self._pending.confirm(link_id, code, caller=caller.name)
        if isinstance(result, ConfirmationFailure):
            self._record_refusal(request, caller, user_id, result)
            raise confirmation_invalid()
        return self._confirmed(request, caller, result)

    def _confirmed(self, request: Request, caller: Caller, confirmed: Confirmed) -> Response:
        grant = confirmed.grant
        self._on_connected(grant.user_id, grant, confirmed.access_token)
        self._records.confirmed(grant, caller=caller.name, request_id=request.state.request_id)
        return JSONResponse(self._document_of(grant), headers=NO_STORE)

    def _record_refusal(
        self, request: Request, caller: Caller, user_id: str | None, failure: ConfirmationFailure
    ) -> None:
        self._records.confirmation_refused(
            failure, caller=caller.name, user_id=user_id, request_id=request.state.request_id
        )


def read_link_request(
    body: Mapping[str, Any],
    caller: Caller,
    *,
    allowed_scopes: Sequence[str],
    redirect_uris: Sequence[str],
) -> LinkRequest:
    """Return the request if this caller may make it.

    Its members may be sent to Google, and to the user's browser, as they are. Raises `Problem` 400
    naming the member, or 403.
    """
    unknown = sorted(set(body) - set(_LINK_MEMBERS))
    if unknown:
        raise invalid_request(
            _shown(unknown[0]), f"Unknown member; known here: {', '.join(_LINK_MEMBERS)}."
        )
    requested = _scopes(body)
    refused = _refused_scopes(requested, allowed_scopes, caller.scopes)
    if refused:
        raise scope_not_allowed(refused)
    return_to = read_return_to(body, caller)
    return LinkRequest(
        scopes=(*ALWAYS_REQUESTED, *missing(_unique(requested), ALWAYS_REQUESTED)),
        redirect_uri=_redirect_uri(body, redirect_uris),
        return_to=return_to,
        login_hint=_login_hint(body),
        confirm=_confirm(body, caller, return_to),
    )


def read_return_to(body: Mapping[str, Any], caller: Caller) -> str | None:
    """Return the `return_to` of a request. Raises `Problem` if the caller does not list it."""
    address: str | None = _member(body, "return_to", str)
    if address is not None and address not in caller.return_to:
        raise invalid_request(
            "return_to", "return_to is not in this caller's list; it must match exactly."
        )
    return address


def _shown(name: str) -> str:
    """Return a member's name if a problem may repeat it; JSON allows names that UTF-8 does not."""
    return name if re.fullmatch(r"[\w.-]{1,32}", name, re.ASCII) else "body"


def _scopes(body: Mapping[str, Any]) -> tuple[str, ...]:
    value = body.get("scopes")
    names = parse_scopes(value) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise invalid_request("scopes", "scopes is required: a list of scope names.")
    if not 0 < len(names) <= _MOST_SCOPES:
        raise invalid_request("scopes", f"scopes must have 1 to {_MOST_SCOPES} names.")
    if not all(map(is_scope_name, names)):
        raise invalid_request("scopes", "scopes contains an invalid scope name (RFC 6749 §3.3).")
    return tuple(names)


def _refused_scopes(
    requested: Sequence[str], allowed: Sequence[str], of_caller: Sequence[str]
) -> Sequence[str]:
    """Return those that the broker or the caller may not request; identity scopes always pass."""
    beyond = {*missing(requested, allowed), *missing(requested, of_caller)}
    return sorted(scope for scope in beyond if canonical(scope) not in IDENTITY_SCOPES)


def _unique(scopes: Sequence[str]) -> Sequence[str]:
    return tuple({canonical(scope): scope for scope in reversed(scopes)}.values())[::-1]


def _confirm(body: Mapping[str, Any], caller: Caller, return_to: str | None) -> bool:
    """Return whether it must be confirmed; a request cannot override a policy that demands it."""
    confirm = bool(_member(body, "confirm", bool)) or caller.require_confirmation
    if confirm and return_to is None:
        raise invalid_request(
            "return_to",
            "return_to is required for a link that must be confirmed: the code is sent there.",
        )
    return confirm


def _redirect_uri(body: Mapping[str, Any], redirect_uris: Sequence[str]) -> str:
    uri = _member(body, "redirect_uri", str, redirect_uris[0])
    if uri not in redirect_uris:
        raise invalid_request("redirect_uri", "redirect_uri is not a configured redirect URI.")
    return str(uri)


def _login_hint(body: Mapping[str, Any]) -> str | None:
    hint: str | None = _member(body, "login_hint", str)
    if hint is None:
        return None
    if not 0 < len(hint) <= _LONGEST_HINT or not hint.isprintable():
        raise invalid_request(
            "login_hint", f"login_hint must have 1 to {_LONGEST_HINT} printable characters."
        )
    return hint


def _member(body: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = body.get(name, default)
    if name in body and not isinstance(value, kind):
        raise invalid_request(name, f"{name} must be a {_KIND_NAMES[kind]}.")
    return value


def _link_id(request: Request) -> UUID:
    text = path_parameter(request, "id")
    try:
        link_id = UUID(text)
    except ValueError as error:
        raise invalid_request("id", "id must be a connect link's id, a UUID.") from error
    if str(link_id) != text.lower():
        raise invalid_request("id", "id must be a connect link's id, a UUID.")
    return link_id


def _confirmation_code(body: Mapping[str, Any]) -> Secret:
    if set(body) - {"code"}:
        raise invalid_request("body", "Unknown member; known here: code.")
    code = body.get("code")
    if not isinstance(code, str) or not 0 < len(code) <= _LONGEST_CODE:
        raise invalid_request(
            "code", "code is required: the `confirmation` that came back with the browser."
        )
    return Secret(code)
