"""The pages: account chooser, consent page, and Google's error page.

The address of each page contains the whole request, so the server keeps nothing between clicks.
"""

from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from devstack.google_standin import authorization, pages
from devstack.google_standin.authorization import AuthorizationRequest, ShownError
from devstack.google_standin.context import StandinContext
from devstack.google_standin.endpoints import Call
from devstack.google_standin.model import Account

AUTHORIZE_PATH = "/o/oauth2/v2/auth"
ACCOUNT_PATH = AUTHORIZE_PATH + "/account"
CONSENT_PATH = AUTHORIZE_PATH + "/consent"
_CHOSEN = "standin_account"
_COOKIE = "standin_session"


class ConsentPages:
    """The routes below `/o/oauth2/v2/auth`."""

    def __init__(self, context: StandinContext) -> None:
        self._context = context

    def authorize(self, call: Call) -> Response:
        """The authorization endpoint."""
        fault = call.fault
        if fault is not None and fault.kind == "error":
            return _error_page(ShownError(fault.details["code"], fault.details["description"]))
        try:
            request = AuthorizationRequest.read(self._context, call.parameters)
        except ShownError as error:
            return _error_page(error)
        if "none" in request.prompts:
            return self._without_a_page(request, call.request.cookies.get(_COOKIE))
        account = request.hinted_account(self._context)
        if account is None or "select_account" in request.prompts:
            return self._chooser(request)
        return RedirectResponse(_consent_address(request, account), 302)

    async def choose_account(self, http: Request) -> Response:
        """Handle the chooser's forms: an existing account, or a new one by its email."""
        form = await _form(http)
        with self._context.state.lock:
            try:
                request = AuthorizationRequest.read(self._context, dict(http.query_params))
            except ShownError as error:
                return _error_page(error)
            account = self._chosen(form)
            if account is None:
                return self._chooser(request, problem="Enter an email address.")
            return RedirectResponse(_consent_address(request, account), 303)

    async def consent(self, http: Request) -> Response:
        """GET shows the page, unless everything is granted already; POST is the decision."""
        form = await _form(http)
        parameters = dict(http.query_params)
        with self._context.state.lock:
            account = self._context.state.find_account(parameters.pop(_CHOSEN, ""))
            try:
                request = AuthorizationRequest.read(self._context, parameters)
            except ShownError as error:
                return _error_page(error)
            if account is None:
                return self._chooser(request)
            if http.method == "POST":
                return self._decide(request, account, form)
            if not request.needs_consent(self._context, account):
                return self._send_back(
                    authorization.approve(self._context, request, account), account
                )
            return self._consent_page(request, account)

    def _decide(
        self, request: AuthorizationRequest, account: Account, form: list[tuple[str, str]]
    ) -> Response:
        if dict(form).get("decision") != "allow":
            return self._send_back(authorization.deny(self._context, request, account), account)
        ticked = {value for name, value in form if name == "scope"}
        unticked = [s for s in request.choices(self._context, account) if s not in ticked]
        address = authorization.approve(self._context, request, account, unticked)
        return self._send_back(address, account)

    def _without_a_page(self, request: AuthorizationRequest, signed_in: str | None) -> Response:
        """`prompt=none` (OpenID Connect Core §3.1.2.6)."""
        account = self._context.state.find_account(signed_in) if signed_in else None
        hinted = request.hinted_account(self._context)
        if account is None or hinted not in (None, account):
            address = authorization.refuse(self._context, request, "login_required")
        elif not set(request.scopes) <= set(request.granted_before(self._context, account)):
            address = authorization.refuse(self._context, request, "consent_required", account)
        else:
            address = authorization.approve(self._context, request, account)
        return RedirectResponse(address, 302)

    def _chosen(self, form: list[tuple[str, str]]) -> Account | None:
        fields = dict(form)
        if "account" in fields:
            return self._context.state.find_account(fields["account"])
        email = fields.get("email", "").strip()
        return self._context.state.add_account(email) if "@" in email[1:-1] else None

    def _chooser(self, request: AuthorizationRequest, problem: str | None = None) -> Response:
        html = pages.render(
            "chooser.html",
            client=request.client,
            accounts=list(self._context.state.accounts.values()),
            hint=request.parameters.get("login_hint", ""),
            hinted=request.hinted_account(self._context),
            action=f"{ACCOUNT_PATH}?{urlencode(request.parameters)}",
            problem=problem,
        )
        return HTMLResponse(html, headers=pages.HEADERS)

    def _consent_page(self, request: AuthorizationRequest, account: Account) -> Response:
        html = pages.render(
            "consent.html",
            client=request.client,
            redirect_uri=request.redirect_uri,
            account=account,
            identity=[s for s in request.scopes if s in pages.IDENTITY],
            kept=request.kept_scopes(self._context, account),
            choices=request.choices(self._context, account),
            action=_consent_address(request, account),
            other_account=f"{AUTHORIZE_PATH}?{urlencode(_without_hint(request))}",
        )
        return HTMLResponse(html, headers=pages.HEADERS)

    def _send_back(self, address: str, account: Account) -> Response:
        self._context.state.save()
        response = RedirectResponse(address, 303)
        response.set_cookie(_COOKIE, account.sub, path="/o/oauth2", httponly=True, samesite="lax")
        return response


def _without_hint(request: AuthorizationRequest) -> dict[str, str]:
    return {n: v for n, v in request.parameters.items() if n != "login_hint"}


def _consent_address(request: AuthorizationRequest, account: Account) -> str:
    return f"{CONSENT_PATH}?{urlencode({**request.parameters, _CHOSEN: account.sub})}"


def _error_page(error: ShownError) -> Response:
    html = pages.render("error.html", error=error)
    return HTMLResponse(html, error.status, headers=pages.HEADERS)


async def _form(http: Request) -> list[tuple[str, str]]:
    return parse_qsl((await http.body()).decode("utf-8", "replace"), keep_blank_values=True)
