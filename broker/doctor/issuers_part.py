"""The issuers that the callers file trusts: can their keys be had from here?"""

import asyncio
from pathlib import Path

from broker.callers.callers_file import CallersFileError
from broker.callers.registry import read_callers
from broker.doctor.findings import Finding, Report
from broker.issuers.documents import IssuerDocuments
from broker.issuers.key_set import read_keys
from broker.issuers.model import Issuer, IssuerUnavailable
from broker.outbound.client import bounded_client
from broker.telemetry.metrics import Metrics

_REMEDIES = {
    "ca_file": "see that `ca_file` is a file with PEM certificates that the broker may read",
    "token_file": "see that `token_file` is a file with one token that the broker may read",
    "connect": "see that this machine may connect there, and that its certificate is trusted: "
    "DNS, firewall, HTTPS_PROXY, `ca_file`",
    "other_issuer": "write the issuer exactly as its discovery document has it in `issuer`",
    "bad_discovery": "name its keys by `jwks_url`, https",
    "http_401": "give the broker a `token_file` to ask with",
    "http_403": "give the broker a `token_file` to ask with, or let it read the keys there",
    "http_404": "write the issuer exactly as it is, or name its keys by `jwks_url`",
    "no_usable_key": "it must have a public key for one of its `algorithms`",
}
_OTHER = "see that it answers with its keys"


async def check_issuers(path: Path) -> list[Finding]:
    """Ask each issuer once, as the broker would; nothing to say where there are none."""
    report = Report("issuers")
    try:
        issuers = (await asyncio.to_thread(read_callers, path)).issuers()
    except CallersFileError:
        # That is told about the file itself.
        return []
    if not issuers:
        return []
    async with bounded_client() as http:
        documents = IssuerDocuments(http, Metrics())
        answers = await asyncio.gather(*(_ask(documents, issuer) for issuer in issuers))
    for issuer, reason in zip(issuers, answers, strict=True):
        if reason is not None:
            report.fail(
                f"the keys of {issuer.url} can't be had ({reason})",
                _REMEDIES.get(reason, _OTHER),
            )
    if report.findings:
        return report.findings
    many = "1 issuer" if len(issuers) == 1 else f"{len(issuers)} issuers"
    return report.ok(f"the keys of {many} can be had").findings


async def _ask(documents: IssuerDocuments, issuer: Issuer) -> str | None:
    """Why there are no keys, if so."""
    try:
        keys = read_keys(await documents.key_set(issuer))
    except IssuerUnavailable as error:
        return error.reason
    usable = any(key.fits(algorithm) for key in keys for algorithm in issuer.algorithms)
    return None if usable else "no_usable_key"
