"""The remote address: the nearest one that is not a trusted proxy."""

import logging
from ipaddress import ip_network

import pytest

from broker.web.addresses import RemoteAddresses
from tests.support.clock import ManualClock

PROXY = "10.0.0.1"


def _seen(peer: str, *headers: tuple[str, str], trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> str:
    addresses = RemoteAddresses([ip_network(text) for text in trusted], ManualClock())
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return addresses.of({"client": (peer, 4711), "headers": raw})


def test_without_trusted_proxies_only_the_connection_counts() -> None:
    assert _seen("192.0.2.1", ("X-Forwarded-For", "203.0.113.9"), trusted=()) == "192.0.2.1"


def test_an_untrusted_peer_can_not_choose_its_address() -> None:
    assert _seen("192.0.2.1", ("X-Forwarded-For", "203.0.113.9")) == "192.0.2.1"


@pytest.mark.parametrize(
    "headers",
    [
        (("X-Forwarded-For", "192.0.2.1"),),
        (("X-Forwarded-For", "203.0.113.9, 192.0.2.1"),),
        (("X-Forwarded-For", "203.0.113.9, 192.0.2.1, 10.2.3.4"),),
        (("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "192.0.2.1:4711")),
        (("Forwarded", 'for=203.0.113.9, for="192.0.2.1:80";proto=https'),),
        (("Forwarded", "for=203.0.113.9"), ("X-Forwarded-For", "192.0.2.1")),
        (("X-Forwarded-For", "::ffff:192.0.2.1"),),
    ],
)
def test_the_rightmost_untrusted_address_counts(headers: tuple[tuple[str, str], ...]) -> None:
    assert _seen(PROXY, *headers) == "192.0.2.1"


@pytest.mark.parametrize("value", ["", "unknown", "203.0.113.9, _hidden", "203.0.113.9, 10.x"])
def test_without_a_valid_forwarded_address_the_proxy_counts(value: str) -> None:
    assert _seen(PROXY, ("X-Forwarded-For", value)) == PROXY


def test_an_ipv6_prefix_of_64_bits_counts_as_one_client() -> None:
    assert _seen("2001:db8:1:2:3:4:5:6") == _seen("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert _seen("2001:db8:1:3::9") != _seen("2001:db8:1:2::9")
    assert _seen("::ffff:192.0.2.1") == "192.0.2.1"


def test_an_unlisted_proxy_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    addresses = RemoteAddresses((), ManualClock())
    for _ in range(3):
        addresses.of({"client": (PROXY, 1), "headers": [(b"x-forwarded-for", b"192.0.2.1")]})
    (record,) = caplog.records
    assert (record.levelno, vars(record)["event"]) == (logging.WARNING, "proxy_not_trusted")
    assert "BROKER_TRUSTED_PROXIES" in record.getMessage()
