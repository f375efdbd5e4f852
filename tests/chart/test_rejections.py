"""Values that the chart rejects, each with one clear line, before anything changes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import CHART, MINIMAL, Object, merged, refusal, render
from tests.chart.switches import (
    CALLER,
    DRILL,
    EVERYTHING,
    SWITCHES,
    TRIAL,
    VAULT,
    at,
)

CALLER_OF = {"can": ["tokens:read"], "users": ["*"]}

OUTSIDE_THE_SCHEMA: list[tuple[str, Any, str]] = [
    ("replicaCount", "3", "/replicaCount"),
    ("replicaCount", -1, "/replicaCount"),
    ("image.repository", "registry.example.com/Broker image", "/image/repository"),
    ("image.tag", "a b", "/image/tag"),
    ("image.digest", "sha256:abc", "/image/digest"),
    ("image.pullPolicy", "Sometimes", "/image/pullPolicy"),
    ("imagePullSecrets", ["name"], "/imagePullSecrets/0"),
    ("settings.DATABASE_URL", "postgresql://db", "DATABASE_URL"),
    ("settings.SECRET_KEY", "k" * 40, "SECRET_KEY"),
    ("settings.GOOGLE_CLIENT_SECRET", "s", "GOOGLE_CLIENT_SECRET"),
    ("settings.BROKER_PUBLIC_LISTEN", "0.0.0.0:1", "BROKER_PUBLIC_LISTEN"),
    ("settings.BROKER_LOGLEVEL", "INFO", "BROKER_LOGLEVEL"),
    ("settings.BROKER_LOG_LEVEL", "LOUD", "/settings/BROKER_LOG_LEVEL"),
    ("settings.BROKER_SECRET_SOURCE", "paper", "/settings/BROKER_SECRET_SOURCE"),
    ("settings.BROKER_KEY_SOURCE", "none", "/settings/BROKER_KEY_SOURCE"),
    ("settings.BROKER_ACCESS_TOKENS", "plain", "/settings/BROKER_ACCESS_TOKENS"),
    ("settings.BROKER_STALE_TOKENS_AT_MOST", 1, "/settings/BROKER_STALE_TOKENS_AT_MOST"),
    ("settings.BROKER_AUDIT_RETENTION_DAYS", -1, "/settings/BROKER_AUDIT_RETENTION_DAYS"),
    ("settings.BROKER_TRUSTED_PROXIES", "proxy.local", "/settings/BROKER_TRUSTED_PROXIES"),
    ("settings.GOOGLE_REDIRECT_URI", "http://app.example.com/x", "/settings/GOOGLE_REDIRECT_URI"),
    ("settings.GOOGLE_SCOPES", "a,b", "/settings/GOOGLE_SCOPES"),
    ("settings.VAULT_ADDR", "http://vault:8200", "/settings/VAULT_ADDR"),
    ("settings.VAULT_AUTH", "ldap", "/settings/VAULT_AUTH"),
    ("secrets.existingSecret", "Not A Name", "/secrets/existingSecret"),
    ("secrets.from", {"PASSWORD": {"name": "a"}}, "PASSWORD"),
    ("secrets.from", {"DATABASE_URL": {"secret": "a"}}, "/secrets/from/DATABASE_URL"),
    ("secrets.values", {"SECRET_KEY": "short"}, "/secrets/values/SECRET_KEY"),
    ("secrets.values", {"OTHER": "x"}, "OTHER"),
    ("callers.file", {"callers": {"a b": CALLER_OF}}, "a b"),
    ("callers.file", {"callers": {"a": {"can": ["tokens:write"], "users": ["*"]}}}, "/can/0"),
    ("callers.file", {"callers": {"a": {"can": ["tokens:read"]}}}, "users"),
    ("callers.file", {"callers": {"a": CALLER_OF | {"keys": ["plain-key"]}}}, "/keys/0"),
    ("callers.file", {"callers": {"a": CALLER_OF | {"key": "x"}}}, "key"),
    ("callers.file", {"callers": {}, "issuers": {"https://i": {"alg": 1}}}, "alg"),
    (
        "callers.file",
        {"callers": {}, "issuers": {"https://i": {"algorithms": ["none"]}}},
        "/algorithms/0",
    ),
    ("migrations.mode", "manual", "/migrations/mode"),
    ("migrations.backoffLimit", 99, "/migrations/backoffLimit"),
    ("serviceAccount.tokens", [{"audience": "x"}], "/serviceAccount/tokens/0"),
    ("serviceAccount.tokens", [{"path": "../x"}], "/serviceAccount/tokens/0/path"),
    ("serviceAccount.tokens", [{"path": "x", "expirationSeconds": 60}], "expirationSeconds"),
    ("vaultToken.audience", "", "/vaultToken/audience"),
    ("listenAddress", "127.0.0.1", "/listenAddress"),
    ("services.public.type", "ExternalName", "/services/public/type"),
    ("services.public.port", 0, "/services/public/port"),
    ("services.internal.type", "LoadBalancer", "/services/internal"),
    ("services.ops", {"type": "NodePort"}, "/services"),
    ("ingress.hosts", ["other.example.com"], "/ingress"),
    ("ingress.internal", True, "/ingress"),
    ("ingress.service", "internal", "/ingress"),
    ("httpRoute.rules", [], "/httpRoute"),
    ("httpRoute.backendRefs", [{"name": "demo-token-broker-internal"}], "/httpRoute"),
    ("httpRoute.parentRefs", [{"namespace": "x"}], "/httpRoute/parentRefs/0"),
    ("networkPolicy.internal.from", [], "/networkPolicy/internal/from"),
    ("networkPolicy.ops.from", [], "/networkPolicy/ops/from"),
    ("networkPolicy.internal.from", [{}], "/networkPolicy/internal/from/0"),
    ("networkPolicy.public.from", [{"pods": {}}], "/networkPolicy/public/from/0"),
    ("networkPolicy.egress.ports", ["https"], "/networkPolicy/egress/ports/0"),
    ("autoscaling.targetMemory", 80, "/autoscaling"),
    ("autoscaling.minReplicas", 0, "/autoscaling/minReplicas"),
    ("autoscaling.targetCPU", "70%", "/autoscaling/targetCPU"),
    ("autoscaling.targetCPUUtilizationPercentage", 70, "/autoscaling"),
    ("secrets.mustExist", False, "/secrets"),
    ("topologySpreadConstraints", [{"maxSkew": 1}], "/topologySpreadConstraints/0"),
    ("preStopSeconds", "5s", "/preStopSeconds"),
    ("terminationGracePeriodSeconds", 10, "/terminationGracePeriodSeconds"),
    ("tolerations", [{"effects": "x"}], "/tolerations/0"),
    ("affinity", {"podAffinities": {}}, "/affinity"),
    ("resources", {"request": {}}, "/resources"),
    ("podSecurityContext", {"runAsRoot": True}, "/podSecurityContext"),
    ("securityContext", {"readonlyRootFilesystem": True}, "/securityContext"),
    ("podLabels", {"a": 1}, "/podLabels/a"),
    ("monitoring.serviceMonitor.mode", "on", "/monitoring/serviceMonitor/mode"),
    ("monitoring.serviceMonitor.interval", "often", "/monitoring/serviceMonitor/interval"),
    ("monitoring.serviceMonitor.relabelings", [{"action": "x"}], "relabelings/0/action"),
    ("monitoring.prometheusRule.runbookBaseUrl", "wiki", "runbookBaseUrl"),
    ("monitoring.alerts", True, "/monitoring"),
    ("drill.schedule", "weekly", "/drill/schedule"),
    ("drill.volume", {"emptyDir": {}, "hostPath": {"path": "/"}}, "/drill/volume"),
    ("drill.workSize", "much", "/drill/workSize"),
    ("drill.podSecurityContext", {"runAs": 1}, "/drill/podSecurityContext"),
    ("drill.initContainers", [{"name": "x", "port": 1}], "/drill/initContainers/0"),
    ("drill.extraEnv", [{"value": "x"}], "/drill/extraEnv/0"),
    ("drill.extraVolumes", [{"name": "x", "configmap": {}}], "/drill/extraVolumes/0"),
    ("drill.extraVolumeMounts", [{"name": "x"}], "/drill/extraVolumeMounts/0"),
    ("extraEnv", [{"value": "x"}], "/extraEnv/0"),
    ("extraEnv", [{"name": "A", "valueFrom": {"secret": "x"}}], "/extraEnv/0/valueFrom"),
    ("extraEnvFrom", [{"secret": "x"}], "/extraEnvFrom/0"),
    ("extraVolumes", [{"name": "x", "configmap": {}}], "/extraVolumes/0"),
    ("extraVolumeMounts", [{"name": "x"}], "/extraVolumeMounts/0"),
    ("extraContainers", [{"name": "x", "port": 1}], "/extraContainers/0"),
    ("extraObjects", [1], "/extraObjects/0"),
]


@pytest.mark.parametrize(("path", "value", "place"), OUTSIDE_THE_SCHEMA)
def test_a_value_outside_the_schema_is_named_in_one_line(path: str, value: Any, place: str) -> None:
    message = refusal(merged(MINIMAL, at(path, value)))
    lines = [line for line in message.splitlines() if line.startswith("- at")]
    assert any(place in line for line in lines), message
    assert "postgresql://" not in message
    assert "k" * 40 not in message


def _places(values: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Return every map in some values, except labels and similar maps with free keys."""
    free = {"annotations", "labels", "podLabels", "podAnnotations", "commonLabels", "matchLabels"}
    free |= {"nodeSelector", "requests", "limits", "extraObjects", "alertLabels", "global"}
    if path and path[-1] in free:
        return
    if isinstance(values, dict):
        yield path
        for name, part in values.items():
            yield from _places(part, (*path, name))
    elif isinstance(values, list):
        for index, part in enumerate(values):
            yield from _places(part, (*path, index))


