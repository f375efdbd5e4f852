"""`broker risc`: sets up the stream at the stand-in; errors are one line without a secret."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from broker.cli.risc import risc
from broker.clock import SystemClock
from broker.google.security_events import EVENT_TYPES
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import EmbeddedPostgres

RECEIVER = "https://broker.example.com/auth/google/risc"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "DATABASE_URL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(
        "GOOGLE_REDIRECT_URI", "https://broker.example.com/auth/google/callback,http://localhost/x"
    )


@pytest.fixture
def google(shared_standin: GoogleStandin) -> GoogleStandin:
    """A stand-in with the machine's clock, which the command uses."""
    shared_standin.reset(clock=SystemClock())
    return shared_standin


@pytest.fixture
def key_file(tmp_path: Path, google: GoogleStandin) -> Path:
    file = tmp_path / "service-account.json"
    file.write_text(json.dumps(google.add_service_account()))
    return file


class Receiver(BaseHTTPRequestHandler):
    """Accepts every event."""

    received: list[str]
    arrived: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).received.append(body.decode())
        self.send_response(202)
        self.end_headers()
        type(self).arrived.set()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[str], threading.Event]]:
    """A receiver: its URL, the events that it received, and a flag for the first."""
    arrived = threading.Event()
    received: list[str] = []
    handler = type("OwnReceiver", (Receiver,), {"received": received, "arrived": arrived})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/auth/google/risc", received, arrived
    server.shutdown()
    thread.join()
    server.server_close()


def run(google: GoogleStandin, command: str, key_file: Path, *arguments: str) -> Result:
    common = ("--service-account", str(key_file), "--api", google.risc_api)
    return CliRunner().invoke(risc, [command, *common, *arguments])


def refusal(result: Result) -> str:
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "PRIVATE KEY" not in result.output
    return last


def test_register_requests_all_events_at_the_origin_of_the_redirect_uri(
    google: GoogleStandin, key_file: Path
) -> None:
    result = run(google, "register", key_file)
    assert result.exit_code == 0, result.output
    assert RECEIVER in result.stdout
    assert google.state.event_stream["delivery"]["url"] == RECEIVER
    assert google.state.event_stream["events_requested"] == list(EVENT_TYPES)


def test_register_enables_a_disabled_stream(google: GoogleStandin, key_file: Path) -> None:
    google.state.event_stream_status = "disabled"
    assert run(google, "register", key_file).exit_code == 0
    assert google.state.event_stream_status == "enabled"


def test_status_shows_the_stream_and_missing_events(google: GoogleStandin, key_file: Path) -> None:
    run(google, "register", key_file, "--receiver", "https://other.example/events")
    missing = google.state.event_stream["events_requested"].pop()
    result = run(google, "status", key_file)
    assert result.exit_code == 0
    assert "receiver: https://other.example/events" in result.stdout
    assert f"missing:  {missing}" in result.stdout


def test_status_fails_if_google_sends_nothing(google: GoogleStandin, key_file: Path) -> None:
    assert "broker risc register" in refusal(run(google, "status", key_file))
    run(google, "register", key_file)
    google.state.event_stream_status = "disabled"
    assert "not enabled" in refusal(run(google, "status", key_file))


def test_verify_lets_google_send_a_test_event(
    google: GoogleStandin, key_file: Path, receiver: tuple[str, list[str], threading.Event]
) -> None:
    url, received, arrived = receiver
    run(google, "register", key_file, "--receiver", url)
    result = run(google, "verify", key_file)
    assert result.exit_code == 0, result.output
    assert arrived.wait(60)
    assert received[0].count(".") == 2


