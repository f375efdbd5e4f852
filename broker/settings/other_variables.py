"""Environment variables that are no settings of the broker.

Libraries read some by themselves: the addresses of proxies, and files of certificates. A library
would find a mistake there only at its first use. Others are misspelt settings.
"""

import re
import ssl
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from urllib.parse import urlsplit

from broker.settings.environment import Environment
from broker.settings.table import SECRET_NAMES, SETTING_NAMES

DRIVERS_TLS_MODE = "PGSSLMODE"
"""The PostgreSQL driver's TLS mode for a URL that names none."""

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_EXEMPT = "NO_PROXY"
_CERTIFICATES = "SSL_CERT_FILE"

_KNOWN = SETTING_NAMES | {f"{name}_FILE" for name in SECRET_NAMES}
_LIKE_A_SETTING = re.compile(r"(?:BROKER|GOOGLE|VAULT)_[A-Za-z0-9_-]{1,80}")
_OTHER_PROGRAMS = re.compile(
    r"GOOGLE_(?:APPLICATION|CLOUD|API|EXTERNAL_ACCOUNT)_.*"
    # Vault's own client and server read these; hvac reads some of them.
    r"|VAULT_(?:CACERT(?:_BYTES)?|CAPATH|CLIENT_(?:CERT|KEY|TIMEOUT)|SKIP_VERIFY|TLS_SERVER_NAME"
    r"|SRV_LOOKUP|RATE_LIMIT|MAX_RETRIES|DISABLE_REDIRECTS|(?:HTTP_)?PROXY(?:_ADDR)?|HEADERS|MFA"
    r"|WRAP_TTL|FORMAT|DETAILED|OUTPUT_\w+|LOG_\w+|CLI_\w+|CONFIG_PATH|LICENSE(?:_PATH)?"
    r"|(?:AGENT|API|CLUSTER|REDIRECT)_ADDR|(?:DEV|RAFT|UI|UNSEAL|SEAL)_\w+)"
)


def check_proxies_and_certificates(environment: Environment) -> None:
    """Note the variables that no HTTP client could use. A proxy's URL may hold a password."""
    if not _bypasses_all_proxies(environment):
        for name in (*_PROXIES, *map(str.lower, _PROXIES)):
            address = environment.text(name)
            if address and not _is_proxy(address):
                environment.note(name, "must be the address of an http or https proxy")
    path = environment.text(_CERTIFICATES)
    if path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except ssl.SSLError:
            environment.note(_CERTIFICATES, "holds no certificate in PEM")
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "no such file"
            environment.note(_CERTIFICATES, f"can't be read: {why}")


def _bypasses_all_proxies(environment: Environment) -> bool:
    exempt = environment.text(_EXEMPT.lower()) or environment.text(_EXEMPT)
    return "*" in map(str.strip, exempt.split(","))


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def misspelt_settings(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each variable that looks like a setting and is none, without its value."""
    for name, value in sorted(variables.items()):
        if name in _KNOWN or not value.strip() or not _LIKE_A_SETTING.fullmatch(name):
            continue
        if _OTHER_PROGRAMS.fullmatch(name) or _is_service_link(name, variables):
            continue
        close = get_close_matches(name.upper(), sorted(_KNOWN), n=1, cutoff=0.8)
        suggestion = f"; did you mean {close[0]}?" if close else ""
        yield f"{name} is not a setting of this release, so it has no effect{suggestion}"


def _is_service_link(name: str, variables: Mapping[str, str]) -> bool:
    """True if Kubernetes set it for a Service whose name begins like a setting."""
    link = re.fullmatch(r"(.+?)_(?:SERVICE_(?:HOST|PORT)|PORT)(?:_\w+)?", name)
    return link is not None and f"{link[1]}_SERVICE_HOST" in variables
