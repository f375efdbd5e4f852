"""The stand-in's strings over HTTP, for tests and people in another process: `/_control/…`.

Bodies are JSON and must say so, which keeps other web pages in a developer's browser out.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from devstack.google_standin import ledger
from devstack.google_standin.authorization import ShownError
from devstack.google_standin.faults import Fault
from devstack.google_standin.model import Client
from devstack.google_standin.reset import reset_world
from devstack.google_standin.risc_api import new_service_account
from devstack.google_standin.security_events import EventOrder, deliver_soon, mint
from devstack.google_standin.shortcut import consent_without_a_browser
from devstack.google_standin.world import World

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


def control_routes(world: World) -> list[Mount]:
    """All below `/_control`."""
    actions = _Actions(world)

    def route(method: str, path: str, action: Action) -> Route:
        return Route(path, _answering(world, action), methods=[method])

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


def _answering(world: World, action: Action) -> Callable[[Request], Awaitable[Response]]:
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
            with world.state.lock:
                result = action(request, body)
                world.state.save()
        except (KeyError, TypeError, ValueError, ShownError) as error:
            return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 400)
        return JSONResponse(result if result is not None else {"ok": True})

    return answer


class _Actions:
    """One method a route: the request and its JSON in, JSON out."""

    def __init__(self, world: World) -> None:
        self._world = world

    def state(self, request: Request, body: JsonObject) -> JsonObject:
        state = self._world.state
        return {
            "base_url": self._world.base_url,
            "manners": asdict(self._world.manners),
            "accounts": [asdict(account) for account in state.accounts.values()],
            "clients": [
                {n: v for n, v in asdict(client).items() if n != "client_secret"}
                for client in state.clients.values()
            ],
            "authorizations": [asdict(a) for a in state.authorizations.values()],
            "live_refresh_tokens": len(state.refresh_tokens),
            "live_access_tokens": len(state.access_tokens),
            "requests": self._world.requests.counts(),
            "faults": self.list_faults(request, body),
        }

    def reset(self, request: Request, body: JsonObject) -> None:
        reset_world(self._world)

    def list_faults(self, request: Request, body: JsonObject) -> list[JsonObject]:
        return [asdict(planned) for planned in self._world.faults.pending()]

    def add_fault(self, request: Request, body: JsonObject) -> JsonObject:
        named = body.pop("fault")
        fault = _NAMED_FAULTS[named]() if isinstance(named, str) else Fault.from_json(named)
        return asdict(self._world.faults.next(body.pop("endpoint"), fault, **body))

    def clear_faults(self, request: Request, body: JsonObject) -> None:
        self._world.faults.clear(request.query_params.get("endpoint"))

    def list_requests(self, request: Request, body: JsonObject) -> JsonObject:
        endpoint = request.query_params.get("endpoint")
        entries = self._world.requests.as_json()
        return {
            "counts": self._world.requests.counts(),
            "requests": [e for e in entries if endpoint in (None, e["endpoint"])],
        }

    def clear_requests(self, request: Request, body: JsonObject) -> None:
        self._world.requests.clear()

    def issued(self, request: Request, body: JsonObject) -> JsonObject:
        return asdict(self._world.issued)

    def change_manners(self, request: Request, body: JsonObject) -> JsonObject:
        self._world.manners = type(self._world.manners)(**asdict(self._world.manners) | body)
        return asdict(self._world.manners)

    def add_client(self, request: Request, body: JsonObject) -> None:
        self._world.state.add_client(Client(**body))

    def change_client(self, request: Request, body: JsonObject) -> None:
        client_id = request.path_params["client_id"]
        client = self._world.state.clients[client_id]
        self._world.state.add_client(Client(**asdict(client) | body | {"client_id": client_id}))

    def add_account(self, request: Request, body: JsonObject) -> JsonObject:
        return asdict(self._world.state.add_account(**body))

    def revoke_account(self, request: Request, body: JsonObject) -> None:
        ledger.revoke_authorization(
            self._world, sub=self._sub(request), project=body.get("project")
        )

    def change_email(self, request: Request, body: JsonObject) -> JsonObject:
        account = self._world.state.accounts[self._sub(request)]
        account.email = body["email"]
        return asdict(account)

    def change_password(self, request: Request, body: JsonObject) -> JsonObject:
        sub = self._sub(request)
        return {"killed": ledger.kill_refresh_tokens(self._world, sub=sub, only_mail=True)}

    def expire_refresh_tokens(self, request: Request, body: JsonObject) -> JsonObject:
        return {"killed": ledger.kill_refresh_tokens(self._world, sub=self._sub(request))}

    def expire_access_tokens(self, request: Request, body: JsonObject) -> JsonObject:
        return {"expired": ledger.expire_access_tokens(self._world, sub=self._sub(request))}

    def rotate_keys(self, request: Request, body: JsonObject) -> JsonObject:
        return {"kid": self._world.state.keys.rotate(keep_old=body.get("keep_old", True))}

    def consent(self, request: Request, body: JsonObject) -> JsonObject:
        address = consent_without_a_browser(
            self._world,
            body["url"],
            account=body["account"],
            untick=body.get("untick", ()),
            deny=body.get("deny", False),
        )
        return {"location": address}

    def send_event(self, request: Request, body: JsonObject) -> JsonObject:
        """An `EventOrder`, and where to and how often; without `url` it goes to the stream's."""
        times, url = body.pop("times", 1), body.pop("url", None)
        token = mint(self._world, EventOrder(**body))
        stream = self._world.state.event_stream
        url = url or (stream["delivery"]["url"] if stream else None)
        if url is not None:
            for _ in range(times):
                deliver_soon(self._world, url, token)
        return {"token": token, "url": url}

    def list_events(self, request: Request, body: JsonObject) -> JsonObject:
        return {"delivered": list(self._world.delivered)}

    def add_service_account(self, request: Request, body: JsonObject) -> JsonObject:
        return dict(new_service_account(self._world, **body))

    def list_holds(self, request: Request, body: JsonObject) -> JsonObject:
        return dict(self._world.holds.held())

    def release_hold(self, request: Request, body: JsonObject) -> JsonObject:
        return {"released": self._world.holds.release(request.path_params["name"])}

    def _sub(self, request: Request) -> str:
        return self._world.state.account(request.path_params["who"]).sub
