"""A backup as PostgreSQL's own tools made it: found, unpacked and verified; never changed.

A folder with `base/<time>/` (pg_basebackup, plain or tar) and `wal/` (an archive of WAL), or one
file of `pg_dump --format=custom`.
"""

import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.recovery.postgres_tools import Tools

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_ARCHIVES = ("{}.tar", "{}.tar.gz")


class RestoreError(Exception):
    """The backup can't be restored; the message is one line and says why."""


@dataclass(frozen=True, slots=True)
class Dump:
    """A file of `pg_dump --format=custom`."""

    path: Path


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """A folder of `pg_basebackup`, and the archive of WAL that goes with it, if there is one."""

    path: Path
    wal: Path | None


def find_backup(path: Path) -> Dump | BaseBackup:
    """The newest base backup below a folder, by its name; or what `path` itself is.

    Raises `RestoreError`. One that is unfinished is not passed over for an older one.
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


def unpack(backup: BaseBackup, into: Path, tools: Tools) -> None:
    """Copy it to a folder that does not exist yet, and verify the copy. Raises `RestoreError`."""
    manifest = backup.path / "backup_manifest"
    if not manifest.is_file():
        raise RestoreError(
            f"{backup.path} has no backup_manifest: pg_basebackup did not finish, or was told not "
            "to make one"
        )
    try:
        _copy(backup.path, into)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise RestoreError(f"{backup.path} is truncated or can't be read: {error}") from error
    done = tools.run("pg_verifybackup", "--no-parse-wal", "--quiet", str(into))
    if done.returncode != 0:
        raise RestoreError(f"{backup.path} is damaged: {first_line(done)}")
    _refuse_others(backup, into, tools)


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
        # Before Python 3.11.4 there is none; pg_verifybackup refuses what is not in the manifest.
        opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        opened.extractall(into)  # noqa: S202  (by the filter)


def _refuse_others(backup: BaseBackup, data: Path, tools: Tools) -> None:
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


def first_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a tool complains of."""
    if done.returncode < 0:
        return f"{Path(done.args[0]).name} crashed (signal {-done.returncode})"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"error|fatal", line)]
    return re.sub(r"^\S+: (error|fatal): ", "", (wrong or lines or ["no reason given"])[0])


def check_archive(backup: BaseBackup, data: Path) -> None:
    """Raises `RestoreError` where the archive of WAL has a gap: recovery would end before it, and
    call that the end.
    """
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
    _refuse_gaps(segments, begins[1], 2**32 // max(size, 1), backup.wal)


def _refuse_gaps(
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
            raise RestoreError(f"{archive} has a gap: {name} is missing, later ones are there")
        last[timeline] = number
