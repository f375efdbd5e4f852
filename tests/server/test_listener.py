"""The outermost application of a listener: request ids, durations, raw paths, fairness."""

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from broker.server.listener import Listener
from broker.telemetry.metrics import Metrics
from broker.web.errors import INTERNAL_HANDLERS
from broker.web.request_ids import RequestIds

DURATION = "broker_http_request_duration_seconds"


async def _user(request: Request) -> Response:
    return JSONResponse({"user_id": request.path_params["user_id"], "id": request.state.request_id})


async def _broken(_request: Request) -> Response:
    raise RuntimeError("hunter2")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def client(metrics: Metrics) -> httpx2.AsyncClient:
    routes = [Route("/users/{user_id}", _user, methods=["GET"]), Route("/broken", _broken)]
    app = Starlette(routes=routes, exception_handlers=INTERNAL_HANDLERS)
    listener = Listener("internal", app, metrics=metrics, request_ids=RequestIds())
    transport = httpx2.ASGITransport(app=listener, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://broker.test")


def _series(metrics: Metrics) -> list[Mapping[str, str]]:
    return [
        sample.labels
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"{DURATION}_count"
    ]


async def test_the_response_has_the_request_id(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/users/1")
    assert answer.headers["x-request-id"] == answer.json()["id"]


async def test_the_response_to_a_defect_says_that_the_connection_ends(
    client: httpx2.AsyncClient,
) -> None:
    assert (await client.get("/broken")).headers["connection"] == "close"
    assert "connection" not in (await client.get("/users/1")).headers


async def test_the_callers_own_request_id_is_kept(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/users/1", headers={"X-Request-Id": "of-the-caller"})
    assert answer.headers["x-request-id"] == answer.json()["id"] == "of-the-caller"


@pytest.mark.parametrize("path", ["/nothing", "/broken"])
async def test_a_problem_has_the_request_id_in_header_and_body(
    client: httpx2.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("raw", ["a%2Fb", "%E7%94%A8", "a%252Fb", "%2e%2e", "a+b"])
async def test_routes_see_the_path_as_it_is_on_the_wire(
    client: httpx2.AsyncClient, raw: str
) -> None:
    assert (await client.get(f"/users/{raw}")).json()["user_id"] == raw


async def test_a_duration_is_labelled_with_the_template_of_the_route(
    client: httpx2.AsyncClient, metrics: Metrics
) -> None:
    await client.get("/users/hunter2")
    assert _series(metrics) == [
        {"listener": "internal", "route": "/users/{user_id}", "method": "GET", "status": "200"}
    ]


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/nothing/hunter2", "unmatched", "404"),
        ("POST", "/users/hunter2", "/users/{user_id}", "405"),
        ("GET", "/broken", "/broken", "500"),
    ],
)
async def test_no_path_becomes_a_label(
    client: httpx2.AsyncClient, metrics: Metrics, method: str, path: str, route: str, status: str
) -> None:
    await client.request(method, path)
    (labels,) = _series(metrics)
    assert labels["status"] == status
    assert labels["route"] in (route, "unmatched")
    assert "hunter2" not in str(labels)


@pytest.mark.parametrize("method", ["PROPFIND", "HUNTER2"])
async def test_unknown_methods_share_a_label(
    client: httpx2.AsyncClient, metrics: Metrics, method: str
) -> None:
    await client.request(method, "/users/1")
    assert [labels["method"] for labels in _series(metrics)] == ["OTHER"]


@pytest.mark.parametrize("is_by_address", [False, True])
async def test_requests_of_one_key_start_a_few_at_a_time_and_another_key_is_next(
    metrics: Metrics, *, is_by_address: bool
) -> None:
    started: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        started.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    fairness_key = (lambda scope: scope["client"][0]) if is_by_address else None
    listener = Listener(
        "internal", app, metrics=metrics, request_ids=RequestIds(), fairness_key=fairness_key
    )

    def ask(client: httpx2.AsyncClient, who: str) -> asyncio.Task[httpx2.Response]:
        return asyncio.create_task(client.get("/", headers={"Authorization": who}))

    async with (
        _client_at("192.0.2.1", listener) as client,
        _client_at("192.0.2.2", listener) as elsewhere,
    ):
        # Clients at one address could invent a credential for each request.
        names = [f"many {number}" if is_by_address else "many" for number in range(200)]
        many = [ask(client, name) for name in names]
        while not started:  # noqa: ASYNC110  (no event)
            await asyncio.sleep(0)
        assert len(started) <= 20
        await ask(elsewhere, "other")
        assert len(started) < 100
        assert [answer.status_code for answer in await asyncio.gather(*many)] == [204] * len(many)


def _client_at(address: str, listener: Listener) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=listener, client=(address, 1))
    return httpx2.AsyncClient(transport=transport, base_url="http://broker.test")


async def test_a_defect_is_measured_as_500(metrics: Metrics) -> None:
    async def broken(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await _call(Listener("ops", broken, metrics=metrics, request_ids=RequestIds()))
    assert [labels["status"] for labels in _series(metrics)] == ["500"]


async def test_other_asgi_events_pass_unchanged(metrics: Metrics) -> None:
    seen: list[MutableMapping[str, Any]] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    listener = Listener("ops", app, metrics=metrics, request_ids=RequestIds())
    await _call(listener, {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]
    assert _series(metrics) == []


async def _call(app: Listener, scope: Scope | None = None) -> None:
    async def receive() -> Message:
        raise AssertionError("nothing may be read")

    async def send(_message: Message) -> None:
        raise AssertionError("nothing may be sent")

    http = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}
    await app(scope or http, receive, send)
