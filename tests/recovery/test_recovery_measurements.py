"""Measures RPO and RTO of each topology when a PostgreSQL is lost under load.

Prints a row of the table in docs/how-to/disaster-recovery.md for each. The commits are connect
links that a broker acknowledged. The RTO runs from the loss; the operator acts immediately.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from devstack.google_standin import GoogleStandin
from devstack.postgres import BIN_DIR, EmbeddedPostgres, system_user
from tests.chaos.fleet import Fleet, User, running_fleet, token_url
from tests.chaos.standby import either, promote, streaming_replica
from tests.recovery.distant_port import distant_port
from tests.recovery.installation import (
    DATABASE,
    archiving_server,
    base_backup,
    owned,
    recovered_by_hand,
)
from tests.support.processes import BrokerProcess, wait_until
from tests.support.scopes import CALENDAR_READONLY

pytestmark = pytest.mark.chaos

FILLER_ROWS = 1_500_000
"""Some 100 MiB."""

UNDER_LOAD_SECONDS = 13.0
ARCHIVE_TIMEOUT = 10
DURABLE = {"fsync": "on", "full_page_writes": "on"}


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleStandin]:
    standin = GoogleStandin()
    standin.start()
    yield standin
    standin.stop()


@dataclass
class Load:
    """Requests connect links without a pause, and keeps those that the broker acknowledged."""

    fleet: Fleet
    acknowledged: dict[str, float] = field(default_factory=dict)
    """The time of each acknowledgement, by the link's id."""
    _is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _ask(self) -> None:
        with httpx2.Client(timeout=30, trust_env=False) as http:
            while not self._is_over.is_set():
                link = make_link(http, self.fleet.replicas[0], self.fleet)
                if link is not None:
                    self.acknowledged[link] = time.monotonic()


def make_link(http: httpx2.Client, broker: BrokerProcess, fleet: Fleet) -> str | None:
    """Request a link, and return its id if the broker acknowledges it."""
    try:
        answer = http.post(
            f"{broker.internal_url}/v1/users/somebody/connect-links",
            json={"scopes": [CALENDAR_READONLY]},
            headers=fleet.authorization,
        )
    except httpx2.TransportError:
        return None
    return str(answer.json()["id"]) if answer.status_code == 201 else None


@dataclass
class Lost:
    """The cost of a loss."""

    acknowledged: int
    missing: int
    rpo: float
    rto: float


def measure(
    load: Load,
    lose: Callable[[], None],
    come_back: Callable[[], tuple[EmbeddedPostgres, BrokerProcess]],
    user: User,
) -> Lost:
    """Lose the primary under load, recover, and count what is missing."""
    with load.running():
        time.sleep(UNDER_LOAD_SECONDS)
        lose()
        lost_at = time.monotonic()
    server, broker = come_back()
    _wait_for_service(load.fleet, broker, user)
    back_at = time.monotonic()
    there = set(server.execute("SELECT id FROM connect_links", DATABASE).splitlines())
    before = {link: at for link, at in load.acknowledged.items() if at <= lost_at}
    missing = [at for link, at in before.items() if link not in there]
    rpo = lost_at - min(missing) if missing else 0.0
    return Lost(len(before), len(missing), rpo, back_at - lost_at)


def _wait_for_service(fleet: Fleet, broker: BrokerProcess, user: User) -> None:
    """Wait until a commit is acknowledged and a new token from Google is handed out."""

    def serves() -> bool:
        try:
            token = fleet.http.get(
                token_url(broker, user), headers=fleet.authorization, params={"min_ttl": 3600}
            )
        except httpx2.TransportError:
            return False
        return token.status_code == 200 and make_link(fleet.http, broker, fleet) is not None

    wait_until("it serves again", serves, within=120)


def _report(capsys: pytest.CaptureFixture[str], topology: str, lost: Lost) -> None:
    with capsys.disabled():
        sys.stdout.write(
            f"\n| {topology} | {lost.missing} of {lost.acknowledged} commits, "
            f"{lost.rpo:.1f} s | {lost.rto:.1f} s |\n"
        )


def _fill(server: EmbeddedPostgres) -> None:
    server.execute(
        "CREATE TABLE filler AS "
        f"SELECT md5(i::text) AS text FROM generate_series(1, {FILLER_ROWS}) i",
        DATABASE,
    )


