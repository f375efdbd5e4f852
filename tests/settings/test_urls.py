"""Which URLs are safe for secrets."""

import pytest

from broker.settings import is_loopback_host, is_secure_url


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "https://", "https:///path", "https://[::1", "https://a:b", "HTTP://a"],
)
def test_a_malformed_url_is_not_secure(url: str) -> None:
    assert not is_secure_url(url)


@pytest.mark.parametrize("host", [None, "", "::ffff:127.0.0.1.example.com", "2130706433", "127.1"])
def test_other_spellings_of_loopback_are_not_loopback(host: str | None) -> None:
    assert not is_loopback_host(host)
