"""Finding a backup, and the checks before PostgreSQL starts on it."""

import subprocess
from pathlib import Path

import pytest

from broker.recovery.backups import (
    BaseBackup,
    Dump,
    PostgresTools,
    RestoreError,
    check_archive,
    error_line,
    find_backup,
    unpack,
)
from broker.recovery.scratch_server import Login
from broker.secret import Secret

NO_TOOLS = PostgresTools(Path("/nowhere"), "18")
FIRST = "0000000100000000000000FE"


def _backups(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / "base" / name).mkdir(parents=True)
    (folder / "wal").mkdir()
    return folder


def test_the_newest_backup_is_found_by_its_name(tmp_path: Path) -> None:
    _backups(tmp_path, "20260102T000000Z", "20260103T000000Z", "20251231T000000Z")
    expected = BaseBackup(tmp_path / "base" / "20260103T000000Z", tmp_path / "wal")
    assert find_backup(tmp_path) == expected


def test_an_unfinished_backup_is_not_skipped(tmp_path: Path) -> None:
    backups = _backups(tmp_path, "20260102T000000Z", "20260103T000000Z")
    (backups / "base" / "20260102T000000Z" / "backup_manifest").touch()
    found = find_backup(backups)
    assert isinstance(found, BaseBackup)
    with pytest.raises(RestoreError, match="20260103T000000Z has no backup_manifest"):
        unpack(found, tmp_path / "data", NO_TOOLS)


def test_a_file_is_a_dump(tmp_path: Path) -> None:
    (tmp_path / "dump").touch()
    assert find_backup(tmp_path / "dump") == Dump(tmp_path / "dump")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (Path("/nowhere"), "there is no /nowhere"),
        (Path("/proc"), "/proc has no folder `base`"),
    ],
)
def test_a_path_without_a_backup_is_rejected(path: Path, words: str) -> None:
    with pytest.raises(RestoreError, match=words):
        find_backup(path)


def test_an_empty_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(RestoreError, match="holds no backup"):
        find_backup(tmp_path)


def _check(folder: Path, *segments: str) -> None:
    backup = BaseBackup(folder, folder / "wal")
    (folder / "wal").mkdir()
    for segment in segments:
        # A sparse file of 16 MiB.
        with (folder / "wal" / segment).open("wb") as file:
            file.truncate(16 * 2**20)
    (folder / "backup_label").write_text(
        f"START WAL LOCATION: 0/FE000028 (file {FIRST})\n", encoding="ascii"
    )
    check_archive(backup, folder)


@pytest.mark.parametrize(
    "segments",
    [
        [],
        [FIRST],
        [FIRST, "0000000100000000000000FF", "000000010000000100000000"],
        [FIRST, "0000000100000000000000FF.partial", "000000020000000000000000FF"],
        ["000000010000000000000001", FIRST, "00000002.history"],
        [FIRST, f"{FIRST}.00000028.backup", "0000000200000000000000FE"],
    ],
)
def test_an_archive_without_a_gap_is_accepted(tmp_path: Path, segments: list[str]) -> None:
    _check(tmp_path, *segments)


@pytest.mark.parametrize(
    ("segments", "missing"),
    [
        ([FIRST, "000000010000000100000000"], "0000000100000000000000FF"),
        (
            [FIRST, "0000000100000000000000FF", "000000010000000100000001.partial"],
            "000000010000000100000000",
        ),
    ],
)
def test_a_gap_in_the_archive_is_named(tmp_path: Path, segments: list[str], missing: str) -> None:
    with pytest.raises(RestoreError, match=f"has a gap: {missing} is missing"):
        _check(tmp_path, *segments)


def test_compressed_segments_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="compressed segments"):
        _check(tmp_path, f"{FIRST}.gz")


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("postgresql://broker:hunter2@db:5432/broker?sslmode=verify-full", ("broker", "broker")),
        ("postgresql://a%20b@h1,h2/c%2Fd?target_session_attrs=read-write", ("a b", "c/d")),
        ("postgresql:///broker?user=me&host=/run", ("me", "broker")),
    ],
)
def test_role_and_database_come_from_the_address(url: str, login: tuple[str, str]) -> None:
    assert Login.of(Secret(url)) == Login(*login)


@pytest.mark.parametrize("url", ["postgresql://h", "postgresql://broker@h", "postgresql://h/db"])
def test_an_address_without_role_or_database_is_rejected(url: str) -> None:
    with pytest.raises(RestoreError, match="must name the role and the database"):
        Login.of(Secret(url))


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (1, "pg_x: warning: w\npg_x: error: it is wrong\npg_x: detail: d\n", "it is wrong"),
        (1, "", "no reason given"),
        (-11, "", "pg_x crashed (signal 11)"),
    ],
)
def test_the_error_of_a_program_is_one_line(status: int, said: str, words: str) -> None:
    done = subprocess.CompletedProcess(["/bin/pg_x"], status, stdout="", stderr=said)
    assert error_line(done) == words
