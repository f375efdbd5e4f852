"""`make run` as a newcomer uses it: real processes, a real browser, a real Ctrl-C."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from playwright.async_api import Page, expect

from devstack.processes import CHECKOUT, free_ports, is_free
from tests.support.browser import continue_to_google

PORTS = ("PUBLIC_PORT", "INTERNAL_PORT", "OPS_PORT", "DEMO_PORT", "GOOGLE_PORT")
START_LIMIT_SECONDS = 240

pytestmark = pytest.mark.process


@dataclass
class Devstack:
    """A running `make run`: its process, ports and output."""

    process: subprocess.Popen[str]
    ports: dict[str, int]
    folder: Path
    output_path: Path

    @property
    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8")

    @property
    def demo_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['DEMO_PORT']}"

    def wait_until(self, pattern: str) -> None:
        """Return once the output matches. Fails with the output if it ends, or takes too long."""
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not re.search(pattern, self.output):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def interrupt(self) -> int:
        """Send Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


Start = Callable[..., Devstack]


def launch(folder: Path, **environment: str) -> Devstack:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    ports |= {name: int(environment[name]) for name in PORTS if environment.get(name, "").isdigit()}
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GOOGLE_", "BROKER_"))}
    output_path = folder.with_suffix(".out")
    with output_path.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "devstack"],
            cwd=CHECKOUT,
            env={
                **clean,
                **{name: str(port) for name, port in ports.items()},
                "DEVSTACK_FOLDER": str(folder),
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Devstack(process, ports, folder, output_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("make-run") / "devstack"


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Return a function that starts `make run` with its own folder; all are stopped at the end."""
    started: list[Devstack] = []

    def start_one(folder: Path, **environment: str) -> Devstack:
        started.append(launch(folder, **environment))
        return started[-1]

    yield start_one
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(60)


@pytest.fixture(scope="module")
def devstack(folder: Path, start: Start) -> Devstack:
    running = start(folder)
    running.wait_until("Stop  ")
    return running


async def connect(page: Page, person: str) -> None:
    await page.get_by_role("button", name="Connect Google").click()
    await continue_to_google(page)
    await page.get_by_role("button", name=person).click()
    await page.get_by_role("button", name="Allow").click()


@pytest.mark.parametrize(
    "part", ["PostgreSQL", "OpenBao", "Google stand-in", "Migrating", "Broker", "Demo page"]
)
def test_it_prints_each_step_and_its_duration(devstack: Devstack, part: str) -> None:
    assert re.search(rf"{part}.* … ✓ \d+\.\d s", devstack.output), devstack.output


def test_the_output_has_no_colours_outside_a_terminal(devstack: Devstack) -> None:
    assert "\033" not in devstack.output


@pytest.mark.browser
async def test_a_user_connects_and_the_service_uses_the_token(
    devstack: Devstack, page: Page
) -> None:
    await page.goto(devstack.demo_url)
    await connect(page, "Ada Lovelace")

    await expect(page.get_by_role("status")).to_contain_text("Google is connected")
    card = page.get_by_role("article")
    await expect(card).to_contain_text("ada@example.com")
    await expect(card).to_contain_text("active")
    await expect(card).to_contain_text(re.compile(r"\d+ characters"))

    await page.get_by_role("link", name="Call the Calendar API").click()
    await expect(page.get_by_text("The Calendar API answered")).to_be_visible()
    await expect(page.get_by_text("Stand-up")).to_be_visible()


@pytest.mark.browser
async def test_a_denied_consent_is_reported(devstack: Devstack, page: Page) -> None:
    await page.goto(devstack.demo_url)
    await page.get_by_role("button", name="carol").click()
    await page.get_by_role("button", name="Connect Google").click()
    await continue_to_google(page)
    await page.get_by_role("button", name="Ada Lovelace").click()
    await page.get_by_role("button", name="Cancel").click()

    await expect(page.get_by_role("alert")).to_contain_text("Not connected")
    await expect(page.get_by_role("article")).to_have_count(0)


@pytest.mark.browser
async def test_a_withdrawn_account_has_no_token(devstack: Devstack, page: Page) -> None:
    await page.goto(devstack.demo_url)
    await page.get_by_role("button", name="bob").click()
    await connect(page, "Grace Hopper")
    await expect(page.get_by_role("article")).to_contain_text("active")

    await page.get_by_role("button", name="Remove access").click()

    await expect(page.get_by_role("status")).to_contain_text("Access removed")
    await expect(page.get_by_role("link", name="Call the Calendar API")).to_have_count(0)


@pytest.mark.browser
async def test_the_printed_commands_work_unchanged(devstack: Devstack, page: Page) -> None:
    link, token = printed_commands(devstack.output)
    await page.goto(ask(link)["url"])
    await continue_to_google(page)
    await page.get_by_role("button", name="Katherine Johnson").click()
    await page.get_by_role("button", name="Allow").click()
    await page.wait_for_url(re.compile("/auth/google/callback"))

    accounts = {"account": "katherine@example.org"}
    answer = ask(token, params=accounts)

    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] > 0


def printed_commands(output: str) -> list[list[str]]:
    """Return the printed commands, as a person pastes them."""
    joined = output.replace("\\\n", "")
    return [shlex.split(line) for line in joined.splitlines() if line.strip().startswith("curl ")]


def ask(command: list[str], params: dict[str, str] | None = None) -> dict[str, Any]:
    """Send the request that curl would send with these arguments."""
    _, _, url, *options = command
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = next((value for option, value in pairs if option == "-d"), None)
    method = "POST" if body else "GET"
    answer = httpx2.request(method, url, headers=headers, content=body, params=params)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_the_ops_listener_answers(devstack: Devstack, path: str) -> None:
    assert httpx2.get(f"http://127.0.0.1:{devstack.ports['OPS_PORT']}{path}").status_code == 200


@pytest.mark.parametrize("name", [".", "secret-key", "demo-key", "database-url", "vault-secret-id"])
def test_only_the_owner_can_read_its_files(devstack: Devstack, name: str) -> None:
    assert (devstack.folder / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "name", ["secret-key", "demo-key", "google-client-secret", "vault-secret-id"]
)
def test_no_secret_is_a_command_line_argument(devstack: Devstack, name: str) -> None:
    arguments = " ".join(" ".join(child.cmdline()) for child in devstack.family())
    assert (devstack.folder / name).read_text() not in arguments


def test_a_second_run_in_the_same_folder_is_refused(start: Start, devstack: Devstack) -> None:
    second = start(devstack.folder.with_name("devstack2"), DEVSTACK_FOLDER=str(devstack.folder))

    assert second.process.wait(90) == 1
    assert "running in this checkout already" in second.output
    assert str(devstack.process.pid) in second.output
    assert devstack.process.poll() is None


def test_a_taken_port_is_named_with_the_variable_to_change(
    start: Start, devstack: Devstack
) -> None:
    taken = str(devstack.ports["DEMO_PORT"])
    second = start(devstack.folder.with_name("devstack3"), PUBLIC_PORT=taken)

    assert second.process.wait(90) == 1
    assert f"Port {taken} (the broker's public listener) is taken" in second.output
    assert "make run PUBLIC_PORT=" in second.output
    assert second.output.count("\n") == 1, "the message has one line"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OPS_PORT": "eighty"}, "OPS_PORT must be a port number"),
        ({"OPS_PORT": "8080", "DEMO_PORT": "8080"}, "are the same port, 8080"),
        ({"GOOGLE_CLIENT_ID": "mine"}, "GOOGLE_CLIENT_SECRET is missing"),
        ({"GOOGLE_CREDENTIALS_FILE": "/nowhere.json"}, "can't read /nowhere.json"),
        ({"GOOGLE_DISCOVERY_URL": "http://example.com"}, "GOOGLE_DISCOVERY_URL must be https"),
    ],
)
def test_a_bad_variable_stops_it_before_anything_starts(
    start: Start, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    devstack = start(tmp_path / "devstack", **variables)

    assert devstack.process.wait(90) == 1
    assert message in devstack.output
    assert not devstack.folder.exists()


def test_an_unusable_folder_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    devstack = start(tmp_path / "devstack", DEVSTACK_FOLDER=f"{tmp_path}/file/below")

    assert devstack.process.wait(90) == 1
    assert f"Can't keep data in {tmp_path}/file/below" in devstack.output


def test_a_failed_part_is_reported_with_its_log_and_everything_stops(
    start: Start, tmp_path: Path
) -> None:
    devstack = start(tmp_path / "devstack", GOOGLE_REDIRECT_URI="http://127.0.0.1:8000/elsewhere")

    assert devstack.process.wait(START_LIMIT_SECONDS) == 1
    assert "the broker ended unexpectedly (exit code 1)" in devstack.output
    assert "/auth/google/callback" in devstack.output, "the end of the log says what to fix"
    assert "Traceback" not in devstack.output
    assert all(is_free(port) for port in devstack.ports.values())


def test_a_part_that_ends_later_stops_the_others(start: Start, tmp_path: Path) -> None:
    devstack = start(tmp_path / "devstack")
    devstack.wait_until("Stop  ")
    family = devstack.family()
    demo = next(child for child in family if "devstack.demo" in child.cmdline())

    demo.kill()

    assert devstack.process.wait(60) == 1
    assert "the demo page was ended by SIGKILL" in devstack.output
    assert_gone(family)


@pytest.mark.browser
async def test_ctrl_c_stops_everything_and_the_next_start_has_the_grants(
    start: Start, tmp_path: Path, page: Page
) -> None:
    first = start(tmp_path / "devstack")
    first.wait_until("Stop  ")
    await page.goto(first.demo_url)
    await connect(page, "Ada Lovelace")
    await expect(page.get_by_role("article")).to_contain_text("active")
    family = first.family()
    assert len(family) >= 5

    assert first.interrupt() == 0
    assert_gone(family)
    assert all(is_free(port) for port in first.ports.values())

    second = start(tmp_path / "devstack", **{k: str(v) for k, v in first.ports.items()})
    second.wait_until("Stop  ")
    await page.goto(second.demo_url)
    await expect(page.get_by_role("article")).to_contain_text("ada@example.com")
    await expect(page.get_by_role("article")).to_contain_text(re.compile(r"\d+ characters"))
    assert second.interrupt() == 0


def test_the_developers_own_client_uses_its_own_google(
    start: Start, devstack: Devstack, tmp_path: Path
) -> None:
    """The running stand-in plays another Google."""
    other = f"http://127.0.0.1:{devstack.ports['GOOGLE_PORT']}"
    secret = tmp_path / "secret"
    secret.write_text("GOCSPX-one-of-my-own")

    mine = start(
        tmp_path / "devstack",
        GOOGLE_CLIENT_ID="mine.apps.googleusercontent.com",
        GOOGLE_CLIENT_SECRET_FILE=str(secret),
        GOOGLE_DISCOVERY_URL=f"{other}/.well-known/openid-configuration",
    )
    mine.wait_until("Stop  ")

    assert "Google stand-in" not in mine.output
    redirect_uri = f"http://127.0.0.1:{mine.ports['PUBLIC_PORT']}/auth/google/callback"
    assert f"the client there must list the redirect URI {redirect_uri}" in mine.output
    link, _ = printed_commands(mine.output)
    to_google = httpx2.get(ask(link)["url"])
    assert to_google.headers["Location"].startswith(other)
    assert "client_id=mine.apps.googleusercontent.com" in to_google.headers["Location"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux signals children at their parent's end"
)
def test_after_a_kill_no_child_process_is_left(start: Start, tmp_path: Path) -> None:
    devstack = start(tmp_path / "devstack")
    devstack.wait_until("Stop  ")
    family = devstack.family()

    devstack.process.kill()
    devstack.process.wait(60)

    assert_gone(family)


def test_ctrl_c_during_the_start_stops_it(start: Start, tmp_path: Path) -> None:
    devstack = start(tmp_path / "devstack")
    devstack.wait_until("OpenBao")
    family = devstack.family()

    assert devstack.interrupt() == 0
    assert "Traceback" not in devstack.output
    assert_gone(family)


def assert_gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("target", ["run", "test", "bench", "check", "format", "lock", "clean"])
def test_make_without_a_target_lists_it(target: str) -> None:
    listed = subprocess.run(["make"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert f"make {target} " in listed.stdout


def test_an_old_python_is_refused_with_an_explanation(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text(
        '#!/bin/sh\necho "This is Python 3.9, and 3.11 or newer is needed" >&2\nexit 1\n'
    )
    old.chmod(0o755)
    made = subprocess.run(
        ["make", "run", f"VENV={tmp_path}/venv", f"PYTHON={old}"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert made.returncode != 0
    assert "3.11 or newer is needed" in made.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_reported_with_a_remedy(tmp_path: Path) -> None:
    made = subprocess.run(
        ["make", "run", f"VENV={tmp_path}/venv", "PYTHON="],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert made.returncode != 0
    assert "No Python >= 3.11" in made.stderr


@pytest.mark.parametrize("name", ["base", "run", "dev"])
def test_a_lock_file_pins_everything_by_hash_and_names_no_host(name: str) -> None:
    text = (CHECKOUT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")

    stanzas = re.split(r"\n(?=[a-z])", text)
    assert all("==" in each and "--hash=sha256:" in each for each in stanzas)
    assert not re.search(r"://|--index|--find-links|file:", text)
