"""The Google stand-in for tests that go by the real time."""

from collections.abc import Iterator

import pytest

from devstack.google_standin import GoogleStandin


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleStandin]:
    """A Google of this module's own, that goes by the real time."""
    standin = GoogleStandin()
    standin.start()
    yield standin
    standin.stop()
