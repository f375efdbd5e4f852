"""Child processes and free ports."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from devstack.processes import ChildProcess, DevstackError, Stopped, free_ports, is_free

pytestmark = pytest.mark.process

LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
time.sleep(60)
"""
IGNORE_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ignoring", flush=True)
time.sleep(60)
"""


def python(tmp_path: Path, code: str, *arguments: str) -> ChildProcess:
    return ChildProcess(
        "the child",
        (sys.executable, "-c", code, *arguments),
        environment={},
        log_path=tmp_path / "log",
    )


def test_free_ports_differ_and_are_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert all(is_free(port) for port in ports)


def test_no_other_process_gets_a_port_that_is_to_be_used() -> None:
    ports = free_ports(50)
    code = (
        "import sys, devstack.processes as processes\n"
        "processes._NOT_EPHEMERAL = [int(port) for port in sys.argv[1:]]\n"
        "print(processes.free_ports(50))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, ports)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_a_child_is_awaited_and_stopped(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    child = python(tmp_path, LISTEN, str(port))
    child.start()
    child.wait_until_listening(port)
    assert child.stop() == -signal.SIGTERM
    assert child.pid is None
    assert is_free(port)


def test_stopping_a_stopped_child_does_nothing(tmp_path: Path) -> None:
    assert python(tmp_path, "").stop() is None


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    child = python(tmp_path, IGNORE_SIGTERM)
    child.start()
    while b"ignoring" not in child.log_path.read_bytes():
        assert child.exit_code() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.stop(within=0.1)
    assert child.pid is None


def test_a_child_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    child = python(tmp_path, "import sys; sys.exit('the reason')")
    child.start()
    with pytest.raises(DevstackError) as raised:
        child.wait_until_answering("http://127.0.0.1:9/")
    assert "the child ended unexpectedly (exit code 1)" in str(raised.value)
    assert "the reason" in str(raised.value)


def test_waiting_ends_when_it_is_stopped(tmp_path: Path) -> None:
    stopping = threading.Event()
    stopping.set()
    child = python(tmp_path, LISTEN, "0")
    child.start()
    try:
        with pytest.raises(Stopped):
            child.wait_until_answering("http://127.0.0.1:9/", stopping=stopping)
    finally:
        child.stop()


@pytest.mark.parametrize(("code", "ends_well"), [("", True), ("import sys; sys.exit(3)", False)])
def test_finish_waits_for_the_end(tmp_path: Path, code: str, *, ends_well: bool) -> None:
    child = python(tmp_path, code)
    child.start()
    if ends_well:
        child.finish(threading.Event())
    else:
        with pytest.raises(DevstackError, match="exit code 3"):
            child.finish(threading.Event())
