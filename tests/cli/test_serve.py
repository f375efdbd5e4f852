"""`broker serve` as a process: how it rejects a start, what it serves, and how it stops."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import httpx2
import psutil
import pytest
from click.testing import CliRunner

from broker import __version__
from broker.app import IMPORTED_AFTER_START
from broker.callers.keys import new_key
from broker.cli import main
from broker.cli.environment import settings_error
from broker.settings import SettingProblem, SettingsError
from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.support.processes import CHECKOUT, BrokerProcess, Ports, run_broker
from tests.support.world import environment, stanza, write_callers

pytestmark = pytest.mark.process

START_COST = 4
"""The most that a start may cost in CPU time, as a multiple of its imports alone. The ratio is the
same on a busy machine.
"""
STOP_LIMIT_SECONDS = 9.0
"""An idle connection that delays the stop is closed after ten."""


@pytest.fixture
def env(tmp_path: Path, database_url: str, standin: GoogleStandin) -> dict[str, str]:
    """The settings of a good installation."""
    callers_file = tmp_path / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(new_key())})
    return {**environment(database_url, standin, callers_file), **Ports.free().settings()}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: EmbeddedPostgres,
    migrated_template: str,
    shared_standin: GoogleStandin,
) -> Iterator[BrokerProcess]:
    """One broker for all tests that do not change it."""
    folder, name = tmp_path_factory.mktemp("serve"), f"serve_{uuid4().hex}"
    url = postgres.create_database(name, template=migrated_template)
    callers_file = folder / "callers.yaml"
    write_callers(callers_file, {"calendar-sync": stanza(new_key())})
    with BrokerProcess(environment(url, shared_standin, callers_file), folder / "log") as broker:
        yield broker
    postgres.drop_database(name)


def _refusal(settings: Mapping[str, str]) -> str:
    """Return the error of a broker that does not start."""
    result = run_broker("serve", settings=settings)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.startswith("Error: ")
    for name in ("GOOGLE_CLIENT_SECRET", "SECRET_KEY"):
        assert not settings.get(name) or settings[name] not in result.stdout + result.stderr
    return result.stderr


# ---- rejected starts


def test_all_problems_of_the_settings_are_listed(env: dict[str, str]) -> None:
    refusal = _refusal({**env, "SECRET_KEY": "tiny-key", "DATABASE_URL": "", "GOOGLE_SCOPES": ""})
    heading, *problems = refusal.splitlines()
    assert heading == "Error: 3 settings are invalid:"
    assert all(problem.startswith("  - ") for problem in problems)
    assert [problem.split()[1].rstrip(":") for problem in problems] == [
        "GOOGLE_SCOPES",
        "DATABASE_URL",
        "SECRET_KEY",
    ]


def test_a_single_problem_has_its_own_heading() -> None:
    error = settings_error(SettingsError([SettingProblem("A", "A is missing")]))
    assert error.message == "a setting is invalid:\n  - A is missing"


def test_an_unreachable_database_is_reported(env: dict[str, str]) -> None:
    unreachable = "postgresql://broker:hunter2@127.0.0.1:1/none"
    refusal = _refusal({**env, "DATABASE_URL": unreachable})
    assert refusal == "Error: the database can't be reached: Connection refused\n"


def test_a_database_without_a_schema_is_reported_with_the_remedy(
    env: dict[str, str], postgres: EmbeddedPostgres
) -> None:
    name = f"empty_{uuid4().hex}"
    refusal = _refusal({**env, "DATABASE_URL": postgres.create_database(name)})
    postgres.drop_database(name)
    assert refusal == "Error: the database has no schema yet; run `broker migrate`\n"


def test_an_error_in_the_callers_file_is_reported_with_its_line(env: dict[str, str]) -> None:
    file = Path(env["BROKER_CALLERS_FILE"])
    write_callers(file, {"calendar-sync": stanza(new_key(), can=["token:read"])})
    refusal = _refusal(env)
    assert "callers.calendar-sync.can[0]" in refusal
    assert str(file) in refusal
    assert "tokens:read" in refusal


def test_a_misspelt_setting_is_logged(env: dict[str, str]) -> None:
    Path(env["BROKER_CALLERS_FILE"]).unlink()  # So that it exits.
    result = run_broker("serve", settings={**env, "BROKER_LOGLEVEL": "hunter2"})
    (line,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert line["event"] == "setting_questionable"
    assert line["warning"].endswith("did you mean BROKER_LOG_LEVEL?")
    assert "hunter2" not in result.stdout


def test_a_remote_database_without_verified_tls_is_logged(env: dict[str, str]) -> None:
    Path(env["BROKER_CALLERS_FILE"]).unlink()  # So that it exits.
    elsewhere = "postgresql://broker:hunter2@db.invalid/broker"
    result = run_broker("serve", settings={**env, "DATABASE_REPLICA_URL": elsewhere})
    (line,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (line["level"], line["event"]) == ("WARNING", "database_certificate_unverified")
    assert line["setting"] == "DATABASE_REPLICA_URL"
    assert "sslmode=verify-full" in line["remedy"]
    assert "hunter2" not in result.stdout


def test_the_wrong_kind_of_credentials_is_reported(env: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"type": "service_account", "private_key": "hunter2"}))
    changes = {"BROKER_SECRET_SOURCE": "file", "GOOGLE_CREDENTIALS_FILE": str(file)}
    refusal = _refusal({**env, **changes})
    assert refusal.startswith("Error: the OAuth client can't be read: ")
    assert "a service account's key" in refusal
    assert "hunter2" not in refusal


def test_a_port_in_use_is_reported(env: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        refusal = _refusal({**env, "BROKER_OPS_LISTEN": address})
    assert refusal == f"Error: can't listen on {address}: Address already in use\n"


# ---- routes


def test_a_start_costs_little_more_than_its_imports(running: BrokerProcess) -> None:
    used = psutil.Process(running.pid).cpu_times()
    code = "import broker.cli.serve, broker.app, time; print(time.process_time())"
    imported = subprocess.check_output((sys.executable, "-c", code), cwd=CHECKOUT, text=True)
    assert used.user + used.system < START_COST * float(imported)


def test_a_start_does_not_import_what_is_needed_later() -> None:
    absent = [*IMPORTED_AFTER_START, "hvac", "psutil", "broker.doctor", "devstack"]
    code = "import sys, broker.cli.serve; print(*sys.modules)"
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split())
    assert "broker.app" in imported
    assert not imported & {*absent, "authlib.oauth2", "joserfc", "cryptography.x509"}


def _get(url: str) -> httpx2.Response:
    return httpx2.get(url, timeout=10, trust_env=False, headers={"Accept": "text/html"})


PATHS = {
    "public": ["/auth/google/callback", "/auth/google/authorize/1", "/auth/google/static/icon.svg"],
    "internal": ["/v1/users/1/token", "/v1/users/1/grants"],
    "ops": ["/metrics", "/livez", "/readyz"],
}


def _url(broker: BrokerProcess, listener: str) -> str:
    return str(getattr(broker, f"{listener}_url"))


@pytest.mark.parametrize(
    ("listener", "path"), [(listener, path) for listener in PATHS for path in PATHS[listener]]
)
def test_each_listener_serves_its_own_paths(
    running: BrokerProcess, listener: str, path: str
) -> None:
    assert _get(_url(running, listener) + path).status_code != 404


@pytest.mark.parametrize(
    ("listener", "path"),
    [(one, path) for one in PATHS for other in PATHS if other != one for path in PATHS[other]],
)
def test_no_listener_serves_a_path_of_another(
    running: BrokerProcess, listener: str, path: str
) -> None:
    assert _get(_url(running, listener) + path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1/users/1/token", "/auth/google/callback/"])
def test_the_public_listener_answers_browsers_with_a_page(
    running: BrokerProcess, path: str
) -> None:
    answer = _get(running.public_url + path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("listener", ["internal", "ops"])
@pytest.mark.parametrize("path", ["/", "/nothing", "/livez/", "/v1/users/1/token/"])
def test_the_other_listeners_answer_with_a_problem(
    running: BrokerProcess, listener: str, path: str
) -> None:
    answer = _get(_url(running, listener) + path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_log_has_only_json_lines(running: BrokerProcess) -> None:
    _get(running.public_url)
    lines = [json.loads(line) for line in running.output.splitlines()]
    (serving,) = [line for line in lines if line["event"] == "serving"]
    assert serving["version"] == __version__
    assert serving["public"] == f"127.0.0.1:{running.ports.public}"


# ---- stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_soon(
    env: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    broker = BrokerProcess(env, tmp_path / "log")
    broker.start()
    assert broker.pid is not None
    with httpx2.Client(trust_env=False) as idle:
        idle.get(broker.ops_url + "/livez")  # Its connection stays open.
        began = time.monotonic()
        os.kill(broker.pid, number)
        assert _status_of_the_ended(broker) == 0
    assert time.monotonic() - began < STOP_LIMIT_SECONDS
    events = [json.loads(line)["event"] for line in broker.output.splitlines()]
    assert events[-2:] == ["stopping", "stopped"]


def _status_of_the_ended(broker: BrokerProcess) -> int | None:
    deadline = time.monotonic() + STOP_LIMIT_SECONDS
    while broker.pid is not None and time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            broker.readiness()
    assert broker.pid is None, broker.output
    return broker.stop()


# ---- the command itself


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_the_commands(option: str) -> None:
    result = CliRunner().invoke(main, [option])
    assert result.exit_code == 0
    for command in ("serve", "migrate", "doctor", "callers"):
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", ["serve", "migrate", "doctor", "callers"])
def test_every_command_has_its_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: main {command}")


def test_every_command_has_the_short_option_too() -> None:
    result = run_broker("serve", "-h", settings={})
    assert (result.returncode, result.stderr) == (0, "")
    assert "until SIGTERM or Ctrl-C" in result.stdout


def test_the_version_is_printed() -> None:
    result = run_broker("--version", settings={})
    assert (result.returncode, result.stdout) == (0, f"broker, version {__version__}\n")


def test_an_unknown_command_is_rejected() -> None:
    result = CliRunner().invoke(main, ["sreve"])
    assert result.exit_code == 2
    assert "No such command 'sreve'" in result.stderr
