"""A Google stand-in for tests that use the system's time."""

from collections.abc import Iterator

import pytest

from devstack.google_standin import GoogleStandin


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleStandin]:
    """A stand-in per test module, which uses the system's time."""
    standin = GoogleStandin()
    standin.start()
    yield standin
    standin.stop()