@contextmanager
def _single(
    folder: Path, google: GoogleStandin, *, receives: bool
) -> Iterator[tuple[Fleet, EmbeddedPostgres, Path]]:
    """Yield a broker on a server with a WAL archive and a base backup."""
    archive = owned(folder / "wal")
    server = (
        EmbeddedPostgres(folder / "server", options=DURABLE)
        if receives
        else archiving_server(
            folder / "server", archive, archive_timeout=str(ARCHIVE_TIMEOUT), **DURABLE
        )
    )
    with server, ExitStack() as stack:
        server.create_database(DATABASE)
        if receives:
            # Before the base backup: WAL between the two would be missing.
            stack.enter_context(_receiving(server, archive))
        fleet = stack.enter_context(running_fleet(folder, server, DATABASE, google, replicas=1))
        google.behave(token_lifetime=3600)
        _fill(server)
        base_backup(server, folder / "base", "--format=tar", "--gzip")
        yield fleet, server, archive


@contextmanager
def _receiving(server: EmbeddedPostgres, archive: Path) -> Iterator[None]:
    """Run pg_receivewal, which writes all WAL as it is produced."""
    user = system_user()
    process = subprocess.Popen(
        [
            *user.prefix, str(BIN_DIR / "pg_receivewal"), f"--directory={archive}",
            "--synchronous", "--no-loop",
            f"--dbname=host=127.0.0.1 port={server.port} user=broker application_name=archive",
        ],
        env={**os.environ, "PGPASSWORD": server.password},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    streaming = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'archive'"
    try:
        wait_until("it receives", lambda: server.execute(streaming) == "1", within=15)
        yield
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.parametrize("how", ["archive_command", "pg_receivewal", "synchronous pg_receivewal"])
def test_a_single_server_is_recovered_from_its_backup(
    tmp_path: Path, google: GoogleStandin, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    google.reset()
    receives = how != "archive_command"
    with (
        ExitStack() as stack,
        _single(tmp_path, google, receives=receives) as (fleet, server, archive),
    ):
        (user,) = fleet.connect()
        if how.startswith("synchronous"):
            server.execute("ALTER SYSTEM SET synchronous_standby_names = 'archive'")
            server.execute("SELECT pg_reload_conf()")

        def come_back() -> tuple[EmbeddedPostgres, BrokerProcess]:
            restored = stack.enter_context(
                recovered_by_hand(
                    tmp_path / "base",
                    archive,
                    tmp_path / "restored",
                    server.password,
                    is_durable=True,
                )
            )
            settings = {**fleet.replicas[0].settings, "DATABASE_URL": restored.url(DATABASE)}
            return restored, stack.enter_context(BrokerProcess(settings, tmp_path / "new.log"))

        lost = measure(Load(fleet), lambda: server.stop("immediate"), come_back, user)
        _report(capsys, f"single, {how}", lost)
        assert lost.acknowledged > 100
        assert lost.rpo < (ARCHIVE_TIMEOUT + 5 if how == "archive_command" else 2)
        assert how != "archive_command" or lost.missing
        assert not how.startswith("synchronous") or not lost.missing
        assert lost.rto < 120


@pytest.mark.parametrize("how", ["asynchronous", "synchronous"])
@pytest.mark.parametrize("where", ["same region", "two regions, 40 ms each way"])
def test_a_standby_takes_over(
    tmp_path: Path, google: GoogleStandin, capsys: pytest.CaptureFixture[str], how: str, where: str
) -> None:
    google.reset()
    one_way = 0.04 if where.startswith("two") else 0.0
    with ExitStack() as stack:
        primary = EmbeddedPostgres(tmp_path / "primary", options=DURABLE)
        stack.enter_context(primary)
        primary.create_database(DATABASE)
        through = stack.enter_context(distant_port(primary.port, one_way_seconds=one_way))
        standby = streaming_replica(primary, tmp_path / "standby", through=through)
        stack.callback(standby.stop, "immediate")
        if how == "synchronous":
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
        fleet = stack.enter_context(
            running_fleet(
                tmp_path,
                primary,
                DATABASE,
                google,
                replicas=1,
                database_url=either(primary, standby, DATABASE) if not one_way else None,
            )
        )
        google.behave(token_lifetime=3600)
        (user,) = fleet.connect()

        def come_back() -> tuple[EmbeddedPostgres, BrokerProcess]:
            promote(standby)
            if not one_way:
                return standby, fleet.replicas[0]
            # The region is lost with its brokers; those of the other region start now.
            settings = {**fleet.replicas[0].settings, "DATABASE_URL": standby.url(DATABASE)}
            return standby, stack.enter_context(BrokerProcess(settings, tmp_path / "new.log"))

        lost = measure(Load(fleet), lambda: primary.stop("immediate"), come_back, user)
        _report(capsys, f"{where}, {how} standby", lost)
        assert lost.acknowledged > 50
        assert lost.rpo < 2
        assert how != "synchronous" or not lost.missing
        assert lost.rto < 60
