"""Every exception that a route can raise, and its response."""

import asyncio
import json
import logging

import asyncpg
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from broker.database.database import StorageUnavailable
from broker.server.listener import Listener
from broker.telemetry.logs import JsonFormatter
from broker.telemetry.metrics import Metrics
from broker.web.errors import INTERNAL_HANDLERS
from broker.web.problems import forbidden
from broker.web.request_ids import RequestIds

SECRET = "hunter2"


async def _answer_to(error: Exception, method: str = "GET") -> httpx2.Response:
    async def fail(_request: Request) -> Response:
        raise error

    app = Starlette(routes=[Route("/fail", fail)], exception_handlers=INTERNAL_HANDLERS)
    listener = Listener("internal", app, metrics=Metrics(), request_ids=RequestIds())
    transport = httpx2.ASGITransport(app=listener, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://broker.test") as client:
        return await client.request(method, "/fail")


async def test_a_problem_is_the_response() -> None:
    answer = await _answer_to(forbidden("Not you."))
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert answer.json()["detail"] == "Not you."


async def test_unavailable_storage_is_503_with_retry_after() -> None:
    answer = await _answer_to(StorageUnavailable(f"at {SECRET}"))
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(SECRET),
        KeyError(SECRET),
        ValueError(f"invalid literal: {SECRET!r}"),
        asyncpg.UniqueViolationError(f"Key (token)=({SECRET}) already exists."),
        OSError(2, "No such file", f"/run/secrets/{SECRET}"),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        TimeoutError(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_defect_is_500_and_shows_nothing_of_itself(error: Exception) -> None:
    answer = await _answer_to(error)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert SECRET not in answer.text + str(answer.headers)
    assert type(error).__name__ not in answer.text


async def test_a_defect_is_logged_with_its_place_and_the_request_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await _answer_to(ValueError(SECRET))
    (record,) = [record for record in caplog.records if record.name == "broker.web.errors"]
    line = JsonFormatter().format(record)
    assert json.loads(line)["event"] == "request_failed"
    assert json.loads(line)["request_id"] == answer.json()["request_id"]
    assert any("test_errors.py" in frame for frame in json.loads(line)["exception"])
    assert SECRET not in line


async def test_an_outage_is_logged_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    await _answer_to(StorageUnavailable("ConnectionRefusedError"))
    (record,) = [record for record in caplog.records if record.name == "broker.web.errors"]
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert vars(record)["reason"] == "ConnectionRefusedError"


@pytest.mark.parametrize(
    ("status", "code"), [(404, "not_found"), (405, "method_not_allowed"), (400, "invalid_request")]
)
async def test_a_refusal_of_the_router_is_a_problem(status: int, code: str) -> None:
    answer = await _answer_to(HTTPException(status, SECRET))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert SECRET not in answer.text


async def test_the_refusal_of_a_method_lists_the_allowed_ones() -> None:
    answer = await _answer_to(RuntimeError(), method="DELETE")
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_a_disconnected_client_is_not_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    assert (await _answer_to(ClientDisconnect())).status_code == 400
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_cancelled_request_stays_cancelled() -> None:
    async def wait(_request: Request) -> Response:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)
        raise AssertionError("the cancellation was lost")

    app = Starlette(routes=[Route("/wait", wait)], exception_handlers=INTERNAL_HANDLERS)
    listener = Listener("internal", app, metrics=Metrics(), request_ids=RequestIds())
    transport = httpx2.ASGITransport(app=listener)
    async with httpx2.AsyncClient(transport=transport, base_url="http://broker.test") as client:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(client.get("/wait"))
