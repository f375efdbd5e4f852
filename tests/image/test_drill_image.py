"""The image of the chart's drill, run as its CronJob runs it, on backups of a real PostgreSQL."""

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from broker.database.schema import migrate
from broker.secret import Secret
from devstack.google_standin import GoogleStandin
from tests.chart.rendering import MINIMAL, merged, render, the
from tests.chart.switches import DRILL
from tests.containers.build import Builder
from tests.containers.engine import DOCKER_PATH, Container, Engine
from tests.containers.parts import wheels
from tests.support.clock import ManualClock
from tests.support.waiting import eventually
from tests.support.world import open_world

pytestmark = pytest.mark.container

BROKER, IMAGE = "token-broker:on-postgres", "token-broker-drill:test"
OWNER = 999
BASE = "base/20260101T000000Z"


@pytest.fixture(scope="module")
def drill_image(builder: Builder, container_parts: Path) -> str:
    """Built by `make drill-image`, on a broker's image whose Debian has PostgreSQL already."""
    builder.build(BROKER, wheels(container_parts), "--build-arg", "BASE=drill-base")
    subprocess.run(
        [
            *("make", "--no-print-directory", "drill-image", f"IMAGE={BROKER}"),
            *(f"DRILL_IMAGE={IMAGE}", "DRILL_ARGS=--build-arg POSTGRES=17 --network host"),
        ],
        cwd=builder.source.folder,
        env={**os.environ, **builder.engine.environment, "PATH": DOCKER_PATH},
        check=True,
        timeout=300,
    )
    return IMAGE


def _owned(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    os.chown(folder, OWNER, OWNER)
    return folder


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, engine: Engine, drill_image: str
) -> Iterator[tuple[Container, Path, int]]:
    """A PostgreSQL with the locale of PostgreSQL's own image, and a folder for backups."""
    folder = tmp_path_factory.mktemp("server")
    folder.chmod(0o755)
    data, backups = _owned(folder / "data"), _owned(folder / "backups")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = (
        "initdb --pgdata=/mnt/pg --username=broker --auth=trust --locale=en_US.UTF-8 --no-sync "
        f"&& exec postgres -D /mnt/pg -c listen_addresses=127.0.0.1 -c port={port} "
        "-c unix_socket_directories=/tmp -c fsync=off"
    )
    container = engine.start(
        *("--network", "host", "--user", f"{OWNER}:{OWNER}", "--read-only", "--tmpfs", "/tmp"),
        *("--volume", f"{data}:/mnt", "--volume", f"{backups}:/backups"),
        *("--entrypoint", "sh", drill_image, "-c", start),
    )
    yield container, backups, port
    container.remove()


@dataclass(frozen=True)
class Backups:
    """The backups that a drill gets."""

    engine: Engine
    image: str
    folder: Path
    secrets: Path

    def drill(self, *arguments: str, user: int = OWNER) -> subprocess.CompletedProcess[str]:
        """Run it as the chart's CronJob does: hardened, with secrets as files, and without a
        network.
        """
        spec = the(render(merged(MINIMAL, DRILL)), "CronJob")["spec"]
        pod = spec["jobTemplate"]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsUser"] == OWNER
        (container,) = pod["containers"]
        environment = [f"--env={one['name']}={one['value']}" for one in container["env"]]
        places = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        return self.engine.run(
            *("run", "--rm", "--read-only", "--user", f"{user}:{user}", "--cap-drop", "ALL"),
            # The group is the pod's fsGroup.
            *("--security-opt", "no-new-privileges", "--group-add", str(OWNER)),
            *("--network", "none", *environment),
            # As a kubelet creates an emptyDir for that group.
            *("--tmpfs", f"{places['work']}:uid=0,gid={OWNER},mode=2770,size=1g"),
            *("--volume", f"{self.folder}:{places['backups']}:ro"),
            *("--volume", f"{self.secrets}:{places['secrets']}:ro"),
            *(self.image, *(arguments or container["args"])),
        )


@pytest_asyncio.fixture(scope="module")
async def backups(
    server: tuple[Container, Path, int],
    drill_image: str,
    google: GoogleStandin,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Backups]:
    """A base backup and a dump of a database in which a user has consented."""
    container, folder, port = server
    url = f"postgresql://broker@127.0.0.1:{port}/broker"
    await eventually(lambda: _exists(f"postgresql://broker@127.0.0.1:{port}/postgres"), seconds=60)
    await migrate(Secret(url))
    google.add_account("ada@example.com")
    world_folder = tmp_path_factory.mktemp("world")
    async with open_world(world_folder, url, google, ManualClock(datetime.now(UTC))) as world:
        await world.connect("ada", "ada@example.com")
        secret_key = world.settings.secret_keys[0].reveal()
    within = ("exec", container.id)
    there = ("--host=127.0.0.1", f"--port={port}", "--username=broker")
    how = ("--format=tar", "--gzip", "--checkpoint=fast")
    container.engine.docker(*within, "pg_basebackup", f"--pgdata=/backups/{BASE}", *there, *how)
    how = ("--format=custom", "--file=/backups/broker.dump", "broker")
    container.engine.docker(*within, "pg_dump", *there, *how)
    secrets = tmp_path_factory.mktemp("secrets")
    secrets.chmod(0o755)
    for name, value in (("DATABASE_URL", url), ("SECRET_KEY", secret_key)):
        (secrets / name).write_text(value)
        os.chown(secrets / name, 0, OWNER)
        (secrets / name).chmod(0o440)
    yield Backups(container.engine, drill_image, folder, secrets)


async def _exists(url: str) -> bool:
    """True once the database exists."""
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    try:
        await connection.execute("CREATE DATABASE broker")
    finally:
        await connection.close()
    return True


def test_no_other_user_may_read_the_backups(backups: Backups) -> None:
    """Precondition of the tests below: the owner's rights suffice."""
    assert (backups.folder.stat().st_uid, backups.folder.stat().st_mode & 0o777) == (OWNER, 0o700)


def test_the_cron_job_restores_a_backup_and_serves_a_token(backups: Backups) -> None:
    done = backups.drill()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert f"restoring /backups/{BASE}" in done.stdout
    assert "a token was served" in done.stdout
    assert "RTO" in done.stdout


def test_it_restores_a_dump_into_a_new_cluster(backups: Backups) -> None:
    """By `initdb`, which requires that its user has a name."""
    done = backups.drill("drill", "--backups", "/backups/broker.dump")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "a token was served" in done.stdout


def test_a_user_that_does_not_own_the_backups_gets_an_error(backups: Backups) -> None:
    done = backups.drill(user=65532)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("Path '/backups' is not readable.")
