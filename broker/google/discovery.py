"""Google's endpoints, read from its discovery document and nowhere else."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2

from broker.clock import Clock
from broker.google.errors import GoogleUnavailable
from broker.google.http import fetch_json, log_document_changes
from broker.outbound.cached_fetch import CachedFetch
from broker.settings import is_secure_url
from broker.telemetry.metrics import Metrics

PING_AGE = timedelta(seconds=10)
"""A ping reports a result of Google's, good or bad, of at most this age."""

_GOOGLES_ISSUERS = frozenset({"https://accounts.google.com", "accounts.google.com"})


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The facts of a discovery document (OpenID Connect Discovery §3); its URLs are secure."""

    issuer: str
    authorization: str
    token: str
    revocation: str | None
    jwks: str
    userinfo: str | None
    iss_parameter_required: bool
    """True if every callback carries `iss` (RFC 9207 §3)."""
    valid_issuers: frozenset[str]
    """The accepted values of `iss`: Google uses two for itself."""

    def accepts_issuer(self, unverified_iss: str | None) -> bool:
        """True if a callback with this `iss` parameter may be from this issuer (RFC 9207 §2.4)."""
        if unverified_iss is None:
            return not self.iss_parameter_required
        return unverified_iss in self.valid_issuers


class Discovery:
    """Cached endpoints, fetched again each hour; the old ones stay in use if that fails."""

    def __init__(self, url: str, http: httpx2.AsyncClient, clock: Clock, metrics: Metrics) -> None:
        self._url = url
        self._http = http
        self._metrics = metrics
        self._endpoints = CachedFetch(
            self._fetch, clock, on_failure=log_document_changes("discovery")
        )

    async def endpoints(self) -> Endpoints:
        """Return the endpoints. Raises `GoogleUnavailable` if they were never fetched."""
        return await self._endpoints.get()

    async def ping(self) -> None:
        """Check that Google responds, by at most one request in ten seconds.

        Raises `GoogleUnavailable`. Cached endpoints stay in use either way.
        """
        await self._endpoints.get_young(PING_AGE, retry_after=PING_AGE)

    async def _fetch(self) -> Endpoints:
        document = await fetch_json(self._http, self._url, "discovery", self._metrics)
        return read_endpoints(document)


def read_endpoints(document: dict[str, Any]) -> Endpoints:
    """Check a discovery document and return its endpoints.

    Raises `GoogleUnavailable("bad_discovery")` if an endpoint is missing or insecure.
    """
    issuer = _url(document, "issuer")
    return Endpoints(
        issuer=issuer,
        authorization=_url(document, "authorization_endpoint"),
        token=_url(document, "token_endpoint"),
        revocation=_optional_url(document, "revocation_endpoint"),
        jwks=_url(document, "jwks_uri"),
        userinfo=_optional_url(document, "userinfo_endpoint"),
        iss_parameter_required=document.get("authorization_response_iss_parameter_supported")
        is True,
        valid_issuers=_GOOGLES_ISSUERS if issuer in _GOOGLES_ISSUERS else frozenset({issuer}),
    )


def _url(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not is_secure_url(value):
        raise GoogleUnavailable("bad_discovery")
    return value


def _optional_url(document: dict[str, Any], name: str) -> str | None:
    return None if document.get(name) is None else _url(document, name)
