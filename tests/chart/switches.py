"""For each value of the chart: another value than the default, and its preconditions."""

from typing import Any

from tests.chart.rendering import Object, merged

INGRESS: Object = {"ingress": {"enabled": True}}
ROUTE: Object = {"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}
SCALING: Object = {"autoscaling": {"enabled": True}}
VAULT: Object = {
    "settings": {
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": "https://vault.example.com:8200",
        "VAULT_AUTH": "kubernetes",
        "VAULT_ROLE": "token-broker",
    }
}
TRIAL_VALUES = {
    "DATABASE_URL": "postgresql://broker:trial@db/broker",  # pragma: allowlist secret
    "SECRET_KEY": "s" * 32,
    "GOOGLE_CLIENT_ID": "id",
    "GOOGLE_CLIENT_SECRET": "secret",
}
TRIAL: Object = {"secrets": {"existingSecret": "", "create": True, "values": TRIAL_VALUES}}
DRILL: Object = {
    "drill": {
        "enabled": True,
        "image": {"repository": "registry.example.com/drill"},
        "volume": {"persistentVolumeClaim": {"claimName": "backups"}},
    }
}
RELABELING = [{"action": "drop", "sourceLabels": ["pod"], "regex": "canary-.*"}]
CALLER: Object = {
    "callers": {
        "calendar-sync": {
            "keys": ["sha256:" + "a" * 64],
            "can": ["tokens:read", "links:create"],
            "scopes": ["https://www.googleapis.com/auth/calendar.readonly"],
            "users": ["*"],
            "return_to": ["https://app.example.com/settings"],
            "require_confirmation": True,
            "display_name": "Calendar sync",
            "rate_limit": {"requests_per_second": 50, "burst": 100},
        },
        "mail": {
            "workload": {
                "issuer": "https://kubernetes.default.svc",
                "audience": "token-broker",
                "subject": "system:serviceaccount:prod:mail",
            },
            "can": ["grants:read"],
            "users": ["a*"],
            "subject_required": True,
        },
    },
    "issuers": {
        "https://kubernetes.default.svc": {
            "jwks_url": "https://kubernetes.default.svc/openid/v1/jwks",
            "ca_file": "/var/run/ca.crt",
            "token_file": "/var/run/secrets/token-broker/api",
            "algorithms": ["RS256"],
        },
        "https://login.example.com": {"users": {"audience": "broker-users", "claim": "sub"}},
    },
}
CONTAINER = {"name": "side", "image": "registry.example.com/side:1", "args": ["run"]}
CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "{{ .Release.Name }}-x"},
}

Switch = tuple[Object, Any]