def test_verify_waits_until_the_event_arrives(
    google: GoogleStandin,
    key_file: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    run(google, "register", key_file)
    assert "did not arrive within 0 s" in refusal(run(google, "verify", key_file, "--wait", "0"))

    def any_state(*_args: object) -> str:
        return "0" * 16

    monkeypatch.setattr("broker.cli.risc.secrets.token_hex", any_state)
    _execute(
        database_url,
        "INSERT INTO security_event_tokens VALUES "
        "('jti', '{verification}', 'broker-0000000000000000', now(), now())",
    )
    result = run(google, "verify", key_file, "--wait", "5")
    assert result.exit_code == 0, result.output
    assert "the event arrived" in result.stdout


def _execute(url: str, sql: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(sql)
        await connection.close()

    asyncio.run(execute())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "no service account's key"),
        ('{"type": "authorized_user"}', "no service account's key"),
        ('{"type": "service_account"}', "no client_email"),
        ("x" * 70_000, "too long"),
    ],
)
def test_an_unusable_key_file_is_named(
    google: GoogleStandin, tmp_path: Path, content: str, complaint: str
) -> None:
    file = tmp_path / "key.json"
    file.write_text(content)
    line = refusal(run(google, "register", file))
    assert complaint in line
    assert str(file) in line


def test_a_malformed_private_key_is_not_shown(google: GoogleStandin, key_file: Path) -> None:
    document: dict[str, Any] = json.loads(key_file.read_text())
    begin = "-----BEGIN PRIVATE KEY-----"  # pragma: allowlist secret
    document["private_key"] = f"{begin}\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    key_file.write_text(json.dumps(document))
    result = run(google, "register", key_file)
    assert "no RSA key" in refusal(result)
    assert "c2VjcmV0" not in result.output


def test_a_refusal_of_google_is_one_line(google: GoogleStandin, key_file: Path) -> None:
    google.state.service_accounts.clear()
    assert "Google answers 401: Unauthorized." in refusal(run(google, "register", key_file))
    other = run(google, "register", key_file, "--receiver", "http://broker.example.com/x")
    assert "must be an https address" in refusal(other)


def test_a_failure_of_google_is_one_line(google: GoogleStandin, key_file: Path) -> None:
    google.faults.always("risc", Fault.http(503))
    assert "http_503" in refusal(run(google, "register", key_file))
    google.faults.clear()
    google.faults.always("risc", Fault.not_json('{"error": {"message": 7', status=403))
    assert "Google answers 403: no reason given" in refusal(run(google, "status", key_file))


def test_nothing_is_sent_in_plain_http(google: GoogleStandin, key_file: Path) -> None:
    result = CliRunner().invoke(
        risc, ["status", "--service-account", str(key_file), "--api", "http://risc.example.com"]
    )
    assert "must be https" in refusal(result)


def test_without_a_redirect_uri_the_receiver_is_required(
    google: GoogleStandin, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_REDIRECT_URI")
    assert "--receiver" in refusal(run(google, "register", key_file))


def test_a_missing_key_file_is_named(google: GoogleStandin, tmp_path: Path) -> None:
    assert "No such file" in refusal(run(google, "status", tmp_path / "none.json"))


@pytest.mark.parametrize("address", ["https://[", "https://[::1/x", "nonsense", "https://\udcff/x"])
def test_a_malformed_redirect_uri_is_one_line(
    google: GoogleStandin, key_file: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("GOOGLE_REDIRECT_URI", address)
    assert "https" in refusal(run(google, "register", key_file))


def test_an_api_address_that_is_not_text_is_one_line(key_file: Path) -> None:
    result = CliRunner().invoke(
        risc, ["status", "--service-account", str(key_file), "--api", "http://localhost:9/\udcff"]
    )
    assert "--api must be https" in refusal(result)


def test_a_database_without_a_schema_is_one_line(
    google: GoogleStandin,
    key_file: Path,
    postgres: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.create_database("never_migrated"))
    run(google, "register", key_file)
    assert "run `broker migrate`" in refusal(run(google, "verify", key_file, "--wait", "0"))
    postgres.drop_database("never_migrated")


def test_an_unusable_proxy_is_one_line(
    google: GoogleStandin, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://user:hidden@host")
    result = run(google, "status", key_file)
    assert result.exit_code == 1
    assert "HTTPS_PROXY must be the address of an http or https proxy" in result.stderr
    assert "hidden" not in result.output
