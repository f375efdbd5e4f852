"""The chart on a real API server: install, upgrade, roll back, uninstall, and what prevents each.

The server is Kubernetes 1.20, whose source Debian has; the chart requires 1.25. So the installed
copy requires less, and leaves out what 1.20 lacks: policy/v1, autoscaling/v2 and batch/v1's
CronJob. It also leaves out custom resources: this server, compiled with a Go newer than its
libraries, crashes when it stores one.
"""

import base64
import shutil
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, MINIMAL, Object, merged
from tests.chart.switches import CALLER, INGRESS, TRIAL, at
from tests.kube.cluster import Cluster, running_cluster

pytestmark = pytest.mark.kube

JOBS = "/apis/batch/v1/namespaces/{}/jobs"
HOOK = "demo-token-broker-migrate"
KEYS = ("DATABASE_URL", "SECRET_KEY", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET")
OLD_SERVER: Object = merged(MINIMAL, {"podDisruptionBudget": {"enabled": False}})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("kube")) as started:
        yield started


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("chart") / "token-broker"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text("utf-8"))
    about["kubeVersion"] = ">=1.20.0-0"
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about), "utf-8")
    return copy


class Namespace:
    """A namespace for one test, and Helm in it."""

    def __init__(self, cluster: Cluster, name: str, chart: Path) -> None:
        self.cluster, self.name, self.chart = cluster, name, chart
        self.core = f"/api/v1/namespaces/{name}"
        cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
        # In a complete cluster a controller creates it; from it the chart knows that it has one.
        cluster.create(f"{self.core}/serviceaccounts", {"metadata": {"name": "default"}})
        self.helm = import_module("helm_python").Config(
            kubeconfig_content=cluster.kubeconfig, namespace=name
        )

    def secret(self, name: str, *keys: str) -> None:
        data = {key: base64.b64encode(b"x" * 40).decode() for key in keys}
        self.cluster.create(f"{self.core}/secrets", {"metadata": {"name": name}, "data": data})

    def deployment(self) -> Object:
        path = f"/apis/apps/v1/namespaces/{self.name}/deployments/demo-token-broker"
        return self.cluster.request("GET", path)

    def image(self) -> str:
        return str(self.deployment()["spec"]["template"]["spec"]["containers"][0]["image"])

    def apply(self, action: str, values: Object, *, outcome: str = "Complete") -> Object:
        """Install or upgrade, while the migration's Job ends with this outcome."""
        errors: list[BaseException] = []
        result: list[Object] = []

        def work() -> None:
            method: Any = getattr(self.helm, action)
            arguments = (self.chart, "demo", values)
            try:
                result.append(method(*arguments, namespace=self.name, timeout=60))
            except BaseException as error:
                errors.append(error)

        worker = threading.Thread(target=work)
        worker.start()
        if values.get("migrations", {}).get("mode", "hook") == "hook":
            self._end_job(worker, outcome)
        worker.join(90)
        assert not worker.is_alive()
        if errors:
            raise errors[0]
        return result[0]

    def _end_job(self, worker: threading.Thread, outcome: str) -> None:
        """Report the end of the pod, as the Job controller does; repeat until Helm has seen it."""
        jobs = JOBS.format(self.name)
        while worker.is_alive():
            if HOOK in self.cluster.names(jobs):
                now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
                ended = {"type": outcome, "status": "True", "lastProbeTime": now}
                with suppress(urllib.error.HTTPError):  # Helm deleted it meanwhile.
                    self.cluster.patch_status(f"{jobs}/{HOOK}", {"conditions": [ended]})
            worker.join(0.5)


@pytest.fixture
def namespace(cluster: Cluster, chart: Path, request: pytest.FixtureRequest) -> Namespace:
    name = f"n{abs(hash(request.node.name)) % 10**8}"
    created = Namespace(cluster, name, chart)
    created.secret("broker-secrets", *KEYS)
    return created


