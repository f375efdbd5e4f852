"""The authorization request and the user's consent, without their pages.

Refuses what Google would refuse, and turns a decision into the address that the browser is
redirected to.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from devstack.google_standin import scopes as scope_names
from devstack.google_standin import tokens
from devstack.google_standin.context import StandinContext
from devstack.google_standin.model import Account, Client
from devstack.google_standin.recording import RecordedRequest, monotonic, without_secrets

_PROMPTS = frozenset({"none", "consent", "select_account"})
_STATUSES = {
    "invalid_client": 401,
    "deleted_client": 401,
    "unauthorized_client": 401,
    "org_internal": 403,
    "disallowed_useragent": 403,
}
_EXPLANATIONS = {
    "admin_policy_enforced": "An administrator of this account's organisation does not allow it.",
    "deleted_client": "The OAuth client was deleted.",
    "disallowed_useragent": "This app asks from an embedded browser, which is not allowed.",
    "invalid_client": "The OAuth client was not found.",
    "org_internal": "This app is only for accounts of its own organisation.",
    "redirect_uri_mismatch": "The redirect URI of the request is not registered for this client.",
}


class ShownError(Exception):
    """An error that Google shows to the person, without a redirect to the app."""

    def __init__(self, code: str, explanation: str | None = None) -> None:
        self.code = code
        self.status = _STATUSES.get(code, 400)
        self.explanation = explanation or _EXPLANATIONS.get(code, "The request is malformed.")
        super().__init__(f"{code}: {self.explanation}")


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request with a known client and one of its redirect URIs."""

    client: Client
    redirect_uri: str
    scopes: list[str]
    """In Google's own names."""
    parameters: dict[str, str]

    @classmethod
    def read(cls, context: StandinContext, parameters: dict[str, str]) -> "AuthorizationRequest":
        """Check and read a request. Raises `ShownError`."""
        client_id = parameters.get("client_id")
        if not client_id:
            raise ShownError("invalid_request", "Missing required parameter: client_id")
        client = context.state.clients.get(client_id)
        if client is None:
            raise ShownError("invalid_client")
        if client.deleted:
            raise ShownError("deleted_client")
        redirect_uri = parameters.get("redirect_uri")
        if not redirect_uri:
            raise ShownError("invalid_request", "Missing required parameter: redirect_uri")
        if redirect_uri not in client.redirect_uris:
            raise ShownError("redirect_uri_mismatch")
        _check_parameters(parameters)
        if not context.behaviour.includes_granted:
            parameters = {**parameters, "include_granted_scopes": "false"}
        scopes = scope_names.as_google_names(parameters["scope"].split())
        return cls(client, redirect_uri, scopes, parameters)

    @property
    def prompts(self) -> set[str]:
        return set(self.parameters.get("prompt", "").split())

    def hinted_account(self, context: StandinContext) -> Account | None:
        hint = self.parameters.get("login_hint")
        return context.state.find_account(hint) if hint else None

    def granted_before(self, context: StandinContext, account: Account) -> list[str]:
        """Return the scopes that the account has granted to this project."""
        authorization = context.state.authorizations.get((self.client.project, account.sub))
        return list(authorization.scopes) if authorization else []

    def needs_consent(self, context: StandinContext, account: Account) -> bool:
        """True if the consent page must be shown."""
        if "consent" in self.prompts:
            return True
        return not set(self.scopes) <= set(self.granted_before(context, account))

    def kept_scopes(self, context: StandinContext, account: Account) -> list[str]:
        """Return the scopes without a box: requested, and granted before (incremental consent)."""
        if self.parameters.get("include_granted_scopes") != "true":
            return []
        before = self.granted_before(context, account)
        return [s for s in self.scopes if s in before and s not in scope_names.IDENTITY]

    def choices(self, context: StandinContext, account: Account) -> list[str]:
        """Return the scopes that the person may untick."""
        kept = self.kept_scopes(context, account)
        return [s for s in self.scopes if s not in scope_names.IDENTITY and s not in kept]


