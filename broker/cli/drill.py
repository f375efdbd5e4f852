"""`broker drill`: restores the newest backup into a temporary PostgreSQL, and checks it."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from broker.cli.database import database_errors
from broker.cli.environment import from_environment
from broker.clock import rfc3339
from broker.recovery.backups import BaseBackup, RestoreError, ToolsError, find_backup, find_tools
from broker.recovery.drill import (
    DrillError,
    DrillResult,
    ReportStep,
    check_restored,
    reject_live_database,
)
from broker.recovery.scratch_server import Login, restored
from broker.secret import Secret
from broker.settings import load_storage


@click.command(short_help="Restore the newest backup into a temporary PostgreSQL, and check it.")
@click.option(
    "--backups",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A folder with base/<time>/ and wal/, one base backup, or a file in pg_dump's custom "
    "format.",
)
@click.option(
    "--restored",
    "is_restored",
    is_flag=True,
    help="Only check DATABASE_URL, a scratch database into which a backup was restored. The drill "
    "writes to it: drop it afterwards.",
)
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="After a success, write Prometheus metrics to this file (for node_exporter's textfile "
    "collector).",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="The time limit of PostgreSQL's recovery.",
)
def drill(backups: Path | None, *, is_restored: bool, textfile: Path | None, patience: int) -> None:
    """Check that a backup can be restored: restore it, migrate it, open a row of each key, verify
    the audit trail, and serve a token. Print how long that took and how old the backup is.

    \b
      --backups PATH  starts a temporary PostgreSQL in $TMPDIR, with the programs
                      on the PATH. Only role and database are taken from
                      DATABASE_URL; nothing connects to its host
      --restored      checks a backup that another tool restored at DATABASE_URL

    The drill never calls Google. Needs DATABASE_URL and SECRET_KEY. Exits with 0 on success, and
    with 1 and one line about the first failure otherwise.
    """
    if (backups is None) == (not is_restored):
        raise click.UsageError("give either --backups PATH or --restored")
    url, keys = from_environment(load_storage)
    started, started_at = time.monotonic(), datetime.now(UTC)

    def report(line: str) -> None:
        click.echo(f"{time.monotonic() - started:7.1f} s  {line}")

    with _interrupted_by_sigterm(), _errors(), database_errors():
        _require_temporary_folder()
        if backups is None:
            result = asyncio.run(_check_scratch_database(url, keys, report))
        else:
            tools, login, backup = find_tools(), Login.of(url), find_backup(backups)
            report(f"restoring {backup.path}")
            if isinstance(backup, BaseBackup) and backup.wal is None:
                report("there is no folder wal/: commits after the base backup are lost")
            with restored(backup, login, tools, timeout_seconds=patience) as address:
                report("restored")
                result = asyncio.run(check_restored(address, keys, report))
        rto = time.monotonic() - started
        rpo = max(0.0, (started_at - result.newest_commit).total_seconds())
        click.echo(f"RTO {rto:.1f} s, from the start of this drill to a token")
        click.echo(f"RPO {rpo:.1f} s, since the newest commit ({rfc3339(result.newest_commit)})")
        if textfile is not None:
            _write_metrics(textfile, rto=rto, rpo=rpo)


async def _check_scratch_database(
    url: Secret, keys: Sequence[Secret], report: ReportStep
) -> DrillResult:
    await reject_live_database(url)
    return await check_restored(url, keys, report)


def _require_temporary_folder() -> None:
    """Raise `RestoreError` if there is none; `--restored` needs it for a callers file."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise RestoreError(
            "there is no writable folder for temporary files: set TMPDIR to one; a drill with "
            "--backups needs as much space there as the database takes"
        ) from error


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end a drill like Ctrl-C, so that it stops and removes its PostgreSQL.

    The exception is raised here: in a background job of a script SIGINT is ignored.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn the errors of a drill into one line. Raises `click.ClickException`."""
    try:
        yield
    except (ToolsError, RestoreError, DrillError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.strerror}: {error.filename}") from error


def _write_metrics(file: Path, *, rto: float, rpo: float) -> None:
    """Write all metrics atomically: a reader never sees half a file."""
    values = {
        "broker_drill_last_success_timestamp_seconds": (
            "Time of the last successful drill.",
            f"{time.time():.0f}",
        ),
        "broker_drill_rto_seconds": ("From the start of that drill to a token.", f"{rto:.1f}"),
        "broker_drill_rpo_seconds": (
            "Age of the newest commit in the backup at the start of that drill.",
            f"{rpo:.1f}",
        ),
    }
    text = "".join(
        f"# HELP {name} {about}\n# TYPE {name} gauge\n{name} {value}\n"
        for name, (about, value) in values.items()
    )
    with tempfile.NamedTemporaryFile(
        "w", dir=file.absolute().parent, prefix=f".{file.name}.", delete=False
    ) as written:
        written.write(text)
    Path(written.name).chmod(0o644)
    Path(written.name).replace(file)
