"""Calls to Google: one connection pool, a deadline for each call, a meaning for each failure."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError

from broker.google.errors import GoogleError, GoogleUnavailable
from broker.outbound.cached_fetch import ServerUnavailable
from broker.outbound.http_client import (
    FAILURES,
    QUOTING_FAILURES,
    bounded_client,
    failure_reason,
)
from broker.outbound.responses import json_object, retry_after
from broker.telemetry.metrics import Metrics

DEADLINE = timedelta(seconds=8)
"""Of one call as a whole; httpx restarts its own time-outs with every byte that trickles in."""

logger = logging.getLogger(__name__)


def google_http_client(transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """Return the client for all calls to Google; it honours `HTTP(S)_PROXY` and `SSL_CERT_FILE`.

    Make one per process: loading the trust store takes tens of milliseconds.
    """
    return bounded_client(transport)


@asynccontextmanager
async def google_call(
    endpoint: str, metrics: Metrics, deadline: timedelta = DEADLINE
) -> AsyncIterator[None]:
    """Bound one call to Google by a deadline, map its failures to `GoogleError`, and count it."""
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
        # A protocol error may quote bytes of the response, such as a token: not chained.
        raise mapped from (None if isinstance(error, _QUOTING_ERRORS) else error)
    finally:
        metrics.google_requests.labels(endpoint=endpoint, outcome=outcome).inc()
        metrics.google_request_duration.labels(endpoint=endpoint).observe(
            time.perf_counter() - started
        )


async def fetch_json(
    http: httpx2.AsyncClient, url: str, endpoint: str, metrics: Metrics
) -> dict[str, Any]:
    """Return the JSON object of a public document. Raises `GoogleUnavailable` for any failure."""
    async with google_call(endpoint, metrics):
        response = await http.get(url, headers={"Accept": "application/json"})
        if response.is_error:
            raise GoogleUnavailable(f"http_{response.status_code}", retry_after(response))
        document = json_object(response) if response.status_code == 200 else None
        if document is None:
            raise GoogleUnavailable("bad_answer")
        return document


def map_transport_error(error: Exception) -> GoogleUnavailable:
    """Map a third-party exception of a call to `GoogleUnavailable`; the only place that does."""
    return GoogleUnavailable(failure_reason(error))


def log_document_changes(document: str) -> Callable[[ServerUnavailable | None], None]:
    """Return a callback that logs when a cached document cannot be fetched, and when it can."""

    def log(failure: ServerUnavailable | None) -> None:
        if failure is None:
            logger.info(
                "a Google document is available again",
                extra={"event": "google_document_recovered", "document": document},
            )
        else:
            logger.warning(
                "could not fetch a Google document",
                extra={
                    "event": "google_document_unavailable",
                    "document": document,
                    "reason": failure.reason,
                },
            )

    return log


_MAPPED_ERRORS = (*FAILURES, AuthlibBaseError)
_QUOTING_ERRORS = (*QUOTING_FAILURES, AuthlibBaseError)
