"""The settings: complete and well-formed, and redirect URIs that lead to the public listener."""

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from broker.doctor.findings import Finding, Report
from broker.settings import CALLBACK_PATH, Listen, SettingProblem, Settings, is_loopback_host
from broker.settings.urls import UNVERIFIED_SERVER, UNVERIFIED_SERVER_REMEDY

_HTTP_PORTS = {"https": 443, "http": 80}


def check_settings(settings: Settings, problems: Sequence[SettingProblem]) -> list[Finding]:
    """Report each problem, each misspelt setting, and each database without verified TLS."""
    report = Report("settings")
    for problem in problems:
        report.fail(problem.text, "set it in the broker's environment")
    for warning in settings.warnings:
        report.warn(warning, "correct its name, or leave it unset")
    for name in sorted(settings.unverified_databases):
        report.warn(UNVERIFIED_SERVER.format(name=name), UNVERIFIED_SERVER_REMEDY)
    if not problems:
        report.ok("complete and well-formed")
    return report.findings


def check_redirects(settings: Settings) -> list[Finding]:
    """Check that each redirect URI's path and port are those of the public listener."""
    report = Report("redirect URI")
    for uri in settings.redirect_uris:
        _check_redirect(report, uri, urlsplit(uri), settings.public_listen)
    return report.findings


def _check_redirect(report: Report, uri: str, parts: SplitResult, public: Listen) -> None:
    if parts.path != CALLBACK_PATH:
        report.fail(
            f"{uri}: the public listener serves nothing at {parts.path or '/'}",
            f"let it end in {CALLBACK_PATH}",
        )
    elif parts.scheme == "http" and _port(parts) != public.port:
        report.warn(
            f"{uri}: the public listener is at {public}, not at port {_port(parts)}",
            "change one of the two, unless a proxy forwards requests from there",
        )
    else:
        report.ok(f"{uri}: {_proxy_hint(parts, public)}register exactly this URI at Google")


def _proxy_hint(parts: SplitResult, public: Listen) -> str:
    if is_loopback_host(parts.hostname):
        return ""
    return f"forward it from your proxy to {public}, and "


def _port(parts: SplitResult) -> int:
    return parts.port or _HTTP_PORTS[parts.scheme]
