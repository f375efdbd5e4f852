"""Which addresses are safe for secrets, and which can be read at all."""

import ipaddress
import re
from urllib.parse import parse_qsl, urlsplit


def is_loopback_host(host: str | None) -> bool:
    """Whether a URL's host is this machine by name or number (RFC 8252 §7.3, RFC 6761 §6.3)."""
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_secure_url(url: str) -> bool:
    """https anywhere, or plain http on a loopback host."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and is_loopback_host(parts.hostname)


def is_database_address(url: str) -> bool:
    """Whether a driver could make out host and port; several hosts may have commas between."""
    try:
        parts = urlsplit(url)
        parse_qsl(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    host = r"(\[[0-9a-fA-F:.]+\]|[^:@\[\]]*)(:[0-9]{1,5})?"
    user, _, names = parts.netloc.rpartition("@")
    hosts = names.split(",")
    if "[" in user or "]" in user:
        # They belong to an IPv6 address: next to another host they would look like half of one.
        return False
    if parts.fragment or parts.path.startswith("//"):
        # With no host before it, such a path would be taken for one once hosts are told apart.
        return False
    return all(re.fullmatch(host, each) for each in hosts)
