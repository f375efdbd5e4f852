"""The remote address of a request, also behind proxies; a client can't choose it.

Forwarding headers count only if a trusted proxy wrote them. Addresses serve rate limits and logs,
never authentication.
"""

import logging
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from broker.clock import Clock

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

_FORWARDED_FOR = b"x-forwarded-for"
_FORWARDED = b"forwarded"
_LONGEST = 2048
"""Bytes of a header that are read: the last ones, which the nearest proxies wrote."""
_MAX_HOPS = 20
_IPV6_PREFIX = 64
"""Bits. A client that has one IPv6 address usually has its whole /64."""
_WARN_EVERY_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class RemoteAddresses:
    """Finds the address that a request counts towards."""

    def __init__(self, trusted: Sequence[Network], clock: Clock) -> None:
        """`trusted` are the networks of the trusted proxies."""
        self._trusted = tuple(trusted)
        self._clock = clock
        self._warned_at = float("-inf")

    def of(self, scope: Mapping[str, object]) -> str:
        """Return the nearest address that is not a trusted proxy; for IPv6 its /64."""
        client = scope.get("client")
        nearest = str(client[0]) if isinstance(client, list | tuple) else ""
        address = _unmapped(nearest)
        if address is None:
            return nearest[:64]
        headers = scope["headers"]
        assert isinstance(headers, Sequence)  # noqa: S101  (ASGI)
        if not self._is_trusted(address):
            self._warn_about_proxy(headers)
            return _rate_limit_key(address)
        for hop in _hops(headers):
            claimed = _unmapped(hop)
            if claimed is None:
                # No trusted proxy has confirmed what stands further left.
                break
            address = claimed
            if not self._is_trusted(address):
                break
        return _rate_limit_key(address)

    def _is_trusted(self, address: _Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._trusted
        )

    def _warn_about_proxy(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Without the setting, all clients behind a proxy count as one."""
        if self._trusted or not any(name == _FORWARDED_FOR for name, _ in headers):
            return
        if self._clock.epoch() - self._warned_at >= _WARN_EVERY_SECONDS:
            self._warned_at = self._clock.epoch()
            logger.warning(
                "requests come through a proxy that BROKER_TRUSTED_PROXIES does not list; "
                "all of its clients count as one",
                extra={"event": "proxy_not_trusted"},
            )


def _hops(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """Return what the proxies wrote, the nearest first. X-Forwarded-For wins over Forwarded."""
    by_name: dict[bytes, list[bytes]] = {_FORWARDED_FOR: [], _FORWARDED: []}
    for name, value in headers:
        if name in by_name:
            by_name[name].append(value)
    plain = by_name[_FORWARDED_FOR]
    text = b",".join(plain or by_name[_FORWARDED])[-_LONGEST:].decode("latin-1")
    hops = [part.strip() for part in text.split(",")][::-1][:_MAX_HOPS]
    return hops if plain else [_for(hop) for hop in hops]


def _for(element: str) -> str:
    """Return the `for` parameter (RFC 7239 §5.2)."""
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value.strip('"')
    return ""


def _unmapped(text: str) -> _Address | None:
    """Parse an address, with or without a port. An IPv4-mapped IPv6 address becomes IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _rate_limit_key(address: _Address) -> str:
    if isinstance(address, IPv6Address):
        network = IPv6Network((address, _IPV6_PREFIX), strict=False)
        return str(network)
    return str(address)
