"""URL checks: which are safe for secrets, and which reach PostgreSQL over verified TLS."""

import ipaddress
import re
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

VERIFYING_MODES = frozenset({"verify-ca", "verify-full"})

UNVERIFIED_SERVER = "{name} connects over a network without verifying PostgreSQL's certificate"
UNVERIFIED_SERVER_REMEDY = (
    "add sslmode=verify-full&sslrootcert=/path/to/ca.pem to its query "
    "(docs/how-to/connect-to-postgresql.md)"
)


def is_loopback_host(host: str | None) -> bool:
    """True if a URL's host is this machine by name or number (RFC 8252 §7.3, RFC 6761 §6.3)."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure_url(url: str) -> bool:
    """True for https on any host, and for plain http on a loopback host."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and is_loopback_host(parts.hostname)


def is_database_url(url: str) -> bool:
    """True if a driver can read the hosts (with commas between several) and ports."""
    try:
        parts = urlsplit(url)
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    host = r"(\[[0-9a-fA-F:.]+\]|[^:@\[\]]*)(:[0-9]{1,5})?"
    user, _, names = parts.netloc.rpartition("@")
    hosts = names.split(",")
    if "[" in user or "]" in user:
        # A bracket belongs to an IPv6 address; in the user part it would look like half of one.
        return False
    if parts.fragment or parts.path.startswith("//"):
        # Without a host before it, the path would be taken for a host when the hosts are split.
        return False
    return all(re.fullmatch(host, each) for each in hosts)


def is_server_verified(url: str, default_mode: str) -> bool:
    """True if each host of a PostgreSQL URL is this machine or must prove its certificate.

    `default_mode` is the driver's TLS mode for a URL that names none (`PGSSLMODE`). Without a mode
    the driver tries TLS, and falls back to plain text.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
    except ValueError:
        # `is_database_url` rejects it.
        return True
    modes = options.get("sslmode") or options.get("ssl") or [default_mode]
    if modes[-1] in VERIFYING_MODES:
        return True
    named = ",".join([parts.netloc.rpartition("@")[2], *options.get("host", ())])
    return all(_is_local(_without_port(host)) for host in named.split(",") if host)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


def _is_local(host: str) -> bool:
    """True for a loopback host, a socket's folder, and no host (the driver then uses a socket)."""
    name = unquote(host)
    return not name or name.startswith(("/", "@")) or is_loopback_host(name)
