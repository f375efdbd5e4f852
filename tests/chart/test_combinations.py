"""Combinations of values that operators may choose: the rendered objects are always valid."""

from typing import Any

import pytest

from tests.chart.rendering import (
    MINIMAL,
    MONITORING,
    NEWEST,
    OLDEST,
    Object,
    complaints,
    merged,
    of_kind,
    refusal,
    render,
    render_texts,
    the,
)
from tests.chart.switches import CONTAINER, DRILL, INGRESS, ROUTE, SCALING, TRIAL, VAULT, at

CALLBACK = "/auth/google/callback"
NO_USER = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
EACH_SECRET = {
    name: {"name": "app", "key": name.lower()}
    for name in ("DATABASE_URL", "SECRET_KEY", "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET")
}


def _redirect(*addresses: str) -> Object:
    return at("settings.GOOGLE_REDIRECT_URI", ", ".join(f"{one}{CALLBACK}" for one in addresses))


def _caller(**fields: Any) -> Object:
    caller = {"can": ["tokens:read"], "users": ["*"], **fields}
    return at("callers.file", {"callers": {"a": caller}})


COMBINATIONS: dict[str, Object] = {
    "OpenShift": {"podSecurityContext": NO_USER},
    "OpenShift with a drill": merged(
        DRILL, {"podSecurityContext": NO_USER}, at("drill.podSecurityContext", NO_USER)
    ),
    "no security context of a drill's": merged(DRILL, at("drill.podSecurityContext", None)),
    "no security contexts": {"podSecurityContext": None, "securityContext": None},
    "no resources": {"resources": {"requests": None, "limits": None}},
    "no resources of a drill": merged(DRILL, at("drill.resources", None)),
    "settings unset": {"settings": {"BROKER_LOG_LEVEL": None, "BROKER_SECRET_SOURCE": None}},
    "settings that YAML would take for others": {
        "settings": {"VAULT_NAMESPACE": "a: b # \"'{{ x }}", "VAULT_KV_PATH": "0123"}
    },
    "a webhook with a query": at("settings.BROKER_WEBHOOK_URL", "https://x.example.com/?a=b&c=#d"),
    "numbers": {
        "settings": {"BROKER_STALE_TOKENS_AT_MOST": 2, "BROKER_AUDIT_RETENTION_DAYS": 36500}
    },
    "one host, two ports": merged(
        INGRESS, ROUTE, _redirect("https://a.example.com", "https://a.example.com:8443")
    ),
    "capitals in a host": merged(INGRESS, ROUTE, _redirect("https://App.Example.com")),
    "on one's own machine": merged(INGRESS, ROUTE, _redirect("http://localhost:8000")),
    "sixteen hosts": merged(ROUTE, _redirect(*(f"https://h{i}.example.com" for i in range(16)))),
    "an address, unpublished": _redirect("http://127.0.0.1:8000", "https://[2001:db8::1]:8443"),
    "a trial with all": merged(
        TRIAL,
        DRILL,
        at("settings.BROKER_WEBHOOK_URL", "https://x.example.com"),
        at("secrets.values.BROKER_WEBHOOK_SECRET", "whsec_x"),
    ),
    "a trial with a credentials file": merged(
        TRIAL,
        at("settings.BROKER_SECRET_SOURCE", "file"),
        at("secrets.values.GOOGLE_CREDENTIALS_FILE", '{"web": {"client_id": "x"}}'),
    ),
    "a trial on CloudNativePG": merged(
        TRIAL, at("secrets.from", {"DATABASE_URL": {"name": "app-db-app", "key": "uri"}})
    ),
    "each secret from elsewhere": {"secrets": {"existingSecret": "", "from": EACH_SECRET}},
    "all from the environment, with a drill": merged(
        DRILL,
        at("secrets.existingSecret", ""),
        {"extraEnvFrom": [{"secretRef": {"name": "all", "optional": True}}, {"prefix": "A_"}]},
    ),
    "a field in the environment": {
        "extraEnv": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    },
    "long names": {"fullnameOverride": "a" * 45 + "-" + "b" * 17},
    "another name": {"nameOverride": "x" * 63},
    "long tags": {"image": {"repository": "localhost:5000/a/b", "tag": "v1_" + "b" * 124 + "-"}},
    "labels that are the chart's": {
        "commonLabels": {"app.kubernetes.io/component": "x", "n": "1.0", "empty": ""},
        "podLabels": {"helm.sh/chart": "x", "app.kubernetes.io/instance": "y"},
    },
    "annotations that are the chart's": merged(
        TRIAL,
        {
            "podAnnotations": {
                "checksum/secret": "mine",
                "kubectl.kubernetes.io/default-container": "side",
                "text": "two\nlines: # {{ x }}",
            }
        },
    ),
    "no replicas": {"replicaCount": 0},
    "scaling to a fixed number": merged(
        SCALING, {"autoscaling": {"minReplicas": 4, "behavior": None, "targetCPU": "0.7"}}
    ),
    "no wait": {"preStopSeconds": 0, "terminationGracePeriodSeconds": 25},
    "the longest wait": {"preStopSeconds": 300, "terminationGracePeriodSeconds": 325},
    "any node": {"tolerations": [{"operator": "Exists"}], "nodeSelector": {"gpu": "true"}},
    "an account of others": {"serviceAccount": {"create": False, "name": "x.y"}},
    "tokens, and Vault's": merged(
        VAULT,
        at("settings.VAULT_AUTH", "jwt"),
        at("serviceAccount.tokens", [{"path": "a.b", "audience": ""}]),
        {"extraContainers": [CONTAINER], "extraInitContainers": [CONTAINER | {"name": "b"}]},
    ),
    "Vault with a drill": merged(VAULT, DRILL, at("migrations.mode", "initContainer")),
    "no egress but DNS": {"networkPolicy": {"egress": {"ports": []}}},
    "egress by rules": {
        "networkPolicy": {
            "egress": {
                "rules": [
                    {
                        "to": [{"namespaceSelector": {}}],
                        "ports": [{"port": "https"}, {"port": 1, "endPort": 9}],
                    },
                    {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
                ]
            }
        }
    },
    "no policies": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
    "a name in Japanese": _caller(display_name='カレンダー: "x" # \u2028'),
    "user ids that YAML would take for others": _caller(users=["0123", "true", "1e5", "~"]),
    "large and small limits": _caller(
        rate_limit={"requests_per_second": 0.01, "burst": 10_000_000}
    ),
    "monitoring without its labels": {
        "monitoring": {
            "serviceMonitor": {"mode": "always", "interval": "1m30s"},
            "prometheusRule": {"mode": "always", "alertLabels": {"severity": "page"}},
            "dashboard": {"mode": "always", "labels": {"grafana_dashboard": None}},
        }
    },
    "a drill of many values": merged(
        DRILL,
        {
            "drill": {
                "volume": {"persistentVolumeClaim": {"claimName": "b", "readOnly": True}},
                "schedule": "*/5 0-23/2 1,15 JAN-DEC MON",
                "args": ["--backups", "/backups", "--patience", "60"],
                "workSize": "1.5Gi",
            }
        },
    ),
    "a balancer of the cloud's": {
        "services": {"public": {"type": "LoadBalancer", "port": 443}, "internal": {"port": 65535}}
    },
    "part of another chart": {"global": {"imageRegistry": "x"}, "replicaCount": 3.0},
    "objects with templates": {
        "extraObjects": [
            "{{- if true }}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n{{- end }}",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-b"},
                "data": {"literal": '{{ "{{ x }}" }}'},
            },
        ]
    },
}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_combination_renders_to_valid_objects(name: str) -> None:
    values = merged(MINIMAL, COMBINATIONS[name])
    objects = render(values, apis=MONITORING)
    assert not [line for one in objects for line in complaints(one, NEWEST)]
    assert "{{" not in render_texts(values, apis=MONITORING)["NOTES.txt"]
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", list(COMBINATIONS)[::6])
def test_a_combination_renders_to_valid_objects_on_the_oldest_version(name: str) -> None:
    objects = render(merged(MINIMAL, COMBINATIONS[name]), kube=OLDEST, apis=MONITORING)
    assert not [line for one in objects for line in complaints(one, OLDEST)]


