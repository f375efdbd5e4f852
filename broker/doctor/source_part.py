"""The OAuth client: can it be read from where it is kept? The secret itself is never shown."""

from urllib.parse import urlsplit

from broker.clock import Clock
from broker.doctor.findings import Finding, Report
from broker.secret_sources import open_source
from broker.secret_sources.source import SourceError, SourceUnavailable
from broker.settings import GOOGLE_DISCOVERY_URL, Settings

_GOOGLES_SUFFIX = ".apps.googleusercontent.com"
_PLACES = {
    "env": "GOOGLE_CLIENT_ID and GOOGLE_CLIENT_SECRET, or their _FILE forms",
    "file": "GOOGLE_CREDENTIALS_FILE",
    "vault": "VAULT_ADDR, VAULT_AUTH and its credentials, VAULT_KV_MOUNT and VAULT_KV_PATH",
}


async def check_source(settings: Settings, clock: Clock) -> list[Finding]:
    """Read the client once, as the broker does when it starts."""
    report = Report("secret source")
    source = open_source(settings.secret_source, clock)
    try:
        client = await source.read()
    except SourceError as error:
        away = isinstance(error, SourceUnavailable)
        advice = "see that it runs and can be reached from here" if away else "mend it there"
        return report.fail(str(error), f"{advice}, or see {_PLACES[source.name]}").findings
    finally:
        await source.aclose()
    asks_google = urlsplit(settings.discovery_url).hostname == _host_of_google()
    if asks_google and not client.client_id.endswith(_GOOGLES_SUFFIX):
        report.warn(
            f"the client id {client.client_id!r} does not end in {_GOOGLES_SUFFIX}, as all of "
            "Google's do",
            "copy it anew from Google's console, APIs & Services, Credentials",
        )
    return report.ok(f"{source.name}, read; the client is {client.client_id}").findings


def _host_of_google() -> str | None:
    return urlsplit(GOOGLE_DISCOVERY_URL).hostname
