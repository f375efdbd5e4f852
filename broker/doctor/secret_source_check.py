"""The OAuth client: it can be read from its source. Its secret is never shown."""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

from broker.clock import Clock
from broker.doctor.findings import Finding, Report
from broker.secret_sources import open_source
from broker.secret_sources.source import OAuthClient, SourceError, SourceUnavailable
from broker.settings import GOOGLE_DISCOVERY_URL, SecretSource, Settings, VaultSource

_GOOGLE_SUFFIX = ".apps.googleusercontent.com"
_SETTINGS = {
    "env": "GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET, or their _FILE forms",
    "file": "GOOGLE_CREDENTIALS_FILE",
    "vault": "VAULT_ADDR, VAULT_AUTH and its credentials, VAULT_KV_MOUNT and VAULT_KV_PATH",
}


async def check_source(settings: Settings, clock: Clock) -> list[Finding]:
    """Read the client as the broker does at its start, from each address of Vault."""
    report, source = Report("secret source"), settings.secret_source
    answers = await asyncio.gather(*(_read(place, clock) for place in _addresses(source)))
    clients = [answer for answer in answers if isinstance(answer, OAuthClient)]
    for answer in answers:
        if isinstance(answer, SourceUnavailable):
            remedy = (
                "check that it runs and can be reached from this machine, or correct "
                f"{_SETTINGS[source.name]}"
            )
            # The broker goes on to the next address.
            (report.warn if clients else report.fail)(str(answer), remedy)
        elif isinstance(answer, SourceError):
            report.fail(str(answer), f"fix it at the source, or correct {_SETTINGS[source.name]}")
    if not clients:
        return report.findings
    client = clients[0]
    if not all(client.has_credentials_of(other) for other in clients):
        report.warn(
            "the addresses of VAULT_ADDR hold different clients",
            "store the client in each of them whenever it changes",
        )
    uses_google = urlsplit(settings.discovery_url).hostname == _google_host()
    if uses_google and not client.client_id.endswith(_GOOGLE_SUFFIX):
        report.warn(
            f"the client id {client.client_id!r} does not end in {_GOOGLE_SUFFIX}, as all of "
            "Google's do",
            "copy it again from Google's console, APIs & Services, Credentials",
        )
    return report.ok(f"{source.name}, read; the client is {client.client_id}").findings


def _addresses(source: SecretSource) -> list[SecretSource]:
    """One source for each address of Vault; the source itself for the others."""
    if isinstance(source, VaultSource):
        return [replace(source, addresses=(address,)) for address in source.addresses]
    return [source]


async def _read(config: SecretSource, clock: Clock) -> OAuthClient | SourceError:
    source = open_source(config, clock)
    try:
        return await source.read()
    except SourceError as error:
        return error
    finally:
        await source.aclose()


def _google_host() -> str | None:
    return urlsplit(GOOGLE_DISCOVERY_URL).hostname
