"""The redirect URIs: will the browser that Google sends back arrive at our public listener?"""

from urllib.parse import SplitResult, urlsplit

from broker.consent.browser_routes import CALLBACK_PATH
from broker.doctor.findings import Finding, Report
from broker.settings import Listen, Settings, is_loopback_host

_HTTP_PORTS = {"https": 443, "http": 80}


def check_redirects(settings: Settings) -> list[Finding]:
    """Shape, path and way, as far as they can be told from here."""
    report = Report("redirect URI")
    for uri in settings.redirect_uris:
        _check(report, uri, urlsplit(uri), settings.public_listen)
    return report.findings


def _check(report: Report, uri: str, parts: SplitResult, public: Listen) -> None:
    if parts.path != CALLBACK_PATH:
        report.fail(
            f"{uri}: the public listener serves nothing at {parts.path or '/'}",
            f"let it end in {CALLBACK_PATH}",
        )
    elif parts.scheme == "http" and _port(parts) != public.port:
        report.warn(
            f"{uri}: the public listener is at {public}, not at port {_port(parts)}",
            "change one of the two, unless something passes requests on from there",
        )
    else:
        report.ok(f"{uri}; {_way(parts, public)}must be registered at Google, letter by letter")


def _way(parts: SplitResult, public: Listen) -> str:
    if is_loopback_host(parts.hostname):
        return ""
    return f"your proxy must pass it on to {public}; "


def _port(parts: SplitResult) -> int:
    return parts.port or _HTTP_PORTS[parts.scheme]
