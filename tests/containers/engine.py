"""A Docker Engine for the tests only, and its command line."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import wait_until

PARTS = "TEST_CONTAINER_PARTS"
"""The variable with the folder of base images and wheels."""
FOLDER = "TEST_ENGINE_FOLDER"
"""The variable with the folder for the engine's data."""

_START_SECONDS = 60.0
_STOP_SECONDS = 60.0
DOCKER_PATH = f"/usr/bin:{os.environ.get('PATH', '')}"
"""Finds Debian's own `docker`. A newer one, from another package, builds with a plug-in that may be
missing.
"""

_DOCKER = shutil.which("docker", path=DOCKER_PATH) or "docker"


class DockerError(AssertionError):
    """A command failed; the message has its output."""


@dataclass(frozen=True)
class Container:
    """One container, by its id."""

    engine: "Engine"
    id: str

    def inspect(self) -> Any:
        (found,) = json.loads(self.engine.docker("inspect", self.id))
        return found

    def logs(self) -> str:
        """Return stdout and stderr."""
        done = self.engine.run("logs", self.id)
        return done.stdout + done.stderr

    @property
    def health(self) -> str:
        """Return `starting`, `healthy` or `unhealthy`; fails if it has ended."""
        state = self.inspect()["State"]
        assert state["Running"], f"it ended with {state['ExitCode']}:\n{self.logs()}"
        status: str = state["Health"]["Status"]
        return status

    def wait_until_healthy(self) -> None:
        """Return once its own health check succeeds."""
        wait_until("the container is healthy", lambda: self.health == "healthy", within=60)

    def signal(self, name: str) -> None:
        self.engine.docker("kill", "--signal", name, self.id)

    def wait(self) -> int:
        """Wait until it ends; return its exit status."""
        return int(self.engine.docker("wait", self.id))

    def remove(self) -> None:
        self.engine.docker("rm", "--force", "--volumes", self.id)


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    host: str

    def run(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `docker …`, and ignore its exit status."""
        return subprocess.run(
            (_DOCKER, *arguments),
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables that make other programs use this engine."""
        return {"DOCKER_HOST": self.host, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}

    def docker(self, *arguments: str, timeout: float = 300) -> str:
        """Return the output of `docker …`. Raises `DockerError`."""
        done = self.run(*arguments, timeout=timeout)
        if done.returncode != 0:
            raise DockerError(f"docker {arguments[0]}: {done.stderr[-6000:]}")
        return done.stdout.strip()

    def start(self, *arguments: str) -> Container:
        """Run `docker run --detach`."""
        return Container(self, self.docker("run", "--detach", *arguments))

    def image(self, name: str) -> Any:
        """Return the output of `docker image inspect`."""
        (found,) = json.loads(self.docker("image", "inspect", name))
        return found


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """An engine with its data in a folder. At the end it stops, with its containers."""
    socket, log = folder / "docker.sock", folder / "dockerd.log"
    configuration = folder / "daemon.json"
    configuration.write_text("{}")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *("dockerd", "--host", f"unix://{socket}", "--data-root", str(folder / "data")),
                *("--exec-root", str(folder / "exec"), "--pidfile", str(folder / "pid")),
                # Nothing of the machine's own engine, such as a CI runner has: not its settings,
                # and not systemd, which knows no process of another namespace.
                *(
                    "--config-file",
                    str(configuration),
                    "--exec-opt",
                    "native.cgroupdriver=cgroupfs",
                ),
                # The default is more than a process without CAP_SYS_RESOURCE may give.
                *("--default-ulimit", "nofile=4096:4096"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    engine = Engine(f"unix://{socket}")
    try:
        _wait_until_ready(engine, process, log)
        yield engine
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(engine: Engine, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while engine.run("version").returncode != 0:
        said = log.read_text(errors="replace")[-3000:]
        if process.poll() is not None or time.monotonic() > deadline:
            raise DockerError(f"no Docker Engine runs here:\n{said}")
        time.sleep(0.1)
