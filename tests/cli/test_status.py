"""`broker status`, which a container's health check runs."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.callers.keys import new_key
from broker.cli import main
from devstack.google_standin import GoogleStandin
from tests.support.processes import BrokerProcess, free_port, run_broker
from tests.support.world import environment, stanza, write_callers

PARTS = {
    "database": {"status": "up", "milliseconds": 1.2},
    "vault": {"status": "down", "reason": "connection refused"},
}


def status(listen: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["status", *arguments], env={"BROKER_OPS_LISTEN": listen})


class _Answering(HTTPServer):
    """An ops listener with a scripted answer."""

    answer: tuple[int, bytes] = (200, b"")

    def say(self, code: int, body: object) -> None:
        self.answer = (code, body if isinstance(body, bytes) else json.dumps(body).encode())


class _Handler(BaseHTTPRequestHandler):
    server: _Answering

    def do_GET(self) -> None:
        code, body = self.server.answer
        self.send_response(code if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def ops() -> Iterator[_Answering]:
    with _Answering(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.process
def test_a_broker_that_listens_on_all_addresses_is_queried_on_loopback(
    tmp_path: Path, database_url: str, standin: GoogleStandin
) -> None:
    callers_file = tmp_path / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(new_key())})
    settings = environment(database_url, standin, callers_file)
    with BrokerProcess(settings, tmp_path / "log") as broker:
        everywhere = {"BROKER_OPS_LISTEN": f"0.0.0.0:{broker.ports.ops}"}
        shown = run_broker("status", settings=everywhere)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == "ready"
    assert any(line.split() == ["database", "up"] for line in shown.stdout.splitlines())


def test_a_part_that_is_down_is_named_and_is_not_a_failure(ops: _Answering) -> None:
    ops.say(200, {"status": "degraded", "parts": PARTS})
    shown = status(f"127.0.0.1:{ops.server_port}")
    assert (shown.exit_code, shown.output.splitlines()) == (
        0,
        ["degraded", "database  up", "vault     down  connection refused"],
    )


def test_a_broker_that_cannot_serve_is_a_failure(ops: _Answering) -> None:
    ops.say(503, {"status": "unavailable", "parts": PARTS})
    shown = status(f"127.0.0.1:{ops.server_port}", "--output", "json")
    assert shown.exit_code == 1
    assert json.loads(shown.output) == {"status": "unavailable", "parts": PARTS}


def test_no_broker_is_one_line() -> None:
    listen = f"127.0.0.1:{free_port()}"
    shown = status(listen)
    assert shown.exit_code == 1
    assert shown.output == f"Error: can't reach a broker at {listen}: Connection refused\n"


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"status": "ready"}', b"7"])
def test_another_server_is_one_line(ops: _Answering, body: bytes) -> None:
    ops.say(200, body)
    shown = status(f"127.0.0.1:{ops.server_port}")
    assert shown.exit_code == 1
    assert shown.output == f"Error: the server at 127.0.0.1:{ops.server_port} is not a broker\n"


def test_a_malformed_address_is_rejected() -> None:
    shown = status("nowhere")
    assert shown.exit_code == 1
    assert "BROKER_OPS_LISTEN must be host:port" in shown.output