SWITCHES: dict[str, Switch] = {
    "image.repository": ({}, "other.example.com/broker"),
    "image.tag": ({}, "1.2.3"),
    "image.digest": ({}, "sha256:" + "b" * 64),
    "image.pullPolicy": ({}, "Always"),
    "imagePullSecrets": ({}, [{"name": "pull"}]),
    "settings": ({}, {"BROKER_LOG_LEVEL": "DEBUG", "BROKER_STALE_TOKENS_AT_MOST": 86400}),
    "secrets.existingSecret": ({}, "others"),
    "secrets.from": (
        {},
        {"DATABASE_URL": {"name": "app-db", "key": "uri"}, "DATABASE_REPLICA_URL": {}},
    ),
    "secrets.values": (TRIAL, {"DATABASE_URL": "postgresql://other/db"}),
    "callers.existingConfigMap": ({}, "my-callers"),
    "callers.file": ({}, CALLER),
    "migrations.mode": ({}, "initContainer"),
    "migrations.activeDeadlineSeconds": ({}, 600),
    "migrations.backoffLimit": ({}, 3),
    "serviceAccount.create": ({}, False),
    "serviceAccount.name": ({}, "custom"),
    "serviceAccount.annotations": ({}, {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}),
    "serviceAccount.tokens": ({}, [{"path": "api"}, {"path": "agent", "audience": "vault"}]),
    "vaultToken.audience": (VAULT, "openbao"),
    "vaultToken.expirationSeconds": (VAULT, 600),
    "listenAddress": ({}, "::"),
    "services.public.type": ({}, "LoadBalancer"),
    "services.public.port": ({}, 8080),
    "services.public.annotations": ({}, {"a": "b"}),
    "services.internal.port": ({}, 8081),
    "ingress.enabled": ({}, True),
    "ingress.className": (INGRESS, "nginx"),
    "ingress.annotations": (INGRESS, {"nginx.ingress.kubernetes.io/enable-access-log": "false"}),
    "ingress.tlsSecretName": (INGRESS, "tls"),
    "httpRoute.enabled": ({"httpRoute": {"parentRefs": [{"name": "public"}]}}, True),
    "httpRoute.parentRefs": (ROUTE, [{"name": "other", "namespace": "gw", "sectionName": "https"}]),
    "httpRoute.annotations": (ROUTE, {"a": "b"}),
    "httpRoute.labels": (ROUTE, {"a": "b"}),
    "networkPolicy.enabled": ({}, False),
    "networkPolicy.public.from": ({}, [{"ipBlock": {"cidr": "10.0.0.0/8"}}]),
    "networkPolicy.internal.from": ({}, [{"podSelector": {"matchLabels": {"a": "b"}}}]),
    "networkPolicy.ops.from": ({}, [{"namespaceSelector": {}}]),
    "networkPolicy.egress.enabled": ({}, False),
    "networkPolicy.egress.ports": ({}, [443]),
    "networkPolicy.egress.rules": ({}, [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]),
    "replicaCount": ({}, 3),
    "autoscaling.enabled": ({}, True),
    "autoscaling.minReplicas": (SCALING, 3),
    "autoscaling.maxReplicas": (SCALING, 9),
    "autoscaling.targetCPU": (SCALING, "700m"),
    "autoscaling.behavior": (SCALING, {"scaleUp": {"stabilizationWindowSeconds": 60}}),
    "podDisruptionBudget.enabled": ({}, False),
    "topologySpreadConstraints": (
        {},
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    ),
    "preStopSeconds": ({}, 0),
    "terminationGracePeriodSeconds": ({}, 60),
    "nodeSelector": ({}, {"kubernetes.io/arch": "amd64"}),
    "tolerations": ({}, [{"key": "a", "operator": "Exists"}]),
    "affinity": (
        {},
        {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}
                ]
            }
        },
    ),
    "priorityClassName": ({}, "high"),
    "resources": ({}, {"requests": {"cpu": 1}}),
    "podSecurityContext": ({}, {"runAsUser": 1000}),
    "securityContext": ({}, {"seLinuxOptions": {"level": "s0"}}),
    "podLabels": ({}, {"team": "identity", "app.kubernetes.io/name": "never-wins"}),
    "podAnnotations": ({}, {"a": "b"}),
    "commonLabels": ({}, {"team": "identity"}),
    "nameOverride": ({}, "broker"),
    "fullnameOverride": ({}, "broker"),
    "monitoring.serviceMonitor.mode": ({}, "never"),
    "monitoring.serviceMonitor.labels": ({}, {"release": "prometheus"}),
    "monitoring.serviceMonitor.interval": ({}, "15s"),
    "monitoring.serviceMonitor.scrapeTimeout": ({}, "5s"),
    "monitoring.serviceMonitor.relabelings": ({}, RELABELING),
    "monitoring.serviceMonitor.metricRelabelings": ({}, RELABELING),
    "monitoring.prometheusRule.mode": ({}, "never"),
    "monitoring.prometheusRule.labels": ({}, {"release": "prometheus"}),
    "monitoring.prometheusRule.alertLabels": ({}, {"team": "identity"}),
    "monitoring.prometheusRule.runbookBaseUrl": ({}, "https://wiki.example.com/broker/"),
    "monitoring.prometheusRule.disabledAlerts": ({}, ["SampleDown"]),
    "monitoring.dashboard.mode": ({}, "never"),
    "monitoring.dashboard.labels": ({}, {"grafana_dashboard": "yes"}),
    "monitoring.dashboard.annotations": ({}, {"grafana_folder": "Token broker"}),
    "drill.enabled": ({"drill": DRILL["drill"] | {"enabled": False}}, True),
    "drill.schedule": (DRILL, "@weekly"),
    "drill.image.repository": (DRILL, "other.example.com/drill"),
    "drill.image.tag": (DRILL, "9"),
    "drill.image.digest": (DRILL, "sha256:" + "c" * 64),
    "drill.volume": (DRILL, {"persistentVolumeClaim": {"claimName": "others"}}),
    "drill.podSecurityContext": (DRILL, {"runAsUser": 26, "supplementalGroups": [70]}),
    "drill.initContainers": (DRILL, [CONTAINER]),
    "drill.extraEnv": (DRILL, [{"name": "PGSSLMODE", "value": "disable"}]),
    "drill.extraVolumes": (DRILL, [{"name": "wal", "hostPath": {"path": "/wal"}}]),
    "drill.extraVolumeMounts": (DRILL, [{"name": "work", "mountPath": "/tmp"}]),
    "drill.args": (DRILL, ["--backups", "/backups/newest"]),
    "drill.workSize": (DRILL, "1Gi"),
    "drill.activeDeadlineSeconds": (DRILL, 60),
    "drill.resources": (DRILL, {"limits": {"memory": "2Gi"}}),
    "extraEnv": ({}, [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]),
    "extraEnvFrom": ({}, [{"secretRef": {"name": "more"}}]),
    "extraVolumes": ({}, [{"name": "ca", "configMap": {"name": "db-ca"}}]),
    "extraVolumeMounts": ({}, [{"name": "secrets", "mountPath": "/again", "readOnly": True}]),
    "extraContainers": ({}, [CONTAINER]),
    "extraInitContainers": ({}, [CONTAINER]),
    "extraObjects": ({}, [CONFIG_MAP, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: text}"]),
}
"""By path: the preconditions, and the other value."""

TRIED_ELSEWHERE = {"secrets.create"}
"""Needs a trial's values, and renders nothing without them."""


def at(path: str, value: Any) -> Object:
    """Return values with one entry."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


EVERYTHING: Object = merged(
    *(
        merged(context, at(path, value))
        for path, (context, value) in SWITCHES.items()
        if not path.startswith(
            ("secrets.", "networkPolicy.en", "networkPolicy.egress.en", "drill.volume")
        )
        and not path.endswith((".mode", "Override", "existingConfigMap", "serviceAccount.create"))
        and path not in {"podDisruptionBudget.enabled", "callers.existingConfigMap"}
    ),
    DRILL,
)
"""All options that can be enabled together."""