def test_install_upgrade_rollback_uninstall(namespace: Namespace, cluster: Cluster) -> None:
    routes = merged(OLD_SERVER, INGRESS, {"image": {"tag": "1.0.0"}})
    namespace.apply("install", routes)
    assert namespace.image().endswith(":1.0.0")
    services = {"demo-token-broker", "demo-token-broker-internal", "demo-token-broker-ops"}
    assert cluster.names(f"{namespace.core}/services") == services
    network = f"/apis/networking.k8s.io/v1/namespaces/{namespace.name}"
    listeners = {f"demo-token-broker-{name}" for name in ("public", "internal", "ops", "egress")}
    assert cluster.names(f"{network}/networkpolicies") == listeners
    assert cluster.names(f"{network}/ingresses") == {"demo-token-broker"}
    assert not cluster.names(JOBS.format(namespace.name))

    before = namespace.deployment()["metadata"]["generation"]
    namespace.apply("upgrade", merged(routes, at("callers.file", CALLER)))
    callers = cluster.request("GET", f"{namespace.core}/configmaps/demo-token-broker-callers")
    assert "calendar-sync" in callers["data"]["callers.yaml"]
    assert namespace.deployment()["metadata"]["generation"] == before, "the callers need no restart"

    namespace.apply("upgrade", merged(routes, {"image": {"tag": "2.0.0"}}))
    assert namespace.image().endswith(":2.0.0")
    namespace.helm.rollback("demo", version=1)
    assert namespace.image().endswith(":1.0.0")

    namespace.helm.uninstall("demo")
    assert not cluster.names(f"{namespace.core}/services")
    assert not cluster.names(f"{network}/networkpolicies")
    assert not cluster.names(JOBS.format(namespace.name))
    assert cluster.names(f"{namespace.core}/secrets") == {"broker-secrets"}


def test_if_a_migration_fails_the_old_release_keeps_serving(namespace: Namespace) -> None:
    namespace.apply("install", merged(OLD_SERVER, {"image": {"tag": "1.0.0"}}))
    before = namespace.deployment()
    values = merged(OLD_SERVER, {"image": {"tag": "2.0.0"}})
    with pytest.raises(import_module("helm_python").HelmError, match=r"pre-upgrade hooks failed"):
        namespace.apply("upgrade", values, outcome="Failed")
    after = namespace.deployment()
    assert after["spec"] == before["spec"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    # Its log is readable, and the next attempt replaces it.
    jobs = JOBS.format(namespace.name)
    assert namespace.cluster.names(jobs) == {HOOK}
    namespace.apply("upgrade", values)
    assert namespace.image().endswith(":2.0.0")


def test_a_missing_secret_gives_one_line_and_changes_nothing(namespace: Namespace) -> None:
    values = merged(OLD_SERVER, at("secrets.existingSecret", "absent"))
    line = f"the Secret absent is not in namespace {namespace.name}; it must hold DATABASE_URL"
    with pytest.raises(import_module("helm_python").HelmError, match=line):
        namespace.helm.install(namespace.chart, "demo", values, namespace=namespace.name)
    assert not namespace.cluster.names(f"{namespace.core}/services")
    assert namespace.cluster.names(f"{namespace.core}/secrets") == {"broker-secrets"}


def test_a_missing_key_is_named(namespace: Namespace) -> None:
    namespace.secret("partial", *KEYS[1:])
    values = merged(OLD_SERVER, at("secrets.existingSecret", "partial"))
    line = f"the Secret partial in namespace {namespace.name} has no key DATABASE_URL"
    with pytest.raises(import_module("helm_python").HelmError, match=line):
        namespace.helm.install(namespace.chart, "demo", values, namespace=namespace.name)


def test_a_secret_may_be_part_of_the_release_if_no_hook_needs_it(namespace: Namespace) -> None:
    values = merged(OLD_SERVER, at("secrets.existingSecret", "absent"))
    namespace.apply("install", merged(values, at("migrations.mode", "initContainer")))
    assert namespace.image()


def test_a_trial_leaves_no_secret_of_the_hook(namespace: Namespace) -> None:
    namespace.apply("install", merged(OLD_SERVER, TRIAL))
    names = namespace.cluster.names(f"{namespace.core}/secrets")
    assert {name for name in names if not name.startswith("sh.helm")} == {
        "broker-secrets",
        "demo-token-broker",
    }


def test_the_server_accepts_every_object(namespace: Namespace) -> None:
    """A dry run on the server: nothing is stored."""
    result = namespace.helm.install(
        namespace.chart,
        "demo",
        merged(OLD_SERVER, INGRESS, at("callers.file", CALLER)),
        namespace=namespace.name,
        dry_run="server",
    )
    assert "kind: Deployment" in result["manifest"]
    assert not namespace.cluster.names(f"{namespace.core}/services")
