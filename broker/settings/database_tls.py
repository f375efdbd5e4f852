"""Whether anybody on the way to PostgreSQL could read along, or answer in its place."""

from urllib.parse import parse_qs, unquote, urlsplit

from broker.settings.urls import is_loopback_host

VERIFYING_MODES = frozenset({"verify-ca", "verify-full"})

UNVERIFIED = "{name} leads over a network, and PostgreSQL's certificate is not verified"
REMEDY = "add sslmode=verify-full&sslrootcert=/path/to/ca.pem to its query (docs/operations.md)"


def is_way_verified(url: str, default_mode: str) -> bool:
    """Whether each host is this machine, or has to show a certificate of a named authority's.

    `default_mode` is what the driver takes where the address says nothing (`PGSSLMODE`). Without
    any it tries TLS, and does without where there is none.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
    except ValueError:
        # Refused elsewhere.
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
    """Without a host, the driver looks for a socket of this machine's."""
    name = unquote(host)
    return not name or name.startswith(("/", "@")) or is_loopback_host(name)
