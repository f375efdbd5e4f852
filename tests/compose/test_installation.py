"""compose.yaml on a real Docker Engine, set up and used by the commands of its documentation.

Everything is as shipped, except the images (standins/Dockerfile), the values in `.env`, and the
wait of one alert.
"""

import json
import os
import signal
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from playwright.async_api import Page

from tests.acceptance.installation import allow
from tests.compose.consenting import COLD, browser, connect_user
from tests.compose.installation import (
    CLIENT_ID,
    PUBLIC_URL,
    RUNBOOKS,
    Installation,
    as_operator,
    commands,
    stopped,
    unseal,
)
from tests.compose.paging import Pager
from tests.containers.engine import Container
from tests.docs.documents import ROOT
from tests.support.processes import wait_until
from tests.support.scopes import CALENDAR_READONLY

pytestmark = pytest.mark.container

_ANSWERS_BEFORE = 200
"""Answers before a test does anything to the brokers."""


@pytest.fixture(scope="module")
def user(installation: Installation) -> str:
    return connect_user(installation)


class _Load:
    """tests/compose/asking.py in a container of another project, on the callers' network."""

    def __init__(self, installation: Installation, user: str) -> None:
        script = Path(__file__).with_name("asking.py")
        self._container = installation.engine.start(
            *("--network", "token-broker-callers", "--env", f"KEY={installation.key}"),
            *("--volume", f"{script}:/asking.py:ro", "neighbours", "python3", "/asking.py", user),
        )

    @property
    def outcomes(self) -> Counter[str]:
        lines = self._container.logs().splitlines()
        return Counter(json.loads(lines[-1])) if lines else Counter()

    def go_on(self) -> None:
        """Return when as many more answers have arrived."""
        before = self.outcomes["200"]
        wait_until(
            "it is under load", lambda: self.outcomes["200"] >= before + _ANSWERS_BEFORE, within=60
        )

    def stop(self) -> Counter[str]:
        self._container.signal("SIGTERM")
        self._container.wait()
        outcomes = self.outcomes
        self._container.remove()
        return outcomes


