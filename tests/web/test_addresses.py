"""Whose address counts: the nearest that is no trusted proxy's, never one of choice."""

import logging
from ipaddress import ip_network

import pytest

from broker.web.addresses import ClientAddresses
from tests.support.clock import ManualClock

PROXY = "10.0.0.1"


def _seen(peer: str, *headers: tuple[str, str], trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> str:
    addresses = ClientAddresses([ip_network(text) for text in trusted], ManualClock())
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    return addresses.of({"client": (peer, 4711), "headers": raw})


def test_without_trusted_proxies_only_the_connection_counts() -> None:
    assert _seen("192.0.2.1", ("X-Forwarded-For", "203.0.113.9"), trusted=()) == "192.0.2.1"


def test_who_is_no_proxy_can_not_choose_its_address() -> None:
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
def test_the_rightmost_that_is_not_trusted_counts(headers: tuple[tuple[str, str], ...]) -> None:
    assert _seen(PROXY, *headers) == "192.0.2.1"


@pytest.mark.parametrize("value", ["", "unknown", "203.0.113.9, _hidden", "203.0.113.9, 10.x"])
def test_what_a_proxy_leaves_unsaid_is_the_proxys(value: str) -> None:
    assert _seen(PROXY, ("X-Forwarded-For", value)) == PROXY


def test_all_of_one_home_count_as_one() -> None:
    assert _seen("2001:db8:1:2:3:4:5:6") == _seen("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert _seen("2001:db8:1:3::9") != _seen("2001:db8:1:2::9")
    assert _seen("::ffff:192.0.2.1") == "192.0.2.1"


def test_an_operator_who_forgot_the_proxy_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    addresses = ClientAddresses((), ManualClock())
    for _ in range(3):
        addresses.of({"client": (PROXY, 1), "headers": [(b"x-forwarded-for", b"192.0.2.1")]})
    with caplog.at_level(logging.WARNING):
        assert caplog.text.count("BROKER_TRUSTED_PROXIES") == 1
