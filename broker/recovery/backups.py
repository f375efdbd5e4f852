"""Finds, unpacks and verifies backups, by PostgreSQL's own programs; never changes a backup.

A backup is a folder with `base/<time>/` (pg_basebackup, plain or tar) and `wal/` (an archive of
WAL), or one file of `pg_dump --format=custom`.
"""

import os
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_ARCHIVES = ("{}.tar", "{}.tar.gz")


class ToolsError(Exception):
    """PostgreSQL's programs cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class PostgresTools:
    """The folder of the programs, and their major version."""

    folder: Path
    version: str

    def path(self, program: str) -> str:
        return str(self.folder / program)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program until it exits, with English messages."""
        return subprocess.run(  # noqa: S603  (PostgreSQL's, with our arguments)
            [self.path(program), *arguments],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def find_tools() -> PostgresTools:
    """Find the programs by `postgres` on the PATH. Raises `ToolsError`."""
    if os.geteuid() == 0:
        raise ToolsError(
            "PostgreSQL refuses to run as root: run this as the user that owns the backups"
        )
    server = shutil.which("postgres")
    if server is None:
        raise ToolsError(
            "there is no `postgres` on the PATH: add PostgreSQL's bin folder (Debian: "
            "/usr/lib/postgresql/17/bin), or restore elsewhere and run this with --restored"
        )
    folder = Path(server).resolve().parent
    done = PostgresTools(folder, "").run("postgres", "--version")
    version = re.search(r"([0-9]+)", done.stdout)
    if done.returncode != 0 or version is None:
        raise ToolsError(f"{server} does not run: {done.stderr.strip() or done.stdout.strip()}")
    return PostgresTools(folder, version[1])


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the first error that a program printed."""
    if done.returncode < 0:
        return f"{Path(done.args[0]).name} crashed (signal {-done.returncode})"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"error|fatal", line)]
    return re.sub(r"^\S+: (error|fatal): ", "", (wrong or lines or ["no reason given"])[0])


class RestoreError(Exception):
    """The backup cannot be restored; the message is one line and says why."""


@dataclass(frozen=True, slots=True)
class Dump:
    """A file of `pg_dump --format=custom`."""

    path: Path


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """A folder of `pg_basebackup`, and its archive of WAL, if there is one."""

    path: Path
    wal: Path | None


def find_backup(path: Path) -> Dump | BaseBackup:
    """Return the newest base backup below a folder, by its name, or the backup at `path` itself.

    Raises `RestoreError`. An unfinished backup is not skipped for an older one.
    """
    if path.is_file():
        return Dump(path)
    if not path.is_dir():
        raise RestoreError(f"there is no {path}")
    wal = path / "wal" if (path / "wal").is_dir() else None
    if not (path / "base").is_dir():
        if _is_base(path):
            return BaseBackup(path, wal)
        raise RestoreError(f"{path} has no folder `base`: it needs base/<time>/ and wal/")
    found = sorted(each for each in (path / "base").iterdir() if each.is_dir())
    if not found:
        raise RestoreError(f"{path / 'base'} holds no backup")
    return BaseBackup(found[-1], wal)


def _is_base(path: Path) -> bool:
    return (path / "PG_VERSION").is_file() or _archive(path, "base") is not None


def _archive(path: Path, name: str) -> Path | None:
    return next((p for kind in _ARCHIVES if (p := path / kind.format(name)).is_file()), None)


def unpack(backup: BaseBackup, into: Path, tools: PostgresTools) -> None:
    """Copy the backup to a new folder, and verify the copy. Raises `RestoreError`."""
    manifest = backup.path / "backup_manifest"
    if not manifest.is_file():
        raise RestoreError(
            f"{backup.path} has no backup_manifest: pg_basebackup did not finish, or ran with "
            "--no-manifest"
        )
    try:
        _copy(backup.path, into)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise RestoreError(f"{backup.path} is truncated or can't be read: {error}") from error
    done = tools.run("pg_verifybackup", "--no-parse-wal", "--quiet", str(into))
    if done.returncode != 0:
        raise RestoreError(f"{backup.path} is damaged: {error_line(done)}")
    _reject_unsupported(backup, into, tools)


def _copy(source: Path, into: Path) -> None:
    archive = _archive(source, "base")
    if archive is None:
        shutil.copytree(source, into, symlinks=True)
        into.chmod(0o700)
        return
    into.mkdir(mode=0o700)
    _extract(archive, into)
    wal = _archive(source, "pg_wal")
    if wal is not None:
        _extract(wal, into / "pg_wal")
    shutil.copy(source / "backup_manifest", into / "backup_manifest")


def _extract(archive: Path, into: Path) -> None:
    with tarfile.open(archive) as opened:
        # Python before 3.11.4 has no filter; pg_verifybackup rejects files not in the manifest.
        opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        opened.extractall(into)  # noqa: S202  (by the filter)


def _reject_unsupported(backup: BaseBackup, data: Path, tools: PostgresTools) -> None:
    label = data / "backup_label"
    if label.is_file() and "INCREMENTAL FROM" in label.read_text(encoding="utf-8"):
        raise RestoreError(
            f"{backup.path} is an incremental backup: make a full one of it with pg_combinebackup"
        )
    spaces = data / "tablespace_map"
    if spaces.is_file() and spaces.stat().st_size:
        raise RestoreError(f"{backup.path} has tablespaces, which a drill does not restore")
    version = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if version != tools.version:
        raise RestoreError(
            f"{backup.path} is of PostgreSQL {version}, and the tools on the PATH are of "
            f"{tools.version}"
        )


def check_archive(backup: BaseBackup, data: Path) -> None:
    """Raise `RestoreError` if the archive of WAL has a gap: recovery would silently end there."""
    if backup.wal is None:
        return
    names = sorted(path.name for path in backup.wal.iterdir())
    if any(re.fullmatch(r"[0-9A-F]{24}(\.partial)?\.(gz|lz4|zst)", name) for name in names):
        raise RestoreError(f"{backup.wal} holds compressed segments; unpack them first")
    segments = [match for name in names if (match := _SEGMENT.fullmatch(name))]
    begins = re.search(
        r"START WAL LOCATION: .* \(file ([0-9A-F]{24})\)",
        (data / "backup_label").read_text(encoding="utf-8"),
    )
    if not segments or begins is None:
        return
    size = max((backup.wal / segment[0]).stat().st_size for segment in segments)
    _reject_gaps(segments, begins[1], 2**32 // max(size, 1), backup.wal)


def _reject_gaps(
    segments: Sequence[re.Match[str]], first: str, per_log: int, archive: Path
) -> None:
    last: dict[str, int] = {}
    for segment in segments:
        if segment[0] < first:
            continue
        timeline, number = segment[1], int(segment[2], 16) * per_log + int(segment[3], 16)
        if timeline in last and number > last[timeline] + 1:
            missing = last[timeline] + 1
            name = f"{timeline}{missing // per_log:08X}{missing % per_log:08X}"
            raise RestoreError(f"{archive} has a gap: {name} is missing, but later segments exist")
        last[timeline] = number
