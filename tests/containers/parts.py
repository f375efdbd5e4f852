"""What the tests in containers need, fetched before they lose the network: base images of Debian's
own packages, and the wheels that the Dockerfile installs.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.support.processes import CHECKOUT

SUITE = "trixie"
"""The Debian release of the official Python image that the Dockerfile names, and its Python."""
PYTHON = "3.13"

BASES = {
    "base": "python3,ca-certificates",
    "drill-base": "python3,ca-certificates,locales,postgresql-17",
    "build-base": "python3,python3-venv,binutils,ca-certificates",
    "neighbours": "python3,ca-certificates,busybox,prometheus,prometheus-alertmanager,"
    "prometheus-node-exporter",
}
"""The packages of each base image: for the broker, for the Dockerfile's first stage, and for the
other services of `compose.yaml`.
"""

_LOCKS = ("requirements/base.txt", "requirements/build.txt")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
_EXCLUDED = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")
_TIMEOUT_SECONDS = 600


def fetch(folder: Path) -> None:
    """Fetch what is missing in the folder. Raises `subprocess.CalledProcessError`."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        bases = [
            pool.submit(_make_base, folder / f"{name}.tar", packages)
            for name, packages in BASES.items()
        ]
        locked = pool.submit(_fetch_wheels, wheels(folder))
        for job in (*bases, locked):
            job.result()


def _make_base(tar: Path, packages: str) -> None:
    if tar.exists():
        return
    unfinished = tar.with_suffix(".unfinished.tar")
    left_out = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
    _run(
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", *left_out),
        *(SUITE, str(unfinished)),
    )
    unfinished.rename(tar)


def wheels(folder: Path) -> Path:
    """Return the folder of the wheels for the present locks."""
    locks = b"".join((CHECKOUT / lock).read_bytes() for lock in _LOCKS)
    return folder / f"wheels-{sha256(locks).hexdigest()[:16]}"


def _fetch_wheels(folder: Path) -> None:
    if folder.exists():
        return
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    machine = "aarch64" if _machine() == "aarch64" else "x86_64"
    platforms = [part for name in _PLATFORMS for part in ("--platform", f"{name}_{machine}")]
    locks = [part for lock in _LOCKS for part in ("--requirement", lock)]
    _run(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", PYTHON),
        *(*platforms, *locks, "--dest", str(unfinished)),
    )
    unfinished.rename(folder)


def _machine() -> str:
    return subprocess.check_output(("uname", "-m"), text=True).strip()


def _run(*command: str) -> None:
    subprocess.run(command, cwd=CHECKOUT, check=True, timeout=_TIMEOUT_SECONDS)


def missing(tools: Sequence[str]) -> list[str]:
    """Return those of these programs that are not installed."""
    return [tool for tool in tools if shutil.which(tool) is None]
