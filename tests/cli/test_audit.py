"""`broker audit`: its output and exit status."""

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.audit.batch_macs import audit_keys
from broker.audit.retention import AuditRetention
from broker.audit.trail import AuditTrail
from broker.cli.audit import audit
from broker.clock import SystemClock
from broker.database.database import Database
from broker.secret import Secret
from broker.telemetry.metrics import Metrics
from tests.support.audit import tamper
from tests.support.processes import clean_environment, run_broker

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef"
EVIL = "user\n2026-01-01  forged\x1b[2J\u202e"
FIELDS = [
    "id", "at", "action", "outcome", "caller", "user_id", "account_sub", "scopes", "request_id",
    "seal",
]  # fmt: skip


@pytest.fixture(autouse=True)
def written(database_url: str) -> None:
    """A hand-out, two refusals and a consent, in three batches; one user id would forge a line."""

    async def write() -> None:
        database = Database(Secret(database_url))
        await database.open()
        trail = AuditTrail(database, SystemClock(), Metrics(), audit_keys([Secret(KEY)]))
        trail.record(
            action="token_handed_out", outcome="ok", caller="calendar-sync", user_id="user-1",
            account_sub="108", scopes=("openid", "email"), request_id="r-1",
        )  # fmt: skip
        await trail.flush()
        trail.record(
            action="token_refused", outcome="not_connected", caller="mail-sync", user_id=EVIL
        )
        trail.record(action="request_refused", outcome="unauthenticated")
        await trail.flush()
        trail.record(action="consent", outcome="failed:timeout", user_id="user-1")
        await trail.flush()
        await database.close()

    asyncio.run(write())


@pytest.fixture
def settings(database_url: str) -> Mapping[str, str]:
    return {"DATABASE_URL": database_url, "SECRET_KEY": KEY}


def _run(settings: Mapping[str, str], *arguments: str) -> Result:
    only = {"SECRET_KEY": None, "DATABASE_URL": None}
    return CliRunner().invoke(audit, arguments, env={**only, **settings})


def _shown(settings: Mapping[str, str], *filters: str, command: str = "export") -> list[str]:
    result = _run(settings, command, *filters)
    assert result.exit_code == 0, result.output
    return [json.loads(line)["action"] for line in result.stdout.splitlines()]


def test_export_writes_every_record_with_stable_names(settings: Mapping[str, str]) -> None:
    lines = _run(settings, "export").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert [list(record) for record in records] == [FIELDS] * 4
    assert records[0] | {"at": "", "id": 0} == {
        "id": 0, "at": "", "action": "token_handed_out", "outcome": "ok",
        "caller": "calendar-sync", "user_id": "user-1", "account_sub": "108",
        "scopes": ["openid", "email"], "request_id": "r-1", "seal": 1,
    }  # fmt: skip
    assert records[1]["user_id"] == EVIL
    assert [record["seal"] for record in records] == [1, 2, 2, 3]
    assert all(line.isascii() for line in lines)


@pytest.mark.parametrize("command", ["export", "show"])
@pytest.mark.parametrize(
    ("filters", "actions"),
    [
        (["--user", "user-1"], ["token_handed_out", "consent"]),
        (["--user", EVIL], ["token_refused"]),
        (["--caller", "mail-sync"], ["token_refused"]),
        (["--account", "108"], ["token_handed_out"]),
        (["--action", "request_refused"], ["request_refused"]),
        (["--outcome", "failed"], ["consent"]),
        (["--outcome", "failed:timeout"], ["consent"]),
        (["--outcome", "fail"], []),
        (["--user", "user-1", "--outcome", "ok"], ["token_handed_out"]),
        (["--since", "1h", "--user", "user-1"], ["token_handed_out", "consent"]),
        (["--until", "1h"], []),
        (["--since", "2100-01-01T00:00:00Z"], []),
        (["--until", "2100-01-01T00:00:00+09:00", "--action", "consent"], ["consent"]),
    ],
)
def test_the_filters_select_records(
    settings: Mapping[str, str], command: str, filters: list[str], actions: list[str]
) -> None:
    as_json = ["--json"] if command == "show" else []
    assert _shown(settings, *as_json, *filters, command=command) == actions


