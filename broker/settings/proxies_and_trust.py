"""What the libraries that call others read from the environment by themselves: proxies, trust.

They find a mistake in it when they are first used, and say so in their own way.
"""

import ssl
from urllib.parse import urlsplit

from broker.settings.reader import Reader

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_EXEMPT = "NO_PROXY"
_TRUST = "SSL_CERT_FILE"


def check_way_out(reader: Reader) -> None:
    """Note what can't be used. A proxy's address may hold a password, and is not shown."""
    if not _goes_past_proxies(reader):
        for name in (*_PROXIES, *map(str.lower, _PROXIES)):
            address = reader.text(name)
            if address and not _is_proxy(address):
                reader.problem(f"{name} must be the address of an http or https proxy")
    path = reader.text(_TRUST)
    if path:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except ssl.SSLError:
            reader.problem(f"{_TRUST} holds no certificate in PEM")
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "no such file"
            reader.problem(f"{_TRUST} can't be read: {why}")


def _goes_past_proxies(reader: Reader) -> bool:
    """Everywhere, so that none is ever looked at."""
    exempt = reader.text(_EXEMPT.lower()) or reader.text(_EXEMPT)
    return "*" in map(str.strip, exempt.split(","))


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
