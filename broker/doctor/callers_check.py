"""The callers file: valid and effective; and the issuers in it: their keys can be fetched."""

import asyncio
from pathlib import Path

from broker.callers.callers_file import CallersFileError
from broker.callers.file_warnings import find_warnings
from broker.callers.registry import read_callers
from broker.doctor.findings import Finding, Report
from broker.issuers.key_set_client import KeySetClient
from broker.issuers.model import Issuer, IssuerUnavailable
from broker.issuers.verification_keys import read_keys
from broker.outbound.http_client import bounded_client
from broker.telemetry.metrics import Metrics

_MAX_PROBLEMS_SHOWN = 10

_ISSUER_REMEDIES = {
    "ca_file": "check that `ca_file` is a file with PEM certificates that the broker may read",
    "token_file": "check that `token_file` is a file with one token that the broker may read",
    "connect": "check that this machine may connect to it, and that its certificate is trusted: "
    "DNS, firewall, HTTPS_PROXY, `ca_file`",
    "other_issuer": "write the issuer exactly as `issuer` in its discovery document",
    "bad_discovery": "name its keys by `jwks_url`, https",
    "http_401": "give the broker a `token_file` to authenticate with",
    "http_403": "give the broker a `token_file` to authenticate with, or let it read the keys",
    "http_404": "write the issuer exactly as it is, or name its keys by `jwks_url`",
    "no_usable_key": "it must have a public key for one of its `algorithms`",
}
_OTHER_REMEDY = "check that it serves its keys"


def check_callers(path: Path, allowed_scopes: tuple[str, ...]) -> list[Finding]:
    """Read the file as the broker does."""
    report = Report("callers file")
    try:
        file = read_callers(path)
    except CallersFileError as error:
        for problem in error.problems[:_MAX_PROBLEMS_SHOWN]:
            report.fail(problem, f"correct it in {path} (`broker callers check`)")
        more = len(error.problems) - _MAX_PROBLEMS_SHOWN
        if more > 0:
            report.fail(f"{more} more problems", f"broker callers check {path}")
        return report.findings
    for concern in find_warnings(file, allowed_scopes):
        report.warn(concern, f"change it in {path}; a running broker reads it again")
    number = len(file.callers)
    many = "1 caller" if number == 1 else f"{number} callers"
    return report.ok(f"{path}, {many}").findings


async def check_issuers(path: Path) -> list[Finding]:
    """Fetch the keys of each issuer once, as the broker does; no findings without issuers."""
    report = Report("issuers")
    try:
        issuers = (await asyncio.to_thread(read_callers, path)).issuers()
    except CallersFileError:
        # `check_callers` reports it.
        return []
    if not issuers:
        return []
    async with bounded_client() as http:
        client = KeySetClient(http, Metrics())
        reasons = await asyncio.gather(*(_fetch_keys(client, issuer) for issuer in issuers))
    for issuer, reason in zip(issuers, reasons, strict=True):
        if reason is not None:
            report.fail(
                f"the keys of {issuer.url} are unavailable ({reason})",
                _ISSUER_REMEDIES.get(reason, _OTHER_REMEDY),
            )
    if report.findings:
        return report.findings
    many = "1 issuer" if len(issuers) == 1 else f"{len(issuers)} issuers"
    return report.ok(f"fetched the keys of {many}").findings


async def _fetch_keys(client: KeySetClient, issuer: Issuer) -> str | None:
    """Return the reason why the issuer has no usable keys; None if it has."""
    try:
        keys = read_keys(await client.fetch(issuer))
    except IssuerUnavailable as error:
        return error.reason
    usable = any(key.fits(algorithm) for key in keys for algorithm in issuer.algorithms)
    return None if usable else "no_usable_key"