def _check_parameters(parameters: dict[str, str]) -> None:
    response_type = parameters.get("response_type")
    if response_type != "code":
        what = "Missing required" if response_type is None else "Invalid"
        raise ShownError("invalid_request", f"{what} parameter: response_type")
    if not parameters.get("scope", "").split():
        raise ShownError("invalid_request", "Missing required parameter: scope")
    unknown = [
        scope
        for scope in scope_names.as_google_names(parameters["scope"].split())
        if not scope_names.is_known(scope)
    ]
    if unknown:
        raise ShownError("invalid_scope", f"Some requested scopes are unknown: {unknown}")
    if parameters.get("code_challenge_method", "plain") not in ("plain", "S256"):
        raise ShownError("invalid_request", "Invalid parameter value for code_challenge_method")
    prompts = set(parameters.get("prompt", "").split())
    if not prompts <= _PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise ShownError("invalid_request", "Invalid parameter value for prompt")


def approve(
    context: StandinContext,
    request: AuthorizationRequest,
    account: Account,
    unticked: Collection[str] = (),
) -> str:
    """Allow the request, but for the unticked boxes; return where the browser goes next."""
    refused = set(scope_names.as_google_names(unticked)) - scope_names.IDENTITY
    granted = [scope for scope in request.scopes if scope not in refused]
    if not granted:
        return deny(context, request, account)
    planned = _planned_error(context, request, account)
    if planned is not None:
        return _callback(context, request, account, planned)
    code = tokens.issue_code(
        context,
        client=request.client,
        account=account,
        granted=granted,
        redirect_uri=request.redirect_uri,
        parameters=request.parameters,
    )
    answer = {"code": code.value, "scope": " ".join(code.scopes), "authuser": "0"}
    if account.hd:
        answer["hd"] = account.hd
    answer["prompt"] = "consent" if request.prompts else "none"
    return _callback(context, request, account, answer)


def deny(context: StandinContext, request: AuthorizationRequest, account: Account | None) -> str:
    """Cancel the request; return where the browser goes next."""
    return refuse(context, request, "access_denied", account)


def refuse(
    context: StandinContext,
    request: AuthorizationRequest,
    code: str,
    account: Account | None = None,
) -> str:
    """Return the redirect with an error (RFC 6749 §4.1.2.1)."""
    return _callback(context, request, account, {"error": code})


def _planned_error(
    context: StandinContext, request: AuthorizationRequest, account: Account
) -> dict[str, Any] | None:
    """Return the error of a fault planned at `callback`, which replaces the code."""
    fault = context.faults.take(
        "callback", account=account, client_id=request.client.client_id, kinds=("error",)
    )
    if fault is None:
        return None
    answer = {"error": fault.details["code"], "error_description": fault.details["description"]}
    return {**answer, "error_subtype": fault.details["subtype"]}


def _callback(
    context: StandinContext,
    request: AuthorizationRequest,
    account: Account | None,
    answer: dict[str, Any],
) -> str:
    if "state" in request.parameters:
        answer = {"state": request.parameters["state"], **answer}
    if context.behaviour.send_iss:
        answer["iss"] = context.issuer
    fault = context.faults.take(
        "callback", account=account, client_id=request.client.client_id, kinds=("edit",)
    )
    if fault is not None:
        removed = dict.fromkeys(fault.details.get("remove", ()))
        answer |= removed | fault.details.get("set", {})
    query = urlencode({name: value for name, value in answer.items() if value is not None})
    separator = "&" if "?" in request.redirect_uri else "?"
    return f"{request.redirect_uri}{separator}{query}"


def consent_without_a_browser(
    context: StandinContext,
    url: str,
    *,
    account: str,
    untick: Collection[str] = (),
    deny: bool = False,
) -> str:
    """Return where the browser goes after the decision of `account` on the authorization URL.

    Rules, faults and the request log are those of the pages. Raises `ShownError` where Google would
    show an error, and `KeyError` for an unknown account.
    """
    with context.state.lock:
        parameters = dict(parse_qsl(urlsplit(url).query))
        person = context.state.account(account)
        _record_request(context, parameters, person.sub)
        fault = context.faults.take("authorize", account=person, kinds=("error",))
        if fault is not None:
            raise ShownError(fault.details["code"], fault.details["description"])
        request = AuthorizationRequest.read(context, parameters)
        if deny:
            return refuse(context, request, "access_denied", person)
        address = approve(context, request, person, untick)
        context.state.save()
        return address


def _record_request(context: StandinContext, parameters: dict[str, str], sub: str) -> None:
    now = monotonic()
    context.requests.add(
        RecordedRequest(
            endpoint="authorize",
            method="GET",
            parameters=without_secrets(parameters),
            client_id=parameters.get("client_id"),
            client_auth=None,
            account=sub,
            grant_type=None,
            started=now,
            finished=now,
            status=303,
        )
    )
