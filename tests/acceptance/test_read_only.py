"""The broker writes no file: it can run on a read-only file system, without privileges."""

from pathlib import Path

import httpx2
import pytest

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from tests.support.processes import BrokerProcess, run_broker
from tests.support.world import environment, stanza, write_callers

pytestmark = pytest.mark.process

_WATCHED = "tests.support.watched_broker"


def test_serving_changes_no_file(tmp_path: Path, database_url: str, standin: GoogleStandin) -> None:
    key, callers_file = new_key(), tmp_path / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(key)})
    settings = environment(database_url, standin, callers_file)
    broker = BrokerProcess(settings, tmp_path / "log", module=_WATCHED)
    with broker:
        credential = {"Authorization": f"Bearer {key}"}
        token = httpx2.get(f"{broker.internal_url}/v1/users/42/token", headers=credential)
        page = httpx2.get(f"{broker.public_url}/auth/google/authorize/42?link=none")
        metrics = httpx2.get(f"{broker.ops_url}/metrics")
        statuses = (token.status_code, page.status_code, metrics.status_code)
    assert statuses == (404, 400, 200)
    changes = [line for line in broker.output.splitlines() if "CHANGES FILES" in line]
    # `make coverage` writes what it measured.
    assert not [line for line in changes if "/build/coverage/" not in line]


def test_a_written_file_is_noticed(tmp_path: Path) -> None:
    """The watch works: this command writes a key file."""
    key_file = tmp_path / "caller.key"
    ended = run_broker(
        *("callers", "new", "calendar-sync", "--can", "tokens:read", "--user", "*"),
        *("--scope", "https://www.googleapis.com/auth/calendar.readonly"),
        *("--key-file", str(key_file)),
        settings={},
        module=_WATCHED,
    )
    assert key_file.exists(), ended.stderr
    assert f"CHANGES FILES: open {str(key_file)!r}" in ended.stderr
