"""Check 18 on a whole server: dump, data files and WAL contain no secret."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.database.schema import migrate
from broker.secret import Secret
from devstack.google_standin import Fault, GoogleStandin
from devstack.postgres import BIN_DIR, SUPERUSER, EmbeddedPostgres
from tests.acceptance.leak_search import files_below, find_leaks
from tests.security.test_security_events import claims, post, signed
from tests.support.clock import ManualClock
from tests.support.connections_page import connections_link
from tests.support.postgres import new_postgres_folder
from tests.support.world import ADA, CLIENT_SECRET, World, open_world

DATABASE = "searched"
WEBHOOK_SECRET = "whsec_cGxhbnRlZC1zZWNyZXQtb2YtdGhlLXdlYmhvb2tzLTAx"  # pragma: allowlist secret
CONTROL = "a-control-that-the-search-must-find"
FILLED = {
    "grants", "access_tokens", "pending_consents", "pending_revocations", "consent_transactions",
    "connect_links", "connections_visits", "refresh_token_lookups", "security_event_tokens",
    "webhook_events", "audit_events", "audit_seals",
}  # fmt: skip


@dataclass
class Server:
    """A PostgreSQL of the test's own, whose files it reads."""

    postgres: EmbeddedPostgres
    folder: Path

    def dump(self) -> bytes:
        command = [
            str(BIN_DIR / "pg_dump"), "--host=127.0.0.1", f"--port={self.postgres.port}",
            f"--username={SUPERUSER}", DATABASE,
        ]  # fmt: skip
        password = {"PGPASSWORD": self.postgres.password}
        return subprocess.run(
            command, env={**os.environ, **password}, capture_output=True, check=True
        ).stdout

    def files(self) -> bytes:
        """Return its whole data directory, with the WAL."""
        self.postgres.execute("CHECKPOINT")
        return files_below(self.folder / "data" / "cluster")


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = new_postgres_folder(tmp_path_factory)
    with EmbeddedPostgres(folder / "data", log_path=folder / "log") as postgres:
        postgres.create_database(DATABASE)
        await migrate(Secret(postgres.url(DATABASE)))
        yield Server(postgres, folder)


async def use_every_table(world: World) -> list[str]:
    """Use everything that stores rows; return the secrets given to browsers and callers."""
    world.standin.add_account("grace@example.com")
    await world.connect("stays")
    assert (await world.token("stays")).status_code == 200
    world.standin.faults.next("token", Fault.rotate_refresh_token())
    assert (await world.token("stays", min_ttl=86_400)).status_code == 200
    pending = await world.connect_pending("pending")
    visit = await connections_link(world, "stays")
    async with world.browser() as browser:
        assert (await browser.get(visit)).status_code == 303
        cookies = list(browser.cookies.values())
        link = (await world.create_link("under-way")).json()["url"]
        to_google = await browser.get(link)
        assert to_google.status_code == 303
        cookies += browser.cookies.values()
    world.standin.faults.always("revoke", Fault.http(503))
    await world.connect("leaves", "grace@example.com")
    assert (await world.revoke("leaves")).status_code == 204
    event = signed(world, claims(world, aud="test-client.apps.googleusercontent.com"))
    assert (await post(world, event)).status_code == 202
    await world.connect("stays")
    assert (await world.token("stays")).status_code == 200
    await asyncio.sleep(0)
    return [
        pending.confirmation,
        visit.partition("link=")[2],
        link.partition("link=")[2],
        to_google.headers["location"].partition("state=")[2].partition("&")[0],
        event,
        *cookies,
    ]


async def test_check_18_dump_files_and_wal_contain_no_secret(
    server: Server, tmp_path: Path, standin: GoogleStandin, clock: ManualClock
) -> None:
    changes = {
        "BROKER_WEBHOOK_URL": "http://127.0.0.1:9/",
        "BROKER_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }
    url = server.postgres.url(DATABASE)
    async with open_world(tmp_path, url, standin, clock, changes=changes) as world:
        brought = await use_every_table(world)
        secret_keys = [key.reveal() for key in world.settings.secret_keys]
        caller_key = world.key
    tables = server.postgres.execute(
        "SELECT string_agg(relname, ',') FROM pg_stat_user_tables WHERE n_tup_ins > 0", DATABASE
    )
    assert set(tables.strip().split(",")) >= FILLED, tables
    halves = f"'{CONTROL[:18]}' || '{CONTROL[18:]}'"
    server.postgres.execute(f"CREATE TABLE control AS SELECT {halves} AS text", DATABASE)
    places = {"dump": server.dump(), "files": server.files()}
    found = {leak.place for leak in find_leaks({"control": [CONTROL]}, places)}
    assert found == {"dump", "files"}
    assert all(ADA.encode() in content for content in places.values())
    secrets = {
        "of Google": standin.issued.all(),
        "brought by browsers": brought,
        "of the operator": [*secret_keys, CLIENT_SECRET, WEBHOOK_SECRET, caller_key],
    }
    assert find_leaks(secrets, places) == []
