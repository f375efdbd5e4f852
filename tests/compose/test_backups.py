"""Backups of the running installation: created, kept, drilled with, and restored."""

import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.compose.consenting import connect_user
from tests.compose.installation import Installation, commands
from tests.support.processes import wait_until

pytestmark = pytest.mark.container

_BACKUP = ("bash", "/usr/local/bin/backup")


def _bases(installation: Installation) -> list[str]:
    return installation.run("exec", "-T", "backup", "ls", "/backups/base").split()


def _inside(installation: Installation, service: str, script: str) -> int:
    return installation.compose("exec", "-T", service, "bash", "-c", script).returncode


def test_a_restart_creates_no_second_base_backup(installation: Installation) -> None:
    before = _bases(installation)
    assert before
    installation.run("restart", "backup")
    # It checks immediately what is due.
    wait_until(
        "it sleeps until the next one is due",
        lambda: "sleep" in installation.engine.docker(
            "top", installation.container("backup").id, "-o", "pid,args"
        ),
        within=30,
    )  # fmt: skip
    assert _bases(installation) == before


def test_old_backups_are_removed_and_an_unfinished_one_is_not_among_the_rest(
    installation: Installation,
) -> None:
    young, old = (
        (datetime.now(UTC) - timedelta(days=days)).strftime("%Y%m%dT%H%M%SZ") for days in (6, 8)
    )
    assert _inside(
        installation,
        "backup",
        f"cd /backups/base && newest=$(ls | tail -n 1) && for name in {young} {old}; do "
        "mkdir $name && cp $newest/backup_label $name/; done && mkdir /backups/unfinished",
    ) == 0  # fmt: skip
    installation.run("exec", "-T", "backup", *_BACKUP, "now")
    assert young in _bases(installation)
    assert old not in _bases(installation)
    assert all(re.fullmatch(r"\d{8}T\d{6}Z", name) for name in _bases(installation))
    assert _inside(installation, "backup", f"rm -r /backups/base/{young}") == 0


def test_the_health_checks_fail_without_backups(installation: Installation) -> None:
    check_base, check_wal = (" ".join((*_BACKUP, f"check-{what}")) for what in ("base", "wal"))
    assert _inside(installation, "backup", check_base) == 0
    assert _inside(installation, "backup", f"mv /backups/base /backups/away && {check_base}") == 1
    assert _inside(installation, "backup", "mv /backups/away /backups/base") == 0
    assert _inside(installation, "wal", check_wal) == 0
    # Renamed, not moved: pg_receivewal keeps writing to the folder.
    hide = "for each in /backups/wal/*; do mv $each /backups/wal/hidden-${each##*/}; done"
    show = "cd /backups/wal && for each in hidden-*; do mv $each ${each#hidden-}; done"
    assert _inside(installation, "wal", f"{hide}; {check_wal}") == 1
    assert _inside(installation, "wal", show) == 0
    assert _inside(installation, "wal", check_wal) == 0


def test_a_drill_succeeds_and_prometheus_has_the_time(installation: Installation) -> None:
    connect_user(installation)
    installation.run("restart", "drill")
    log = installation.container("drill")
    wait_until("the drill succeeded", lambda: "RTO " in log.logs(), within=90)
    assert "a token was served" in log.logs()
    wait_until("Prometheus knows", lambda: _last_success(installation) > 0, within=60)
    assert abs(_last_success(installation) - time.time()) < 600


def _last_success(installation: Installation) -> float:
    found = installation.prometheus(
        "/api/v1/query", query="broker_drill_last_success_timestamp_seconds"
    )["result"]
    return float(found[0]["value"][1]) if found else 0


def test_a_running_database_is_not_restored_over(installation: Installation) -> None:
    user = connect_user(installation)
    done = installation.compose("run", "--rm", "restore")
    assert done.returncode == 1
    assert "PostgreSQL runs. Nothing was changed" in done.stderr
    installation.run("pause", "postgres")
    try:
        done = installation.compose("run", "--rm", "restore")
    finally:
        installation.run("unpause", "postgres")
    assert done.returncode == 1
    assert "postmaster.pid is there" in done.stderr
    wait_until(
        "the database is unchanged",
        lambda: installation.api().token(user).status == 200,
        within=60,
    )


def test_a_restore_to_a_time_revives_no_grant_that_was_revoked_after_it(
    installation: Installation,
) -> None:
    stop, restore, replay, start = commands("## Restore")
    revoked, kept = connect_user(installation), connect_user(installation)
    installation.run("exec", "-T", "backup", *_BACKUP, "now")
    after_base = connect_user(installation)
    moment = _now(installation)
    assert installation.api().revoke(revoked).status == 204
    lost = connect_user(installation)
    (export,) = [block for block in commands("## Back up") if "audit export" in block]
    wait_until("the revocation is exported", lambda: _exported(installation, export, revoked))
    installation.run_in_terminal(stop)
    for given, why in (
        ("nonsense", "nonsense is not a time"),
        ("2020-01-01", "there is no base backup from before 2020-01-01"),
        ("2099-01-01", "recovery ended before configured recovery target was reached"),
    ):
        done = installation.compose("run", "--rm", "restore", given)
        assert done.returncode == 1
        assert why in done.stderr, done.stderr
    output = installation.run_in_terminal(
        restore.replace("run --rm restore", f"run --rm restore '{moment}'")
    )
    assert "restored" in output
    replayed = installation.run_in_terminal(replay)
    assert f"user {revoked}, " in replayed, replayed
    installation.run_in_terminal(start, within=240)
    api = installation.api()
    assert api.token(kept).status == 200
    assert api.token(after_base).status == 200
    assert api.token(revoked).status == 404
    assert api.token(lost).status == 404
    assert len(_bases(installation)) == 1
    verified = installation.compose("exec", "-T", "broker", "broker", "audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def _now(installation: Installation) -> str:
    """Return PostgreSQL's time, between two commits."""
    output = installation.run(
        *("exec", "-T", "postgres", "psql", "--username=postgres", "--no-align", "--tuples-only"),
        *("--command=SELECT clock_timestamp()",),
    )
    return output.strip()


def _exported(installation: Installation, export: str, user: str) -> bool:
    installation.run_in_terminal(export)
    lines = (installation.folder / "audit-export.jsonl").read_text().splitlines()
    return any('"grant_revoked"' in line and user in line for line in lines)