@pytest.mark.parametrize("release", ["r" * 53, "my.release.1", "x"])
def test_any_release_name_gives_valid_service_names(release: str) -> None:
    objects = render(MINIMAL, release=release)
    names = [one["metadata"]["name"] for one in of_kind(objects, "Service")]
    assert all(len(name) <= 63 and "." not in name for name in names)


REFUSED = [
    (merged(INGRESS, _redirect("https://[2001:db8::1]:8443")), "[2001:db8::1] is no DNS name"),
    (merged(ROUTE, _redirect("http://127.0.0.1:8000")), "127.0.0.1 is no DNS name"),
    (
        merged(ROUTE, _redirect(*(f"https://h{i}.example.com" for i in range(17)))),
        "has 17 hosts, and an HTTPRoute takes 16",
    ),
    *(
        ({"extraVolumeMounts": [{"name": "x", "mountPath": path}]}, f"of its own in {path}")
        for path in ("/etc/token-broker/callers/callers.yaml", "/var/run/secrets/token-broker")
    ),
    (at("podLabels", {"a": "not a label"}), "/podLabels/a"),
    (at("monitoring.serviceMonitor.labels", {"a": "x" * 64}), "labels/a"),
    (at("settings.BROKER_AUDIT_RETENTION_DAYS", 36501), "BROKER_AUDIT_RETENTION_DAYS"),
    (at("drill.schedule", "CRON_TZ=UTC 0 1 * * *"), "/drill/schedule"),
]


@pytest.mark.parametrize(("values", "line"), REFUSED)
def test_the_chart_refuses_what_the_cluster_or_the_broker_would_refuse(
    values: Object, line: str
) -> None:
    message = refusal(merged(MINIMAL, values))
    assert sum(line in one for one in message.splitlines()) == 1, message


def test_a_release_whose_name_begins_with_a_digit_needs_an_override() -> None:
    assert "1st-token-broker can't be the name of a Service" in refusal(MINIMAL, release="1st")
    assert render(merged(MINIMAL, {"fullnameOverride": "first"}), release="1st")


def test_the_job_label_of_the_metrics_is_independent_of_the_charts_name() -> None:
    """The alerts and the dashboard select by it."""
    objects = render(merged(MINIMAL, {"nameOverride": "vault"}), apis=MONITORING)
    label = the(objects, "ServiceMonitor")["spec"]["jobLabel"]
    (service,) = (
        one for one in of_kind(objects, "Service") if one["metadata"]["name"].endswith("-ops")
    )
    assert service["metadata"]["labels"][label] == "token-broker"


def test_the_pods_own_annotations_win() -> None:
    objects = render(
        merged(MINIMAL, TRIAL, COMBINATIONS["annotations that are the chart's"]), apis=MONITORING
    )
    annotations = the(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "broker"
    assert annotations["checksum/secret"] != "mine"
    assert annotations["text"]
