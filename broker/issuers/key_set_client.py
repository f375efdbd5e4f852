"""Fetches an issuer's key set over connections that can be trusted; the only place that does so.

Follows no redirect, and sends a bearer token to no other host than the configured one.
"""

import asyncio
import ssl
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from broker.issuers.model import Issuer, IssuerUnavailable
from broker.outbound.http_client import FAILURES, bounded_client, failure_reason
from broker.settings import is_secure_url
from broker.strict_json import read_object
from broker.telemetry.metrics import Metrics

DEADLINE = timedelta(seconds=5)
"""Deadline for discovery and key set together; requests wait for them when a key is new."""

_DISCOVERY = "/.well-known/openid-configuration"
_ACCEPTED = "application/jwk-set+json, application/json"
"""RFC 7517 §8.5.1. The Kubernetes API answers 406 if only `application/json` is accepted."""
_LONGEST_TOKEN_FILE = 16 * 1024


class KeySetClient:
    """Fetches key sets; caches nothing."""

    def __init__(self, http: httpx2.AsyncClient, metrics: Metrics) -> None:
        """`http` is for issuers without a `ca_file`."""
        self._http = http
        self._requests = metrics.issuer_requests

    async def fetch(self, issuer: Issuer) -> dict[str, Any]:
        """Return the issuer's current JWK set. Raises `IssuerUnavailable` for any failure."""
        outcome = "crashed"
        try:
            async with asyncio.timeout(DEADLINE.total_seconds()), AsyncExitStack() as stack:
                document = await self._fetch(issuer, stack)
            outcome = "ok"
        except IssuerUnavailable as error:
            outcome = error.reason
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except FAILURES as error:
            outcome = failure_reason(error)
            raise IssuerUnavailable(issuer.url, outcome) from None
        finally:
            self._requests.labels(issuer=issuer.url, outcome=outcome).inc()
        return document

    async def _fetch(self, issuer: Issuer, stack: AsyncExitStack) -> dict[str, Any]:
        http = self._http
        if issuer.ca_file is not None:
            # Read each time, so that the file may be replaced.
            trust = await asyncio.to_thread(_read_trust, issuer)
            http = await stack.enter_async_context(bounded_client(trust=trust))
        token = await asyncio.to_thread(_read_token, issuer)
        jwks_url = issuer.jwks_url
        if jwks_url is None:
            url = issuer.url.rstrip("/") + _DISCOVERY
            jwks_url = _jwks_uri(issuer, await _fetch_json(issuer, http, url, token))
            if _origin(jwks_url) != _origin(issuer.url):
                # Discovery may name any host; only the configured one gets the token.
                token = None
        document = await _fetch_json(issuer, http, jwks_url, token)
        if not isinstance(document.get("keys"), list):
            raise IssuerUnavailable(issuer.url, "bad_jwks")
        return document


async def _fetch_json(
    issuer: Issuer, http: httpx2.AsyncClient, url: str, token: str | None
) -> dict[str, Any]:
    headers = {"Accept": _ACCEPTED}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    response = await http.get(url, headers=headers)
    if response.status_code != 200:
        raise IssuerUnavailable(issuer.url, f"http_{response.status_code}")
    try:
        return read_object(response.content)
    except ValueError:
        raise IssuerUnavailable(issuer.url, "bad_answer") from None


def _jwks_uri(issuer: Issuer, document: dict[str, Any]) -> str:
    """Return `jwks_uri` of a discovery document of this very issuer (RFC 8414 §3.3)."""
    if document.get("issuer") != issuer.url:
        raise IssuerUnavailable(issuer.url, "other_issuer")
    url = document.get("jwks_uri")
    if not isinstance(url, str) or not is_secure_url(url):
        raise IssuerUnavailable(issuer.url, "bad_discovery")
    return url


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _read_trust(issuer: Issuer) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=issuer.ca_file)
    except (OSError, ValueError):
        raise IssuerUnavailable(issuer.url, "ca_file") from None


def _read_token(issuer: Issuer) -> str | None:
    """Return the current token of the token file; a projected token is replaced each hour."""
    if issuer.token_file is None:
        return None
    try:
        with Path(issuer.token_file).open("rb") as file:
            token = file.read(_LONGEST_TOKEN_FILE).decode("ascii").strip()
    except (OSError, ValueError):
        raise IssuerUnavailable(issuer.url, "token_file") from None
    if not token or not token.isprintable() or " " in token:
        raise IssuerUnavailable(issuer.url, "token_file")
    return token
