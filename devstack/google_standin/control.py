"""The control API `/_control/…`, for tests and developers in another process.

Bodies must have the media type of JSON: other web pages in the developer's browser can't send it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from devstack.google_standin import tokens
from devstack.google_standin.authorization import ShownError, consent_without_a_browser
from devstack.google_standin.context import StandinContext
from devstack.google_standin.faults import Fault
from devstack.google_standin.model import Client
from devstack.google_standin.risc_api import new_service_account
from devstack.google_standin.security_events import EventOrder, deliver_soon, mint

JsonObject = dict[str, Any]
Action = Callable[[Request, JsonObject], Any]

_NAMED_FAULTS: dict[str, Callable[[], Fault]] = {
    "drop": Fault.drop,
    "silence": Fault.silence,
    "half": Fault.half,
    "hold": Fault.hold,
    "rate_limited": Fault.rate_limited,
    "html_403": Fault.html_403,
    "not_json": Fault.not_json,
    "invalid_grant": Fault.invalid_grant,
    "invalid_client": Fault.invalid_client,
    "unauthorized_client": Fault.unauthorized_client,
    "deleted_client": Fault.deleted_client,
    "internal_failure": Fault.internal_failure,
    "rotate_refresh_token": Fault.rotate_refresh_token,
}


def control_routes(context: StandinContext) -> list[Mount]:
    """Return the routes, all below `/_control`."""
    actions = _Actions(context)

    def route(method: str, path: str, action: Action) -> Route:
        return Route(path, _answering(context, action), methods=[method])

    account = "/accounts/{who}"
    return [
        Mount(
            "/_control",
            routes=[
                route("GET", "/state", actions.state),
                route("POST", "/reset", actions.reset),
                route("GET", "/faults", actions.list_faults),
                route("POST", "/faults", actions.add_fault),
                route("DELETE", "/faults", actions.clear_faults),
                route("GET", "/requests", actions.list_requests),
                route("DELETE", "/requests", actions.clear_requests),
                route("GET", "/issued", actions.issued),
                route("PATCH", "/manners", actions.change_manners),
                route("POST", "/clients", actions.add_client),
                route("PATCH", "/clients/{client_id}", actions.change_client),
                route("POST", "/accounts", actions.add_account),
                route("POST", account + "/revoke", actions.revoke_account),
                route("POST", account + "/email", actions.change_email),
                route("POST", account + "/password", actions.change_password),
                route("POST", account + "/expire-refresh-tokens", actions.expire_refresh_tokens),
                route("POST", account + "/expire-access-tokens", actions.expire_access_tokens),
                route("POST", "/keys/rotate", actions.rotate_keys),
                route("POST", "/consent", actions.consent),
                route("POST", "/security-events", actions.send_event),
                route("GET", "/security-events", actions.list_events),
                route("POST", "/service-accounts", actions.add_service_account),
                route("GET", "/holds", actions.list_holds),
                route("POST", "/holds/{name}/release", actions.release_hold),
            ],
        )
    ]


def _answering(context: StandinContext, action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body: Any = {}
        if await request.body():
            if request.headers.get("content-type", "").split(";")[0] != "application/json":
                return JSONResponse({"error": "send application/json"}, 415)
            try:
                body = await request.json()
            except ValueError:
                return JSONResponse({"error": "the body is not JSON"}, 400)
        if request.method != "GET" and request.headers.get("origin"):
            return JSONResponse({"error": "not from a web page"}, 403)
        try:
            with context.state.lock:
                result = action(request, body)
                context.state.save()
        except (KeyError, TypeError, ValueError, ShownError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)
        return JSONResponse(result if result is not None else {"ok": True})

    return answer


class _Actions:
    """One method for each route: takes the request and its JSON, returns JSON."""

    def __init__(self, context: StandinContext) -> None:
        self._context = context

    def state(self, request: Request, body: JsonObject) -> JsonObject:
        state = self._context.state
        return {
            "base_url": self._context.base_url,
            "manners": asdict(self._context.behaviour),
            "accounts": [asdict(account) for account in state.accounts.values()],
            "clients": [
                {n: v for n, v in asdict(client).items() if n != "client_secret"}
                for client in state.clients.values()
            ],
            "authorizations": [asdict(a) for a in state.authorizations.values()],
            "live_refresh_tokens": len(state.refresh_tokens),
            "live_access_tokens": len(state.access_tokens),
            "requests": self._context.requests.counts(),
            "faults": self.list_faults(request, body),
        }

    def reset(self, request: Request, body: JsonObject) -> None:
        self._context.reset()

    def list_faults(self, request: Request, body: JsonObject) -> list[JsonObject]:
        return [asdict(planned) for planned in self._context.faults.pending()]

    def add_fault(self, request: Request, body: JsonObject) -> JsonObject:
        named = body.pop("fault")
        fault = _NAMED_FAULTS[named]() if isinstance(named, str) else Fault.from_json(named)
        return asdict(self._context.faults.next(body.pop("endpoint"), fault, **body))

    def clear_faults(self, request: Request, body: JsonObject) -> None:
        self._context.faults.clear(request.query_params.get("endpoint"))

    def list_requests(self, request: Request, body: JsonObject) -> JsonObject:
        endpoint = request.query_params.get("endpoint")
        entries = self._context.requests.as_json()
        return {
            "counts": self._context.requests.counts(),
            "requests": [e for e in entries if endpoint in (None, e["endpoint"])],
        }

    def clear_requests(self, request: Request, body: JsonObject) -> None:
        self._context.requests.clear()

    def issued(self, request: Request, body: JsonObject) -> JsonObject:
        return asdict(self._context.issued)

    def change_manners(self, request: Request, body: JsonObject) -> JsonObject:
        self._context.behaviour = type(self._context.behaviour)(
            **asdict(self._context.behaviour) | body
        )
        return asdict(self._context.behaviour)

    def add_client(self, request: Request, body: JsonObject) -> None:
        self._context.state.add_client(Client(**body))

    def change_client(self, request: Request, body: JsonObject) -> None:
        client_id = request.path_params["client_id"]
        client = self._context.state.clients[client_id]
        self._context.state.add_client(Client(**asdict(client) | body | {"client_id": client_id}))

    def add_account(self, request: Request, body: JsonObject) -> JsonObject:
        return asdict(self._context.state.add_account(**body))

    def revoke_account(self, request: Request, body: JsonObject) -> None:
        tokens.revoke_authorization(
            self._context, sub=self._sub(request), project=body.get("project")
        )

    def change_email(self, request: Request, body: JsonObject) -> JsonObject:
        account = self._context.state.accounts[self._sub(request)]
        account.email = body["email"]
        return asdict(account)

    def change_password(self, request: Request, body: JsonObject) -> JsonObject:
        sub = self._sub(request)
        return {"killed": tokens.kill_refresh_tokens(self._context, sub=sub, only_mail=True)}

    def expire_refresh_tokens(self, request: Request, body: JsonObject) -> JsonObject:
        return {"killed": tokens.kill_refresh_tokens(self._context, sub=self._sub(request))}

    def expire_access_tokens(self, request: Request, body: JsonObject) -> JsonObject:
        return {"expired": tokens.expire_access_tokens(self._context, sub=self._sub(request))}

    def rotate_keys(self, request: Request, body: JsonObject) -> JsonObject:
        return {"kid": self._context.state.keys.rotate(keep_old=body.get("keep_old", True))}

    def consent(self, request: Request, body: JsonObject) -> JsonObject:
        address = consent_without_a_browser(
            self._context,
            body["url"],
            account=body["account"],
            untick=body.get("untick", ()),
            deny=body.get("deny", False),
        )
        return {"location": address}

    def send_event(self, request: Request, body: JsonObject) -> JsonObject:
        """Send an `EventOrder` to `url`, or to the stream's URL, `times` times."""
        times, url = body.pop("times", 1), body.pop("url", None)
        token = mint(self._context, EventOrder(**body))
        stream = self._context.state.event_stream
        url = url or (stream["delivery"]["url"] if stream else None)
        if url is not None:
            for _ in range(times):
                deliver_soon(self._context, url, token)
        return {"token": token, "url": url}

    def list_events(self, request: Request, body: JsonObject) -> JsonObject:
        return {"delivered": list(self._context.delivered)}

    def add_service_account(self, request: Request, body: JsonObject) -> JsonObject:
        return dict(new_service_account(self._context, **body))

    def list_holds(self, request: Request, body: JsonObject) -> JsonObject:
        return dict(self._context.holds.held())

    def release_hold(self, request: Request, body: JsonObject) -> JsonObject:
        return {"released": self._context.holds.release(request.path_params["name"])}

    def _sub(self, request: Request) -> str:
        return self._context.state.account(request.path_params["who"]).sub
