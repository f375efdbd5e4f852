"""`make test-containers`: the image's tests, on a real Docker Engine in separate namespaces.

Network, mounts and processes are separate from the machine's: no bridge, firewall rule or process
remains, and a listener on all addresses is unreachable from elsewhere. There is no internet inside,
so everything that the tests need is fetched before.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.containers import parts
from tests.containers.engine import FOLDER, PARTS
from tests.support.optional_parts import REQUIRED
from tests.support.processes import CHECKOUT

_TOOLS = ("dockerd", "containerd", "runc", "iptables", "mmdebstrap", "unshare", "ip")
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
"""The base images are Debian's; Ubuntu's mmdebstrap comes without Debian's keys."""
_REMEDY = "apt-get install docker.io iptables mmdebstrap iproute2 debian-archive-keyring"
_INSIDE = """
ip link set lo up
ip address add 198.18.255.1/32 dev lo
if [ -d /run/containerd ]; then mount -t tmpfs tmpfs /run/containerd; fi
"$@"
exit $?
"""
"""The second address is one of those that RFC 2544 reserves for tests. The mount hides a containerd
of the machine: dockerd would use it, and it starts containers outside these namespaces.
"""


def main(arguments: list[str]) -> int:
    """Return the tests' exit status; 0, with a line, where no Docker Engine can run and none is
    required.
    """
    if reason := _why_not():
        is_required = os.environ.get(REQUIRED) == "1"
        print(f"{'FAILED' if is_required else 'skipped'}: the container tests: {reason}")
        return 1 if is_required else 0
    kept = Path(os.environ.get(PARTS, CHECKOUT / ".containers")).absolute()
    print(f"Fetching base images and wheels into {kept} (once; a minute)", flush=True)
    try:
        parts.fetch(kept)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"FAILED: the container tests: {error}", file=sys.stderr)
        return 1
    # The engine's data is mounted inside only; after the end this is a plain folder.
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as folder:
        return subprocess.run(
            [
                *("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"),
                *("--kill-child", "sh", "-c", _INSIDE, "sh"),
                *(sys.executable, "-m", "pytest", "-m", "container", *arguments),
            ],
            cwd=CHECKOUT,
            env={**os.environ, PARTS: str(kept), FOLDER: folder},
            check=False,
        ).returncode


def _why_not() -> str | None:
    if sys.platform != "linux":
        return "they need Linux"
    if os.geteuid() != 0:
        return "they need root, for namespaces and a Docker Engine of their own"
    missing = parts.missing(_TOOLS) + ([] if _KEYRING.exists() else [str(_KEYRING)])
    if missing:
        return f"{', '.join(missing)} missing ({_REMEDY})"
    tried = subprocess.run(
        ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"),
        capture_output=True,
        check=False,
    )
    return "namespaces are not allowed here" if tried.returncode else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
