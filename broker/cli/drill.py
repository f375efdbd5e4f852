"""`broker drill`: restores the newest backup into a temporary PostgreSQL, and serves a token."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import click

from broker.cli.complaints import settings_complaint
from broker.clock import rfc3339
from broker.database.database import StorageUnavailable
from broker.database.schema import SchemaError
from broker.recovery.backups import BaseBackup, RestoreError, find_backup
from broker.recovery.drill import Drilled, DrillError, Tell, check_restored, refuse_live
from broker.recovery.postgres_tools import ToolsError, find_tools
from broker.recovery.scratch_server import Login, restored
from broker.secret import Secret
from broker.settings import SettingsError, load_storage


@click.command(short_help="Restore the newest backup into a temporary PostgreSQL, and check it.")
@click.option(
    "--backups",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A folder with base/<time>/ and wal/, one base backup, or a file of pg_dump's custom "
    "format.",
)
@click.option(
    "--restored",
    "is_restored",
    is_flag=True,
    help="DATABASE_URL is a scratch database with a backup restored into it: only check that. It "
    "is written to; throw it away afterwards.",
)
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write Prometheus metrics of a drill that went well here (node_exporter's textfile "
    "collector).",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long PostgreSQL may take to recover.",
)
def drill(backups: Path | None, *, is_restored: bool, textfile: Path | None, patience: int) -> None:
    """Check that a backup can be restored: restore it, migrate it, open a row of each key, verify
    the audit trail, serve a token, and print how long that took and how old the backup is.

    \b
      --backups PATH  starts a PostgreSQL of its own for it, in $TMPDIR, with the
                      programs on the PATH. DATABASE_URL only names role and
                      database; nothing connects to its host
      --restored      checks what was restored at DATABASE_URL by others

    Google is never called. Needs DATABASE_URL and SECRET_KEY. Exits with 0 if all went well, else
    with 1 and one line that says what did not.
    """
    if (backups is None) == (not is_restored):
        raise click.UsageError("give either --backups PATH or --restored")
    try:
        url, keys = load_storage(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    began, began_at = time.monotonic(), datetime.now(UTC)

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - began:7.1f} s  {line}")

    with _one_line():
        _require_temporary_folder()
        if backups is None:
            drilled = asyncio.run(_check_restored_by_others(url, keys, tell))
        else:
            tools, login, backup = find_tools(), Login.of(url), find_backup(backups)
            tell(f"restoring {backup.path}")
            if isinstance(backup, BaseBackup) and backup.wal is None:
                tell("there is no folder wal/: nothing later than the base backup comes back")
            with restored(backup, login, tools, patience_seconds=patience) as address:
                tell("restored")
                drilled = asyncio.run(check_restored(address, keys, tell))
        rto = time.monotonic() - began
        rpo = max(0.0, (began_at - drilled.newest_commit).total_seconds())
        click.echo(f"RTO {rto:.1f} s, from the start of this drill to a token")
        click.echo(f"RPO {rpo:.1f} s, since the newest commit ({rfc3339(drilled.newest_commit)})")
        if textfile is not None:
            _write_metrics(textfile, rto=rto, rpo=rpo)


async def _check_restored_by_others(url: Secret, keys: Sequence[Secret], tell: Tell) -> Drilled:
    await refuse_live(url)
    return await check_restored(url, keys, tell)


def _require_temporary_folder() -> None:
    """`--restored` writes a callers file there, too. Raises `RestoreError`."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        raise RestoreError(
            "there is no writable folder for temporary files: set TMPDIR to one; a drill with "
            "--backups needs as much room there as the database takes"
        ) from error


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever goes wrong is one line. Raises `click.ClickException`."""
    try:
        yield
    except (ToolsError, RestoreError, DrillError, SchemaError) as error:
        raise click.ClickException(str(error)) from error
    except StorageUnavailable as error:
        raise click.ClickException(f"the database can't be reached: {error}") from error
    except asyncpg.PostgresError as error:
        raise click.ClickException(f"PostgreSQL refuses: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{error.strerror}: {error.filename}") from error


def _write_metrics(file: Path, *, rto: float, rpo: float) -> None:
    """All of them or none: whoever reads it never sees half a file."""
    values = {
        "broker_drill_last_success_timestamp_seconds": (
            "When a drill last went well.",
            f"{time.time():.0f}",
        ),
        "broker_drill_rto_seconds": ("From the start of that drill to a token.", f"{rto:.1f}"),
        "broker_drill_rpo_seconds": (
            "How old the newest commit in the backup was at the start of that drill.",
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