class _PublicLoad:
    """Requests a page through the proxy, on new and on kept connections."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._request) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Counter[str]:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
        return self.outcomes

    def _request(self) -> None:
        with browser() as http:
            while not self._ended.wait(0.02):
                try:
                    answer = http.get(f"{PUBLIC_URL}/connections")
                except httpx2.TransportError as error:
                    self.outcomes[f"BROKEN: {error!r}"] += 1
                else:
                    self.outcomes[str(answer.status_code)] += 1


def _kill(container: Container) -> None:
    """Kill it as the kernel does when memory runs out: other processes get no signal."""
    os.kill(container.inspect()["State"]["Pid"], signal.SIGKILL)


def _is_healthy(container: Container) -> bool:
    state = container.inspect()["State"]
    return bool(state["Running"]) and state["Health"]["Status"] == "healthy"


def _both_serve(installation: Installation) -> None:
    for number in (1, 2):
        container = installation.container("broker", number)
        wait_until(
            f"broker {number} is healthy",
            partial(_is_healthy, container),
            within=60,
        )


async def test_a_user_connects_through_the_proxy_and_a_service_uses_the_token(
    installation: Installation, page: Page
) -> None:
    user_id = f"user-{uuid4().hex}"
    link = installation.api().connect_link(user_id, [CALENDAR_READONLY])
    assert link["url"].startswith(f"{PUBLIC_URL}/")
    answer = await allow(page, link["url"], f"{uuid4().hex}@example.com")
    assert answer.status == 200, await answer.text()
    assert page.url.startswith(PUBLIC_URL)
    for number in (1, 2):
        assert installation.api(number).token(user_id).status == 200
    token = installation.api().access_token(user_id)
    assert installation.google.standin.state.access_tokens[token].scopes


def test_the_proxy_forwards_only_the_public_paths(installation: Installation, user: str) -> None:
    with browser() as http:
        assert http.get(f"{PUBLIC_URL}/connections").headers["x-request-id"]
        for path in (f"/v1/users/{user}/token", "/metrics", "/readyz", "/livez", "/"):
            answer = http.get(
                PUBLIC_URL + path, headers={"Authorization": f"Bearer {installation.key}"}
            )
            assert (answer.status_code, answer.text) == (404, "Not found"), path
        plain = http.get("http://localhost/connections?code=planted-plain")
    assert plain.status_code == 308
    assert "h3" not in answer.headers.get("alt-svc", "")


@pytest.mark.parametrize("host", ["postgres", "openbao"])
def test_database_and_vault_cannot_be_reached_from_the_callers_network(
    host: str, installation: Installation
) -> None:
    done = installation.engine.run(
        *("run", "--rm", "--network", "token-broker-callers"),
        *("--dns-opt", "timeout:1", "--dns-opt", "attempts:1", "neighbours"),
        *("python3", "-c", f"import socket; socket.getaddrinfo('{host}', None)"),
    )
    assert "gaierror" in done.stderr


def test_after_the_setup_no_root_token_remains(installation: Installation) -> None:
    done = installation.engine.run(
        *("exec", "--env", f"BAO_TOKEN={installation.root_token}"),
        *(installation.container("openbao").id, "bao", "token", "lookup"),
    )
    assert done.returncode != 0
    assert "403" in done.stderr


def test_no_secret_is_in_a_log_or_in_a_containers_configuration(installation: Installation) -> None:
    secrets = [path.read_text().strip() for path in (installation.folder / "secrets").iterdir()]
    secrets += [installation.client_secret, installation.operator_password, installation.key]
    secrets += [*installation.unseal_keys, installation.root_token]
    names = installation.engine.docker("ps", "--all", "--format", "{{.Names}}").split()
    assert len(names) > 10
    for name in names:
        container = Container(installation.engine, name)
        said = container.logs() + json.dumps(container.inspect()["Config"])
        assert not [secret for secret in secrets if len(secret) > 12 and secret in said], name


def test_no_request_fails_when_a_broker_is_killed(installation: Installation, user: str) -> None:
    load, public = _Load(installation, user), _PublicLoad()
    try:
        for number in (1, 2):
            load.go_on()
            _kill(installation.container("broker", number))
            load.go_on()
            _both_serve(installation)
    finally:
        inside, outside = load.stop(), public.stop()
    assert inside["200"] > 4 * _ANSWERS_BEFORE
    assert set(inside) <= {"200", "repeated"}, inside
    # A broker's answer to a request without a connect link.
    assert set(outside) == {"403"}, outside
    assert outside["403"] > _ANSWERS_BEFORE


def _seal_status(installation: Installation) -> int:
    """Return 0: unsealed; 1: no answer; 2: sealed."""
    return installation.compose("exec", "-T", "openbao", "bao", "status").returncode


def test_openbao_starts_sealed_and_running_brokers_keep_serving(
    installation: Installation, user: str
) -> None:
    load = _Load(installation, user)
    try:
        load.go_on()
        installation.run("restart", "openbao")
        load.go_on()
        wait_until("it is sealed", lambda: _seal_status(installation) == 2, within=30)
        unseal(installation)
        load.go_on()
    finally:
        outcomes = load.stop()
    assert set(outcomes) == {"200"}, outcomes


def test_the_client_secret_is_rotated_under_load(installation: Installation, user: str) -> None:
    new = f"GOCSPX-new-{uuid4().hex}"
    (block,) = commands("## Rotate the client secret")
    load = _Load(installation, user)
    try:
        load.go_on()
        installation.run_in_terminal(
            block, as_operator(installation, [("New client secret: ", new)])
        )
        installation.google.standin.change_client_secret(CLIENT_ID, new)
        installation.client_secret = new
        for number in (1, 2):
            answer = installation.api(number).token(user, min_ttl=COLD)
            assert answer.status == 200, answer.text
        load.go_on()
    finally:
        outcomes = load.stop()
    assert set(outcomes) == {"200"}, outcomes
    connect_user(installation)


def test_a_snapshot_of_openbao_reaches_the_host(installation: Installation) -> None:
    *_, block = commands("## Back up")
    installation.run_in_terminal(block, as_operator(installation))
    assert (installation.folder / "openbao.snapshot").read_bytes()[:2] == b"\x1f\x8b"


def _active_targets(installation: Installation) -> dict[str, str]:
    targets = installation.prometheus("/api/v1/targets", state="active")["activeTargets"]
    return {target["labels"]["instance"]: target["health"] for target in targets}


def test_prometheus_has_both_brokers_and_all_rules(installation: Installation) -> None:
    expected = {
        "token-broker-broker-1:8002": "up",
        "token-broker-broker-2:8002": "up",
        "node-exporter:9100": "up",
    }
    wait_until("all targets are up", lambda: _active_targets(installation) == expected, within=60)
    groups = installation.prometheus("/api/v1/rules")["groups"]
    loaded = {rule["name"] for group in groups for rule in group["rules"]}
    assert {"TokenBrokerReplicaDown", "TokenBrokerDown", "TokenBrokerDrillUnknown"} <= loaded
    files = [path.name for path in (ROOT / "deploy/alerts").glob("*.yaml")]
    assert {Path(group["file"]).name for group in groups} == {*files, "drill.yaml"}
    assert not [rule for group in groups for rule in group["rules"] if rule["health"] == "err"]


def _active(installation: Installation) -> set[str]:
    alerts = installation.prometheus("/api/v1/alerts")["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts}


def test_a_lost_broker_sends_a_page_with_a_link(installation: Installation, pager: Pager) -> None:
    """As shipped, except that the alert waits less than five minutes."""
    container = installation.container("broker", 2)
    wait_until("no alert fires yet", lambda: "TokenBrokerReplicaDown" not in _active(installation))
    pager.alerts.clear()
    installation.engine.docker("stop", container.id)
    try:
        wait_until(
            "the alert is delivered", lambda: bool(pager.named("TokenBrokerReplicaDown")), within=90
        )
    finally:
        installation.engine.docker("start", container.id)
        _both_serve(installation)
    alert = pager.named("TokenBrokerReplicaDown")[0]
    assert alert["status"] == "firing"
    assert "runbook_base_url" not in alert["labels"]
    assert alert["annotations"]["runbook_url"] == (
        f"{RUNBOOKS}docs/how-to/runbooks.md#tokenbrokerreplicadown"
    )


def test_grafana_may_read_its_mounts(installation: Installation) -> None:
    """Grafana itself is not installed: the test checks only its user and its mounts."""
    for path in (
        "/etc/grafana/provisioning/datasources/prometheus.yaml",
        "/etc/grafana/provisioning/dashboards/dashboards.yaml",
        "/etc/dashboards/token-broker.json",
        "/run/secrets/grafana_password",
    ):
        installation.run("exec", "-T", "--user", "472", "grafana", "cat", path)


def limits(container: Container) -> tuple[int, int, int]:
    host: dict[str, Any] = container.inspect()["HostConfig"]
    return host["NanoCpus"], host["Memory"], host["PidsLimit"]


def test_every_container_is_limited_and_has_no_rights(installation: Installation) -> None:
    names = installation.run("ps", "--format", "{{.Name}}").split()
    assert len(names) >= 11
    for name in names:
        container = Container(installation.engine, name)
        assert all(limit > 0 for limit in limits(container)), name
        host = container.inspect()["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"]), name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name


def test_no_authorization_code_is_logged_while_no_broker_answers(
    installation: Installation,
) -> None:
    with stopped(installation, "broker"):
        with browser() as http:
            answer = http.get(
                f"{PUBLIC_URL}/auth/google/callback?code=planted-code&state=planted-state"
            )
        assert answer.status_code in {502, 503}
        said = installation.container("proxy").logs()
        assert _is_healthy_by(installation, "proxy") is False
    errors = [line for line in said.splitlines() if '"http.log.error' in line]
    assert any("/auth/google/callback" in line for line in errors), said[-3000:]
    assert "planted" not in said
    assert _is_healthy_by(installation, "proxy") is True


def _is_healthy_by(installation: Installation, service: str) -> bool:
    """Return the result of its health check at this moment."""
    container = installation.container(service)
    test = container.inspect()["Config"]["Healthcheck"]["Test"]
    assert test[0] == "CMD"
    return installation.engine.run("exec", container.id, *test[1:]).returncode == 0
