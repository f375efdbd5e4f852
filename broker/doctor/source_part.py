"""The OAuth client: can it be read from where it is kept? The secret itself is never shown."""

import asyncio
from dataclasses import replace
from urllib.parse import urlsplit

from broker.clock import Clock
from broker.doctor.findings import Finding, Report
from broker.secret_sources import open_source
from broker.secret_sources.client import OAuthClient
from broker.secret_sources.source import SourceError, SourceUnavailable
from broker.settings import GOOGLE_DISCOVERY_URL, SecretSource, Settings, VaultSource

_GOOGLES_SUFFIX = ".apps.googleusercontent.com"
_PLACES = {
    "env": "GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET, or their _FILE forms",
    "file": "GOOGLE_CREDENTIALS_FILE",
    "vault": "VAULT_ADDR, VAULT_AUTH and its credentials, VAULT_KV_MOUNT and VAULT_KV_PATH",
}


async def check_source(settings: Settings, clock: Clock) -> list[Finding]:
    """Read the client as the broker does when it starts; from each of Vault's addresses."""
    report, source = Report("secret source"), settings.secret_source
    answers = await asyncio.gather(*(_read(place, clock) for place in _each(source)))
    clients = [answer for answer in answers if isinstance(answer, OAuthClient)]
    for answer in answers:
        if isinstance(answer, SourceUnavailable):
            advice = f"see that it runs and can be reached from here, or see {_PLACES[source.name]}"
            # The broker goes on to the next address.
            (report.warn if clients else report.fail)(str(answer), advice)
        elif isinstance(answer, SourceError):
            report.fail(str(answer), f"mend it there, or see {_PLACES[source.name]}")
    if not clients:
        return report.findings
    client = clients[0]
    if not all(client.has_credentials_of(other) for other in clients):
        report.warn(
            "the addresses of VAULT_ADDR hold different clients",
            "put the client into each of them whenever it changes",
        )
    asks_google = urlsplit(settings.discovery_url).hostname == _host_of_google()
    if asks_google and not client.client_id.endswith(_GOOGLES_SUFFIX):
        report.warn(
            f"the client id {client.client_id!r} does not end in {_GOOGLES_SUFFIX}, as all of "
            "Google's do",
            "copy it anew from Google's console, APIs & Services, Credentials",
        )
    return report.ok(f"{source.name}, read; the client is {client.client_id}").findings


def _each(source: SecretSource) -> list[SecretSource]:
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


def _host_of_google() -> str | None:
    return urlsplit(GOOGLE_DISCOVERY_URL).hostname
