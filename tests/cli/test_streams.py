"""Commands with a closed or full stream end with one line, as with any other bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import clean_environment

ROOT = Path(__file__).parents[2]
NEW = "callers new sync --can tokens:read --user 42 --scope openid"


def _ended(command: str, redirection: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m broker.cli {command} {redirection}"],
        cwd=ROOT,
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("command", ["--help", "keys --help", NEW])
def test_a_full_disk_is_one_line(command: str) -> None:
    ended = _ended(command, ">/dev/full")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Error: can't write to stdout: No space left")


@pytest.mark.parametrize("command", ["callers hash", "callers check -"])
def test_a_closed_stdin_is_one_line(command: str) -> None:
    ended = _ended(command, "<&-")
    assert (ended.returncode, ended.stderr) == (1, "Error: stdin is closed\n")
