"""The edge towards Google: one connection pool, a deadline, and every failure given its meaning."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError

from broker.google.errors import GoogleError, GoogleUnavailable, retry_after
from broker.google.json_answers import json_object
from broker.outbound.client import (
    FAILURES,
    QUOTING_FAILURES,
    bounded_client,
    failure_reason,
)
from broker.telemetry.metrics import Metrics

DEADLINE = timedelta(seconds=8)
"""For one call as a whole; httpx's own time-outs start anew with every byte that trickles in."""


def google_http_client(transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """The one client for all calls to Google; `HTTP(S)_PROXY` and `SSL_CERT_FILE` are honoured.

    Making one costs tens of milliseconds (trust store), so that there should be one a process.
    """
    return bounded_client(transport)


class SharedPool(httpx2.AsyncBaseTransport):
    """Lets short-lived clients send through a long-lived one, whose connections stay open."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._http.send(request, stream=True, auth=None)

    async def aclose(self) -> None:
        """Leaves the pool open: it belongs to the long-lived client."""


@asynccontextmanager
async def at_google(
    endpoint: str, metrics: Metrics, deadline: timedelta = DEADLINE
) -> AsyncIterator[None]:
    """One call to Google: ended at the deadline, its failures mapped to `GoogleError`, counted."""
    started = time.perf_counter()
    outcome = "crashed"
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            yield
        outcome = "ok"
    except GoogleError as error:
        outcome = error.reason
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except _MAPPED_ERRORS as error:
        mapped = map_transport_error(error)
        outcome = mapped.reason
        # A protocol error may quote the answer's bytes, a token among them: cut it off.
        raise mapped from (None if isinstance(error, _QUOTING_ERRORS) else error)
    finally:
        metrics.google_requests.labels(endpoint=endpoint, outcome=outcome).inc()
        metrics.google_request_duration.labels(endpoint=endpoint).observe(
            time.perf_counter() - started
        )


async def fetch_json(
    http: httpx2.AsyncClient, url: str, endpoint: str, metrics: Metrics
) -> dict[str, Any]:
    """A public document's JSON object. Raises `GoogleUnavailable`, whatever the failure."""
    async with at_google(endpoint, metrics):
        response = await http.get(url, headers={"Accept": "application/json"})
        if response.is_error:
            raise GoogleUnavailable(f"http_{response.status_code}", retry_after(response))
        document = json_object(response) if response.status_code == 200 else None
        if document is None:
            raise GoogleUnavailable("bad_answer")
        return document


def map_transport_error(error: Exception) -> GoogleUnavailable:
    """The one place where third-party exceptions of a call become Google's being unavailable."""
    return GoogleUnavailable(failure_reason(error))


_MAPPED_ERRORS = (*FAILURES, AuthlibBaseError)
_QUOTING_ERRORS = (*QUOTING_FAILURES, AuthlibBaseError)