def _with_unknown_key(values: Object, path: tuple[str | int, ...], name: str, value: Any) -> Object:
    changed: Any = json.loads(json.dumps(values))
    spot = changed
    for part in path:
        spot = spot[part]
    spot[name] = value
    return dict(changed)


def _complete() -> Object:
    """Return values with every map that the chart knows."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    chosen = [merged(context, at(path, value)) for path, (context, value) in SWITCHES.items()]
    both = merged(defaults, MINIMAL, EVERYTHING, VAULT, DRILL, *chosen)
    both["secrets"] = {"existingSecret": "a", "from": {"DATABASE_URL": {"key": "b"}}, "values": {}}
    return merged(both, {"callers": {"existingConfigMap": "", "file": CALLER}})


COMPLETE = _complete()
PLACES = list(_places(COMPLETE))
FILE = ("callers", "file")
NAMED = {("secrets", "from"), ("secrets", "values"), (*FILE, "callers"), (*FILE, "issuers")}
"""Maps whose keys are names with rules of their own."""


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)) or "top")
def test_an_unknown_key_is_refused_at_every_level(
    path: tuple[str | int, ...],
) -> None:
    message = refusal(_with_unknown_key(COMPLETE, path, "exposeInternal", True))
    assert "exposeInternal" in message
    if path not in NAMED:
        place = "".join("/" + str(part).replace("/", "~1") for part in path)
        assert f"- at '{place}': additional properties 'exposeInternal' not allowed" in message


def test_the_values_with_every_map_are_accepted_without_an_unknown_key() -> None:
    """So the test above shows that the unknown key is refused, and not the rest."""
    assert len(PLACES) > 60
    assert render(COMPLETE)


ACROSS_VALUES: list[tuple[str, Object, str]] = [
    ("no image", at("image.repository", ""), "image.repository is missing"),
    (
        "no redirect URI",
        at("settings.GOOGLE_REDIRECT_URI", ""),
        "settings.GOOGLE_REDIRECT_URI is missing",
    ),
    ("no scopes", at("settings.GOOGLE_SCOPES", ""), "settings.GOOGLE_SCOPES is missing"),
    (
        "no Secret",
        at("secrets.existingSecret", ""),
        "secrets.existingSecret is missing: a Secret with DATABASE_URL",
    ),
    (
        "a setting of a Secret without a name",
        {
            "secrets": {"existingSecret": "", "from": {"DATABASE_URL": {}}},
            "extraEnvFrom": [{"secretRef": {"name": "x"}}],
        },
        "a Secret with DATABASE_URL (for",
    ),
    ("both Secrets", merged(TRIAL, at("secrets.existingSecret", "x")), "exclude each other"),
    (
        "values without create",
        at("secrets.values", {"VAULT_TOKEN": "x"}),
        "only used with secrets.create",
    ),
    (
        "an incomplete trial",
        at("secrets", {"existingSecret": "", "create": True}),
        "secrets.values.SECRET_KEY is missing",
    ),
    ("no Vault", at("settings.BROKER_SECRET_SOURCE", "vault"), "settings.VAULT_ADDR is missing"),
    ("no role", merged(VAULT, at("settings.VAULT_ROLE", "")), "settings.VAULT_ROLE is missing"),
    ("no Gateway", at("httpRoute.enabled", True), "httpRoute.parentRefs is empty"),
    ("short grace", {"preStopSeconds": 10}, "must be at least 35: preStopSeconds + 25"),
    (
        "no room to scale",
        at("autoscaling", {"enabled": True, "minReplicas": 9}),
        "maxReplicas is less",
    ),
    ("a drill without image", at("drill.enabled", True), "drill.image.repository is missing"),
    ("a drill without volume", at("drill.enabled", True), "drill.volume is missing"),
    (
        "a setting in extraEnv",
        {"extraEnv": [{"name": "BROKER_SECRET_SOURCE", "value": "vault"}]},
        "extraEnv: BROKER_SECRET_SOURCE is refused: its place is settings.BROKER_SECRET_SOURCE",
    ),
    (
        "a login to Vault in extraEnv",
        {"extraEnv": [{"name": "VAULT_AUTH", "value": "kubernetes"}]},
        "extraEnv: VAULT_AUTH is refused",
    ),
    ("one twice", {"extraEnv": [{"name": "A"}, {"name": "A"}]}, "extraEnv: A is there twice"),
    (
        "one twice in the drill",
        merged(DRILL, at("drill.extraEnv", [{"name": "A"}, {"name": "A"}])),
        "drill.extraEnv: A is there twice",
    ),
    *(
        (f"{place} {name}", {**at(place, [{"name": name, "emptyDir": {}}])}, f"a volume {name}")
        for place in ("extraVolumes", "drill.extraVolumes")
        for name in ("callers", "secrets", "tokens", "vault-token", "backups", "work")
    ),
    *(
        (f"{place} {name}", {**at(place, [{"name": name, "image": "x"}])}, f"a container {name}")
        for place in ("extraContainers", "extraInitContainers", "drill.initContainers")
        for name in ("broker", "migrate", "drill")
    ),
    ("a name of a digit", {"fullnameOverride": "1st"}, "1st can't be the name of a Service"),
    ("several in one", {"extraObjects": ["a: 1\n---\nb: 2"]}, "holds several documents"),
    ("no YAML", {"extraObjects": ["a: ["]}, "is not a YAML object"),
    ("no kind", {"extraObjects": [{"metadata": {"name": "x"}}]}, "no apiVersion or no kind"),
]


@pytest.mark.parametrize(
    ("values", "line"), [case[1:] for case in ACROSS_VALUES], ids=[c[0] for c in ACROSS_VALUES]
)
def test_values_beyond_the_schema_are_refused_in_one_line(values: Object, line: str) -> None:
    message = refusal(merged(MINIMAL, values))
    assert sum(line in one for one in message.splitlines()) == 1, message


def test_everything_missing_is_listed_together() -> None:
    lines = refusal({}).splitlines()
    assert len([line for line in lines if "missing" in line]) == 4
