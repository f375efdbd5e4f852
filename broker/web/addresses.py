"""Whose address a request comes from, also behind proxies: what nobody can choose for himself.

A proxy's word counts only if the proxy is trusted. Addresses are for counting, never for letting
anybody in.
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
"""Bytes of a header that are looked at: the last ones, which the nearest proxies wrote."""
_MOST_HOPS = 20
_PREFIX_OF_ONE_HOME = 64
"""Bits: whoever has one address of IPv6 has all that begin so."""
_SAID_AGAIN_SECONDS = 3600.0

logger = logging.getLogger(__name__)


class ClientAddresses:
    """Finds the address that a request is counted under."""

    def __init__(self, trusted: Sequence[Network], clock: Clock) -> None:
        """`trusted` are the proxies' addresses."""
        self._trusted = tuple(trusted)
        self._clock = clock
        self._said_at = float("-inf")

    def of(self, scope: Mapping[str, object]) -> str:
        """The nearest address that is no trusted proxy's; of IPv6, the /64 that it is in."""
        client = scope.get("client")
        nearest = str(client[0]) if isinstance(client, list | tuple) else ""
        address = _unmapped(nearest)
        if address is None:
            return nearest[:64]
        headers = scope["headers"]
        assert isinstance(headers, Sequence)  # noqa: S101  (ASGI)
        if not self._is_trusted(address):
            self._point_out(headers)
            return _counted_under(address)
        for hop in _hops(headers):
            claimed = _unmapped(hop)
            if claimed is None:
                # Whatever stands further left, nobody who is trusted has vouched for.
                break
            address = claimed
            if not self._is_trusted(address):
                break
        return _counted_under(address)

    def _is_trusted(self, address: _Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self._trusted
        )

    def _point_out(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """An operator who forgot the setting finds all people counted as one."""
        if self._trusted or not any(name == _FORWARDED_FOR for name, _ in headers):
            return
        if self._clock.epoch() - self._said_at >= _SAID_AGAIN_SECONDS:
            self._said_at = self._clock.epoch()
            logger.warning(
                "requests come through a proxy that BROKER_TRUSTED_PROXIES does not name: all who "
                "come through it are counted as one"
            )


def _hops(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """What the proxies wrote, the nearest first; the older header counts where there are both."""
    by_name: dict[bytes, list[bytes]] = {_FORWARDED_FOR: [], _FORWARDED: []}
    for name, value in headers:
        if name in by_name:
            by_name[name].append(value)
    plain = by_name[_FORWARDED_FOR]
    text = b",".join(plain or by_name[_FORWARDED])[-_LONGEST:].decode("latin-1")
    hops = [part.strip() for part in text.split(",")][::-1][:_MOST_HOPS]
    return hops if plain else [_for(hop) for hop in hops]


def _for(element: str) -> str:
    """The `for` of RFC 7239."""
    for pair in element.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value.strip('"')
    return ""


def _unmapped(text: str) -> _Address | None:
    """An address as it is written, perhaps with a port; IPv4 within IPv6 is IPv4."""
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


def _counted_under(address: _Address) -> str:
    if isinstance(address, IPv6Address):
        network = IPv6Network((address, _PREFIX_OF_ONE_HOME), strict=False)
        return str(network)
    return str(address)
