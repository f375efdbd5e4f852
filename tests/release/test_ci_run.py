"""`.ci/run` as root, and as a user with sudo.

Every program that it calls is a stub here: the tests check which it calls, in which order, and with
which rights.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    *("chromium", "docker-registry", "skopeo", "pgbouncer", "promtool", "amtool", "dockerd"),
    *("iptables", "mmdebstrap", "ip", "cosign", "npm"),
)
TARGETS = ["check", "chart-tools", "policy", "test", "terraform", "test-containers"]
_LOGS_ITS_CALL = 'echo "$(basename "$0") $* as ${AS:-$ME} require=${TESTS_REQUIRE_ALL:-}" >> "$LOG"'
_SUDO = """
[ "$1 $2" = "--preserve-env --set-home" ] || exit 9
shift 2
AS=root PATH="$SECURE_PATH" exec "$@"
"""
"""Like Debian's and Ubuntu's: it has its own PATH, whatever else it keeps."""


@dataclass(frozen=True)
class Machine:
    """The programs on its PATH, and the calls."""

    folder: Path

    def has(self, name: str, script: str = "") -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def lacks(self, name: str) -> None:
        (self.folder / name).unlink()

    def has_sudo(self) -> None:
        self.has("sudo", _SUDO)
        secure = self.folder / "secure"
        secure.mkdir()
        for name in ("apt-get", "basename", "env"):
            (secure / name).symlink_to(self.folder / name)

    def run(self, user: str) -> tuple[int, list[str]]:
        """Return the exit status, and the calls of `make` and `apt-get`."""
        self.has("id", f"echo {0 if user == 'root' else 1001}")
        log = self.folder / "log"
        environment = {
            "PATH": str(self.folder),
            "SECURE_PATH": str(self.folder / "secure"),
            "LOG": str(log),
            "ME": user,
        }
        done = subprocess.run(
            [self.folder / "bash", ROOT / ".ci/run"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, log.read_text().splitlines() if log.exists() else [done.stderr]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with every program except sudo."""
    made = Machine(tmp_path)
    for name in ("bash", "dirname", "basename", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    for name in TOOLS:
        made.has(name)
    for name in ("make", "apt-get"):
        made.has(name, _LOGS_ITS_CALL)
    return made


def test_root_runs_everything_without_sudo(machine: Machine) -> None:
    status, calls = machine.run("root")
    assert (status, calls) == (0, [f"make {name} as root require=1" for name in TARGETS])


def test_a_user_runs_only_the_container_tests_as_root(machine: Machine) -> None:
    machine.has_sudo()
    status, calls = machine.run("runner")
    expected = [f"make {name} as runner require=1" for name in TARGETS[:-1]]
    assert (status, calls) == (0, [*expected, "make test-containers as root require=1"])


@pytest.mark.skipif(
    os.access("/usr/sbin/skopeo", os.X_OK),
    reason="this machine has a program that cannot be hidden",
)
@pytest.mark.parametrize("user", ["root", "runner"])
def test_what_is_missing_is_installed_as_root(machine: Machine, user: str) -> None:
    machine.lacks("skopeo")
    machine.has_sudo()
    status, calls = machine.run(user)
    assert status == 0
    assert [call for call in calls if call.startswith("apt-get")] == [
        "apt-get update -qq as root require=",
        "apt-get install -y -qq --no-install-recommends skopeo as root require=",
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_a_command_that_fails_fails_the_run(machine: Machine, target: str) -> None:
    machine.has("make", f'{_LOGS_ITS_CALL}\n[ "$1" != {target} ]')
    status, calls = machine.run("root")
    assert status != 0
    assert calls[-1].startswith(f"make {target} ")
