"""The main job, in a container with the fewest possible rights."""

import threading
from collections import Counter
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from playwright.async_api import Page

from tests.acceptance.installation import allow, calendar
from tests.image.installation import INTERNAL_URL, OPS_URL, OTHER_ADDRESS, USER, Installation
from tests.support.processes import wait_until
from tests.support.scopes import CALENDAR_READONLY

pytestmark = [pytest.mark.container, pytest.mark.browser]

_THREADS = 8
_ANSWERS_BEFORE = 300
"""Requests that are served before the container is stopped."""


async def test_a_user_connects_in_a_browser_and_a_service_uses_the_token(
    installation: Installation, page: Page
) -> None:
    user_id = await connected_user(installation, page)
    token = installation.service.access_token(user_id)
    with calendar(installation.google.calendar_endpoint, token) as api:
        found = api.events().list(calendarId="primary").execute()
    assert "Stand-up" in [event["summary"] for event in found["items"]]


async def connected_user(installation: Installation, page: Page) -> str:
    user_id = f"user-{uuid4().hex}"
    link = installation.service.connect_link(user_id, [CALENDAR_READONLY])
    answer = await allow(page, link["url"], f"{uuid4().hex}@example.com")
    assert answer.status == 200, await answer.text()
    return user_id


def test_nothing_was_written(installation: Installation) -> None:
    container = installation.serving
    assert container.engine.docker("diff", container.id) == ""


def test_its_process_has_no_capabilities(installation: Installation) -> None:
    state = installation.serving.inspect()["State"]
    status = Path(f"/proc/{state['Pid']}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Uid"].split() == facts["Gid"].split() == [str(USER)] * 4
    assert {int(facts[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")


def test_its_root_is_read_only(installation: Installation) -> None:
    host = installation.serving.inspect()["HostConfig"]
    assert (host["ReadonlyRootfs"], host.get("Tmpfs")) == (True, None)


@pytest.mark.parametrize("port", [8000, 8001, 8002])
def test_it_listens_on_every_address(installation: Installation, port: int) -> None:
    assert installation.serving.health == "healthy"
    answer = httpx2.get(f"http://{OTHER_ADDRESS}:{port}/no-such-path", trust_env=False)
    assert answer.status_code == 404


def test_no_secret_is_in_its_log_or_its_environment(installation: Installation) -> None:
    said = installation.serving.logs() + str(installation.serving.inspect()["Config"])
    assert "serving" in said
    assert not [secret for secret in installation.secret_values if secret in said]


def test_an_unreadable_secret_file_gives_one_line(
    installation: Installation, tmp_path: Path
) -> None:
    path = tmp_path / "SECRET_KEY"
    path.write_text("an-image-key-of-more-than-32-bytes-0123456789")
    path.chmod(0o600)
    done = installation.engine.run(
        *("run", "--rm", *installation.arguments, "--volume", f"{path}:/unreadable:ro"),
        *("--env", "SECRET_KEY_FILE=/unreadable", installation.image),
    )
    assert done.returncode == 1
    (problem,) = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert "SECRET_KEY_FILE" in problem
    assert "Permission denied" in problem


def test_a_drill_without_a_writable_folder_gives_one_line(installation: Installation) -> None:
    """The root is read-only, and nothing is mounted at /tmp."""
    done = installation.engine.run(
        "run", "--rm", *installation.arguments, installation.image, "drill", "--restored"
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert "there is no writable folder for temporary files: set TMPDIR" in done.stderr


def test_without_settings_the_missing_ones_are_named(installation: Installation) -> None:
    done = installation.engine.run("run", "--rm", "--network", "none", installation.image)
    assert done.returncode == 1
    assert "DATABASE_URL is missing" in done.stderr
    assert "Traceback" not in done.stderr


class _Load:
    """Requests a token, on a new connection each time, until connections are refused."""

    def __init__(self, user_id: str, key: str) -> None:
        self.outcomes: Counter[str] = Counter()
        self._url = f"{INTERNAL_URL}/v1/users/{user_id}/token"
        self._headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
        self._threads = [threading.Thread(target=self._request) for _ in range(_THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _request(self) -> None:
        with httpx2.Client(headers=self._headers, timeout=20, trust_env=False) as client:
            while True:
                try:
                    answer = client.get(self._url)
                except httpx2.ConnectError as error:
                    self.outcomes[f"no connection: {error}"] += 1
                    return
                except httpx2.TransportError as error:
                    self.outcomes[f"BROKEN: {error!r}"] += 1
                    return
                self.outcomes[str(answer.status_code)] += 1


async def test_stopped_under_load_it_serves_every_accepted_request(
    installation: Installation, page: Page
) -> None:
    """A load balancer retries a refused connection at another replica; all else must be served."""
    user_id = await connected_user(installation, page)
    assert httpx2.get(f"{OPS_URL}/livez", trust_env=False).status_code == 200
    load = _Load(user_id, installation.service.key)
    load.start()
    wait_until("it is under load", lambda: load.outcomes["200"] >= _ANSWERS_BEFORE)
    installation.serving.signal("SIGTERM")
    load.wait()
    assert installation.serving.wait() == 0
    assert load.outcomes.pop("200") >= _ANSWERS_BEFORE
    refused = {name for name in load.outcomes if name.startswith("no connection: ")}
    assert set(load.outcomes) == refused, load.outcomes
    assert installation.serving.engine.docker("diff", installation.serving.id) == ""
