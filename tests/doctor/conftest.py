"""Fixtures for the tests of `broker doctor`."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from tests.support.world import environment, stanza


@pytest.fixture
def env(tmp_path: Path, database_url: str, standin: GoogleStandin) -> dict[str, str]:
    """The settings of a good installation."""
    callers_file = tmp_path / "callers.yaml"
    callers_file.write_text(yaml.safe_dump({"callers": {"calendar-sync": stanza(new_key())}}))
    return {
        **environment(database_url, standin, callers_file),
        "GOOGLE_REDIRECT_URI": "http://127.0.0.1:8000/auth/google/callback",
    }


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
