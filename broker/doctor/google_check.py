"""Google's discovery document: available, and with endpoints that are safe for secrets."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from broker.clock import Clock
from broker.doctor.findings import Finding, Report
from broker.google.discovery import read_endpoints
from broker.google.errors import GoogleError, GoogleUnavailable
from broker.google.http import google_call, google_http_client
from broker.outbound.responses import json_object
from broker.settings import GOOGLE_DISCOVERY_URL, is_secure_url
from broker.telemetry.metrics import Metrics

_LIMIT = timedelta(seconds=4)
_NEEDED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
_OPTIONAL = ("revocation_endpoint", "userinfo_endpoint")


@dataclass(frozen=True, slots=True)
class GoogleFacts:
    """The response of the discovery URL."""

    document: dict[str, Any]
    ahead: timedelta | None
    """How far Google's clock is ahead of ours, to half a second; None if it sent no date."""


async def fetch_google_facts(url: str, clock: Clock) -> GoogleFacts:
    """Fetch the discovery document. Raises `GoogleUnavailable`."""
    async with google_http_client() as http:
        async with google_call("discovery", Metrics(), _LIMIT):
            sent_at = clock.now()
            response = await http.get(url, headers={"Accept": "application/json"})
            received_at = clock.now()
        if response.status_code != 200:
            raise GoogleUnavailable(f"http_{response.status_code}")
        document = json_object(response)
        if document is None:
            raise GoogleUnavailable("not_json")
    date = _date(response.headers.get("Date", ""))
    # The header has whole seconds, rounded down, and is of a time between the two.
    half = (received_at - sent_at) / 2
    ahead = date + timedelta(milliseconds=500) - (sent_at + half) if date else None
    return GoogleFacts(document, ahead)


def report_unavailable(error: GoogleError) -> list[Finding]:
    """Report why there is no discovery document."""
    what = f"the discovery document is unavailable ({error.reason})"
    if error.reason.startswith(("http_", "not_json")):
        remedy = "correct GOOGLE_DISCOVERY_URL; what answers there is not an OpenID provider"
    elif error.reason == "bad_endpoint":
        remedy = "correct GOOGLE_DISCOVERY_URL"
    else:
        remedy = (
            "check that this machine may connect to it: DNS, firewall, HTTPS_PROXY, and "
            "SSL_CERT_FILE if a proxy has its own certificate"
        )
    return Report("google").fail(what, remedy).findings


def check_google(facts: GoogleFacts, url: str) -> list[Finding]:
    """Check that all endpoints are there and https, and that the issuer is that of the URL."""
    report = Report("google")
    for name in (*_NEEDED, *_OPTIONAL):
        value = facts.document.get(name)
        if value is None and name in _OPTIONAL:
            continue
        if not isinstance(value, str) or not is_secure_url(value):
            state = "is missing" if value is None else "is not an https address"
            report.fail(
                f"the discovery document's {name} {state}",
                "let GOOGLE_DISCOVERY_URL name a provider whose endpoints are all https "
                f"(Google's own is {GOOGLE_DISCOVERY_URL})",
            )
    if report.findings:
        return report.findings
    endpoints = read_endpoints(facts.document)
    issuer, expected = urlsplit(endpoints.issuer).hostname, urlsplit(url).hostname
    if issuer != expected:
        report.warn(
            f"the issuer is {issuer}, but the document is from {expected}",
            "check that GOOGLE_DISCOVERY_URL is the issuer's own, with "
            "/.well-known/openid-configuration after it",
        )
    if endpoints.revocation is None:
        report.warn(
            "there is no revocation endpoint: revocations end access here, but not at Google",
            "check that GOOGLE_DISCOVERY_URL names Google",
        )
    return report.ok(f"{endpoints.issuer}, all endpoints are https or loopback").findings


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