def test_show_ends_with_the_newest_record_within_its_limit(settings: Mapping[str, str]) -> None:
    assert _shown(settings, "--json", "--limit", "2", command="show") == [
        "request_refused",
        "consent",
    ]


def test_text_of_a_caller_cannot_forge_a_line_on_a_terminal(settings: Mapping[str, str]) -> None:
    lines = _run(settings, "show").stdout.splitlines()
    assert len(lines) == 5
    assert lines[0].split() == [
        "AT", "ACTION", "OUTCOME", "CALLER", "USER", "ACCOUNT", "REQUEST", "BATCH", "SCOPES",
    ]  # fmt: skip
    assert r"user\n2026-01-01  forged\x1b[2J\u202e" in lines[2]
    assert all(line.isprintable() for line in lines)


def _on_a_terminal(settings: Mapping[str, str], columns: int) -> list[str]:
    """Return the lines that `broker audit show` writes to a terminal of this width."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "broker.cli", "audit", "show"]
    environ = clean_environment(settings)
    # pytest-xdist sets it for its workers, and it goes before what the terminal says.
    environ.pop("COLUMNS", None)
    with subprocess.Popen(command, cwd=ROOT, env=environ, stdout=its, stderr=its) as process:
        os.close(its)
        written = bytearray()
        with suppress(OSError):  # Linux has EIO at the end of a terminal.
            while chunk := os.read(ours, 4096):
                written += chunk
    os.close(ours)
    assert process.returncode == 0
    return written.decode().splitlines()


def test_a_narrow_terminal_gets_lines_that_fit(settings: Mapping[str, str]) -> None:
    lines = _on_a_terminal(settings, 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("Z  token_handed_out  ok")
    assert lines[1:3] == [
        "    caller calendar-sync, user user-1, account 108, request r-1, batch 1",
        "    openid email",
    ]
    assert all(line.isprintable() for line in lines)


def test_a_wide_terminal_gets_the_table(settings: Mapping[str, str]) -> None:
    assert _on_a_terminal(settings, 250) == _run(settings, "show").stdout.splitlines()


@pytest.mark.parametrize("value", ["yesterday", "3w", "", "99999999-01-01", "3d2h"])
def test_a_malformed_time_is_rejected(settings: Mapping[str, str], value: str) -> None:
    result = _run(settings, "show", "--since", value)
    assert result.exit_code == 2
    assert "use a time such as" in result.stderr


def test_an_intact_trail_is_printed_with_its_head(settings: Mapping[str, str]) -> None:
    result = _run(settings, "verify")
    assert result.exit_code == 0, result.output
    head, verdict = result.stdout.splitlines()
    assert verdict == "intact: 4 records in 3 batches"
    number = head.removeprefix("head ")
    assert _run(settings, "verify", "--head", number).exit_code == 0


def test_each_fault_has_its_line(settings: Mapping[str, str], database_url: str) -> None:
    asyncio.run(
        tamper(
            database_url,
            "UPDATE audit_events SET user_id = 'x' WHERE action = 'consent'",
            "DELETE FROM audit_events WHERE action = 'request_refused'",
        )
    )
    result = _run(settings, "verify")
    assert result.exit_code == 1
    removed, changed, _, verdict = result.stdout.splitlines()
    assert removed.startswith("removed: 1 of the 2 records of batch 2 (")
    assert changed.startswith("changed: some of the 1 record of batch 3 (")
    assert verdict == "2 faults: 3 records in 3 batches"


def test_a_cut_off_end_is_found_by_its_head(settings: Mapping[str, str], database_url: str) -> None:
    head = _run(settings, "verify").stdout.splitlines()[0].removeprefix("head ")
    asyncio.run(
        tamper(
            database_url,
            "DELETE FROM audit_events WHERE action = 'consent'",
            "DELETE FROM audit_seals WHERE number = 3",
        )
    )
    result = _run(settings, "verify", "--head", head)
    assert result.exit_code == 1
    assert "rolled back: to batch 2 (" in result.stdout
    assert "batch 3 of the given head is missing" in result.stdout


@pytest.mark.parametrize(
    "form", ["head {head}\n", '{{"message": "started"}}\n{{"head": "{head}"}}\n']
)
def test_heads_are_read_from_a_log_and_from_the_output_of_export(
    settings: Mapping[str, str], database_url: str, tmp_path: Path, form: str
) -> None:
    exported = _run(settings, "export").stderr
    head = exported.removeprefix("head ").strip()
    assert exported == f"head {head}\n"
    file = tmp_path / "heads"
    file.write_text(form.format(head=head), encoding="utf-8")
    assert _run(settings, "verify", "--heads-from", str(file)).exit_code == 0
    asyncio.run(
        tamper(
            database_url,
            "DELETE FROM audit_events WHERE action = 'consent'",
            "DELETE FROM audit_seals WHERE number = 3",
        )
    )
    result = _run(settings, "verify", "--heads-from", str(file))
    assert (result.exit_code, "rolled back: to batch 2 (" in result.stdout) == (1, True)


@pytest.mark.parametrize("text", ["", "head 3\n", "sha256:" + 64 * "0" + "\n"])
def test_a_file_without_a_head_is_rejected(
    settings: Mapping[str, str], tmp_path: Path, text: str
) -> None:
    file = tmp_path / "heads"
    file.write_text(text, encoding="utf-8")
    result = _run(settings, "verify", "--heads-from", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has no head, NUMBER:MAC, in it" in result.stderr


@pytest.mark.parametrize(
    "changes",
    [
        {"SECRET_KEY": ""},
        {"SECRET_KEY": "short"},
        {"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/none"},
    ],
)
def test_a_trail_that_cannot_be_read_is_not_reported_as_faulty(
    settings: Mapping[str, str], changes: Mapping[str, str]
) -> None:
    result = _run({**settings, **changes}, "verify")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize("head", ["3", "3:abc", "x:" + 64 * "0", ":" + 64 * "0"])
def test_a_malformed_head_is_rejected(settings: Mapping[str, str], head: str) -> None:
    result = _run(settings, "verify", "--head", head)
    assert result.exit_code == 2
    assert "is not a head: use NUMBER:MAC" in result.stderr


def test_export_needs_only_the_database(database_url: str) -> None:
    """Only DATABASE_URL is needed to read."""
    result = run_broker("audit", "export", settings={"DATABASE_URL": database_url})
    assert result.returncode == 0
    assert re.fullmatch(r"head 3:[0-9a-f]{64}\n", result.stderr)
    assert len(result.stdout.splitlines()) == 4


def test_a_closed_pipe_is_not_an_error_of_the_database(database_url: str) -> None:
    big = (
        "INSERT INTO audit_events (at, action, outcome) "
        "SELECT now(), repeat('x', 200), 'ok' FROM generate_series(1, 20000)"
    )
    asyncio.run(tamper(database_url, big))
    command = (sys.executable, "-m", "broker.cli", "audit", "export")
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATABASE_URL": database_url},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(90) == 1


def test_verify_reports_what_retention_could_not_verify(settings: Mapping[str, str]) -> None:
    """The former key was removed from SECRET_KEY before its batches were purged."""

    async def purge() -> None:
        database = Database(Secret(settings["DATABASE_URL"]))
        await database.open()
        await AuditRetention(
            database=database,
            clocks=[SystemClock()],
            metrics=Metrics(),
            keys=audit_keys([Secret("f" * 32)]),
            keep=timedelta(0),
        ).purge()
        await database.close()

    asyncio.run(purge())
    result = _run({**settings, "SECRET_KEY": f"{'f' * 32},{KEY}"}, "verify")
    assert result.exit_code == 0, result.output
    assert "3 of the batches that retention deleted could not be verified: the broker" in (
        result.stdout
    )
