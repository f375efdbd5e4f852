"""Machines on one host: network namespaces on a bridge, and cuts between them.

A cut drops packets and notifies neither end, as a broken switch does. Needs root, `ip` and
`iptables`.
"""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.support.processes import wait_until

_ADMIN_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_IP = shutil.which("ip", path=_ADMIN_PATH)
_IPTABLES = shutil.which("iptables", path=_ADMIN_PATH)

_BENCHMARK_NETWORKS = range(256)
"""The third byte of 198.18.0.0/16, which RFC 2544 reserves for tests."""


def why_no_networks() -> str | None:
    """Return why no network can be created here, or `None`."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for name, found in (("ip", _IP), ("iptables", _IPTABLES)):
        if found is None:
            return f"`{name}` is missing (apt-get install iproute2 iptables)"
    attempt = f"try-{os.getpid()}"
    tried = subprocess.run((str(_IP), "netns", "add", attempt), capture_output=True, check=False)
    if tried.returncode != 0:
        return "network namespaces are not allowed here"
    _ip("netns", "delete", attempt)
    return None


@dataclass(frozen=True)
class Machine:
    """A network namespace with one address. Its processes see no other network of the host."""

    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """The start of a command line that runs there."""
        return (str(_IP), "netns", "exec", self.name)

    def cut_from(self, addresses: Collection[str]) -> None:
        """Drop every packet to and from these addresses. Open connections get no reset."""
        for address in addresses:
            self._iptables("-A", "INPUT", "-s", address, "-j", "DROP")
            self._iptables("-A", "OUTPUT", "-d", address, "-j", "DROP")

    def reconnect(self) -> None:
        """Remove all cuts."""
        self._iptables("-F")

    def lose_power(self) -> None:
        """Kill all its processes. It answers nothing until `reconnect`."""
        self._iptables("-I", "INPUT", "!", "-i", "lo", "-j", "DROP")
        self._iptables("-I", "OUTPUT", "!", "-o", "lo", "-j", "DROP")
        self.kill_all()
        wait_until("all processes have ended", lambda: not self._pids(), within=10)

    def kill_all(self) -> None:
        """Send SIGKILL to every process of the machine."""
        for pid in self._pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _pids(self) -> Sequence[int]:
        return [int(pid) for pid in _run(str(_IP), "netns", "pids", self.name).split()]

    def _iptables(self, *rule: str) -> None:
        _run(*self.prefix, str(_IPTABLES), "-w", *rule)


@dataclass(frozen=True)
class Network:
    """Machines that reach each other, and that this process reaches."""

    machines: Sequence[Machine]
    here: str
    """This process's own address in the network."""
    subnet: str


@contextmanager
def network(count: int) -> Iterator[Network]:
    """A network of `count` machines; at the end every process on them is killed."""
    prefix = f"198.18.{random.choice(_BENCHMARK_NETWORKS)}"
    bridge = f"chaos{random.randrange(10**8)}"
    here = f"{prefix}.1"
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge", "forward_delay", "0")
        stack.callback(_ip, "link", "delete", bridge)
        _ip("address", "add", f"{here}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        machines = []
        for number in range(count):
            machine = Machine(f"{bridge}-{number}", f"{prefix}.{number + 2}")
            _add_machine(machine, bridge, f"v{number}{bridge[5:]}", stack)
            machines.append(machine)
        yield Network(machines, here, f"{prefix}.0/24")


def _add_machine(machine: Machine, bridge: str, link: str, stack: ExitStack) -> None:
    _ip("netns", "add", machine.name)
    stack.callback(_ip, "netns", "delete", machine.name)
    stack.callback(machine.kill_all)
    _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", machine.name)
    _ip("link", "set", link, "master", bridge, "up")
    inside = ("-n", machine.name)
    _ip(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
    _ip(*inside, "link", "set", "eth0", "up")
    _ip(*inside, "link", "set", "lo", "up")


def _ip(*arguments: str) -> None:
    _run(str(_IP), *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
