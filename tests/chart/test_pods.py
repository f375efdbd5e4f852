"""The pods: hardening, secret files, termination and causes of a restart."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from broker.callers.callers_file import parse_callers
from broker.database.shares import POOL_SIZE
from broker.settings import load_settings
from tests.chart.rendering import (
    CHART,
    MINIMAL,
    MONITORING,
    OLDEST,
    Object,
    broker,
    environment,
    merged,
    of_kind,
    pod_specs,
    render,
    the,
)
from tests.chart.switches import CALLER, DRILL, EVERYTHING, SCALING, TRIAL, TRIAL_VALUES, VAULT, at

SECRETS = "/etc/token-broker/secrets"
LISTENING = 1
"""Connections of a replica outside of its pool: for notifications of the change feed."""


def _pod(objects: list[Object]) -> Object:
    return dict(the(objects, "Deployment")["spec"]["template"]["spec"])


def _sources(spec: Object, volume: str = "secrets") -> list[Object]:
    (found,) = (one for one in spec["volumes"] if one["name"] == volume)
    return list(found["projected"]["sources"])


def _files(spec: Object) -> dict[str, tuple[str, str]]:
    """Return for each secret file the Secret and the key of its content."""
    return {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in _sources(spec)
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize("values", [{}, DRILL, at("migrations.mode", "initContainer"), TRIAL])
def test_every_pod_meets_the_restricted_pod_security_standard(values: Object) -> None:
    specs = list(pod_specs(render(merged(MINIMAL, values))))
    assert specs
    for spec in specs:
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] in {65532, 999}
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert not [one for one in spec.get("volumes", []) if "hostPath" in one]
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["privileged"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_secrets_are_files_that_the_group_may_read() -> None:
    objects = render(MINIMAL)
    spec = _pod(objects)
    names = ["DATABASE_URL", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "SECRET_KEY"]
    assert _files(spec) == {name: ("broker-secrets", name) for name in names}
    variables = environment(broker(objects))
    assert {f"{name}_FILE": f"{SECRETS}/{name}" for name in names}.items() <= variables.items()
    assert not set(names) & variables.keys()
    (volume,) = (one for one in spec["volumes"] if one["name"] == "secrets")
    assert volume["projected"]["defaultMode"] == 0o440
    assert spec["securityContext"]["fsGroup"] == 65532


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"BROKER_SECRET_SOURCE": "file"}, {"GOOGLE_CREDENTIALS_FILE": "credentials.json"}),
        (VAULT["settings"] | {"VAULT_AUTH": "token"}, {"VAULT_TOKEN": "VAULT_TOKEN"}),
        (
            VAULT["settings"] | {"VAULT_AUTH": "approle"},
            {"VAULT_ROLE_ID": "VAULT_ROLE_ID", "VAULT_SECRET_ID": "VAULT_SECRET_ID"},
        ),
        (VAULT["settings"], {}),
    ],
)
def test_each_secret_source_needs_its_own_keys(settings: Object, expected: dict[str, str]) -> None:
    spec = _pod(render(merged(MINIMAL, {"settings": settings})))
    both = {"DATABASE_URL": "DATABASE_URL", "SECRET_KEY": "SECRET_KEY"} | expected
    assert {path: key for path, (_, key) in _files(spec).items()} == both


def test_the_credentials_file_is_named_without_another_file() -> None:
    values = merged(MINIMAL, at("settings.BROKER_SECRET_SOURCE", "file"))
    variables = environment(broker(render(values)))
    assert variables["GOOGLE_CREDENTIALS_FILE"] == f"{SECRETS}/GOOGLE_CREDENTIALS_FILE"


def test_a_webhook_needs_its_secret() -> None:
    values = merged(MINIMAL, at("settings.BROKER_WEBHOOK_URL", "https://app.example.com/hook"))
    assert "BROKER_WEBHOOK_SECRET" in _files(_pod(render(values)))


def test_single_settings_may_come_from_other_secrets() -> None:
    places = {"DATABASE_URL": {"name": "app-db", "key": "uri"}, "DATABASE_REPLICA_URL": {}}
    objects = render(merged(MINIMAL, at("secrets.from", places)))
    files = _files(_pod(objects))
    assert files["DATABASE_URL"] == ("app-db", "uri")
    assert files["DATABASE_REPLICA_URL"] == ("broker-secrets", "DATABASE_REPLICA_URL")
    assert _files(the(objects, "Job")["spec"]["template"]["spec"]) == {
        "DATABASE_URL": ("app-db", "uri")
    }


def test_the_credentials_file_may_come_from_elsewhere_too() -> None:
    values = merged(
        at("settings.BROKER_SECRET_SOURCE", "file"),
        {"extraEnv": [{"name": "GOOGLE_CREDENTIALS_FILE", "value": "/mnt/credentials.json"}]},
    )
    objects = render(merged(MINIMAL, values))
    assert environment(broker(objects))["GOOGLE_CREDENTIALS_FILE"] == "/mnt/credentials.json"
    assert "GOOGLE_CREDENTIALS_FILE" not in _files(_pod(objects))


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_URL_FILE"])
def test_a_variable_of_extra_env_is_not_read_from_a_secret(name: str) -> None:
    objects = render(merged(MINIMAL, {"extraEnv": [{"name": name, "value": "x"}]}))
    assert "DATABASE_URL" not in _files(_pod(objects))
    job = the(objects, "Job")["spec"]["template"]["spec"]
    for container in (broker(objects), job["containers"][0]):
        variables = environment(container)
        assert variables[name] == "x"
        assert len({"DATABASE_URL", "DATABASE_URL_FILE"} & variables.keys()) == 1
    assert "volumes" not in job


def test_with_extra_env_from_no_secret_is_required() -> None:
    values = {"secrets": {"existingSecret": ""}, "extraEnvFrom": [{"secretRef": {"name": "all"}}]}
    objects = render(merged(MINIMAL, values))
    assert broker(objects)["envFrom"] == [{"secretRef": {"name": "all"}}]
    assert the(objects, "Job")["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert "secrets" not in [one["name"] for one in _pod(objects)["volumes"]]


def test_a_trial_creates_its_secret() -> None:
    objects = render(merged(MINIMAL, TRIAL))
    assert the(objects, "Secret", "")["data"].keys() == TRIAL_VALUES.keys()
    assert {name for name, _ in _files(_pod(objects)).values()} == {"demo-token-broker"}


def test_vault_gets_a_token_of_its_own_audience() -> None:
    objects = render(merged(MINIMAL, VAULT))
    (source,) = _sources(_pod(objects), "vault-token")
    token = {"path": "token", "audience": "vault", "expirationSeconds": 3600}
    assert source == {"serviceAccountToken": token}
    (mount,) = (one for one in broker(objects)["volumeMounts"] if one["name"] == "vault-token")
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    assert environment(broker(objects))["VAULT_ROLE"] == "token-broker"
    # Migrations do not log in to Vault.
    assert "vault-token" not in str(of_kind(objects, "Job"))


def test_other_tokens_have_their_own_audiences() -> None:
    tokens = [{"path": "api"}, {"path": "agent", "audience": "vault", "expirationSeconds": 600}]
    objects = render(merged(MINIMAL, at("serviceAccount.tokens", tokens)))
    assert _sources(_pod(objects), "tokens") == [
        {"serviceAccountToken": {"path": "api", "expirationSeconds": 3600}},
        {"serviceAccountToken": {"path": "agent", "audience": "vault", "expirationSeconds": 600}},
    ]


def test_listeners_are_reachable_in_the_pod() -> None:
    variables = environment(broker(render(MINIMAL)))
    assert variables["BROKER_PUBLIC_LISTEN"] == "0.0.0.0:8000"
    assert variables["BROKER_INTERNAL_LISTEN"] == "0.0.0.0:8001"
    assert variables["BROKER_OPS_LISTEN"] == "0.0.0.0:8002"
    variables = environment(broker(render(merged(MINIMAL, at("listenAddress", "::")))))
    assert variables["BROKER_OPS_LISTEN"] == "[::]:8002"


def test_integers_are_not_rendered_as_floats() -> None:
    values = merged(MINIMAL, at("settings.BROKER_STALE_TOKENS_AT_MOST", 86400))
    assert environment(broker(render(values)))["BROKER_STALE_TOKENS_AT_MOST"] == "86400"


def _template(values: Object) -> Object:
    return dict(the(render(merged(MINIMAL, values)), "Deployment")["spec"]["template"])


@pytest.mark.parametrize(
    "change",
    [
        {"callers": {"file": CALLER}},
        {"networkPolicy": {"enabled": False}},
        {"services": {"public": {"port": 81}}},
        {"monitoring": {"serviceMonitor": {"interval": "5s"}}},
        {"replicaCount": 5},
        {"ingress": {"enabled": True}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_that_needs_no_restart_causes_none(change: Object) -> None:
    assert _template(change) == _template({})


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"BROKER_LOG_LEVEL": "DEBUG"}},
        merged(TRIAL, {"secrets": {"values": {"DATABASE_URL": "postgresql://other/db"}}}),
    ],
)
def test_a_change_of_something_read_at_the_start_restarts_the_pods(change: Object) -> None:
    base = TRIAL if "secrets" in change else {}
    assert _template(change) != _template(base)


def test_a_newer_chart_alone_restarts_nothing(sampled: Path, tmp_path: Path) -> None:
    newer = tmp_path / "chart"
    shutil.copytree(sampled, newer)
    chart = (newer / "Chart.yaml").read_text("utf-8").replace("\nversion: ", "\nversion: 9")
    (newer / "Chart.yaml").write_text(chart, "utf-8")
    before, after = (the(render(MINIMAL, chart=path), "Deployment") for path in (sampled, newer))
    assert before["metadata"]["labels"] != after["metadata"]["labels"]
    assert before["spec"] == after["spec"]


def test_the_callers_file_is_mounted_as_a_folder() -> None:
    """A file that is mounted by `subPath` is never updated."""
    objects = render(merged(MINIMAL, at("callers.file", CALLER)))
    (mount,) = (one for one in broker(objects)["volumeMounts"] if one["name"] == "callers")
    assert "subPath" not in mount
    path = environment(broker(objects))["BROKER_CALLERS_FILE"]
    assert path == mount["mountPath"] + "/callers.yaml"


def test_the_broker_accepts_the_rendered_callers_file() -> None:
    objects = render(merged(MINIMAL, at("callers.file", CALLER)))
    text = the(objects, "ConfigMap", "-callers")["data"]["callers.yaml"]
    assert {caller.name for caller in parse_callers(text).callers} == {"calendar-sync", "mail"}


def test_the_broker_accepts_the_rendered_settings(tmp_path: Path) -> None:
    variables = environment(broker(render(MINIMAL)))
    values = dict(TRIAL_VALUES)
    for name, value in values.items():
        file = tmp_path / name
        file.write_text(value, "utf-8")
        assert variables.pop(f"{name}_FILE") == f"{SECRETS}/{name}"
        variables[f"{name}_FILE"] = str(file)
    settings = load_settings({name: str(value) for name, value in variables.items()})
    assert settings.public_listen.port == 8000
    assert not settings.warnings


def test_pods_keep_serving_before_they_stop() -> None:
    stop = broker(render(MINIMAL))["lifecycle"]["preStop"]
    assert stop == {"sleep": {"seconds": 5}}
    older = broker(render(MINIMAL, kube="v1.29.0"))["lifecycle"]["preStop"]
    assert older["exec"]["command"] == ["python", "-c", "import time; time.sleep(5)"]
    assert _pod(render(MINIMAL))["terminationGracePeriodSeconds"] == 30
    assert "lifecycle" not in broker(render(merged(MINIMAL, {"preStopSeconds": 0})))


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({}, 1),
        ({"replicaCount": 1}, 0),
        ({"replicaCount": 0}, 0),
        (SCALING, 1),
        (merged(SCALING, at("autoscaling.minReplicas", 1)), 0),
        (at("podDisruptionBudget.enabled", False), 0),
    ],
)
def test_a_disruption_budget_is_there_with_several_replicas_only(
    values: Object, count: int
) -> None:
    budgets = of_kind(render(merged(MINIMAL, values)), "PodDisruptionBudget")
    assert len(budgets) == count
    for budget in budgets:
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_autoscaling_controls_the_number_of_replicas() -> None:
    objects = render(merged(MINIMAL, SCALING))
    assert "replicas" not in the(objects, "Deployment")["spec"]
    assert the(objects, "HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2


def test_autoscaling_is_relative_to_the_core_that_a_replica_can_use() -> None:
    """Not a share of the request, which has another meaning and which a sidecar may lack."""
    objects = render(merged(MINIMAL, SCALING))
    (metric,) = the(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert metric["resource"] == {
        "name": "cpu",
        "target": {"type": "AverageValue", "averageValue": "500m"},
    }


def test_the_default_replicas_fit_into_the_connections_that_are_documented() -> None:
    spec = the(render(merged(MINIMAL, SCALING)), "HorizontalPodAutoscaler")["spec"]
    each = POOL_SIZE + LISTENING
    text = (CHART / "values.yaml").read_text("utf-8")
    assert f"Each may open {each} connections to PostgreSQL" in text
    # An upgrade starts one additional replica.
    assert f"{each * (spec['maxReplicas'] + 1)} for {spec['maxReplicas']} replicas" in text


def test_pods_spread_over_zones_and_nodes_as_far_as_possible() -> None:
    spread = _pod(render(MINIMAL))["topologySpreadConstraints"]
    keys = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert [one["topologyKey"] for one in spread] == keys
    assert {one["whenUnsatisfiable"] for one in spread} == {"ScheduleAnyway"}
    assert all(one["matchLabelKeys"] == ["pod-template-hash"] for one in spread)
    older = _pod(render(MINIMAL, kube=OLDEST))["topologySpreadConstraints"]
    assert all("matchLabelKeys" not in one for one in older)


def test_pod_labels_do_not_replace_those_that_select() -> None:
    template = _template({"podLabels": {"app.kubernetes.io/name": "other", "team": "identity"}})
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "token-broker"
    assert template["metadata"]["labels"]["team"] == "identity"


def test_only_brokers_are_selected() -> None:
    """Pods of migrations, drills and `helm test` get no requests of callers."""
    objects = render(merged(MINIMAL, EVERYTHING), apis=MONITORING)
    pods: list[Any] = [the(objects, "Job")["spec"]["template"], the(objects, "Pod")]
    pods.append(the(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"])
    for service in of_kind(objects, "Service"):
        selector = service["spec"]["selector"].items()
        assert (
            selector <= the(objects, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
        )
        assert not [pod for pod in pods if selector <= pod["metadata"]["labels"].items()]
