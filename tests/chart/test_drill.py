"""The drill's CronJob: its access, its user, and its alerts."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendering import (
    MINIMAL,
    MONITORING,
    NEWEST,
    Object,
    complaints,
    environment,
    merged,
    of_kind,
    render,
    the,
)
from tests.chart.switches import DRILL, at
from tests.docs.documents import anchors, rows, section, text_of, ticked
from tests.support.optional_parts import skip_without

SECRETS = "/etc/token-broker/secrets"


def _pod(values: Object) -> Object:
    spec = the(render(merged(MINIMAL, DRILL, values)), "CronJob")["spec"]
    return dict(spec["jobTemplate"]["spec"]["template"]["spec"])


def _container(values: Object) -> Object:
    (container,) = _pod(values)["containers"]
    return dict(container)


def _mounts(container: Object) -> dict[str, Object]:
    paths = [one["mountPath"] for one in container["volumeMounts"]]
    assert len(paths) == len(set(paths))
    return {one["name"]: one for one in container["volumeMounts"]}


def test_it_reads_backups_and_gets_two_secrets_only() -> None:
    pod, container = _pod({}), _container({})
    assert container["args"] == ["drill", "--backups", "/backups"]
    mounts = _mounts(container)
    assert mounts["backups"] == {"name": "backups", "mountPath": "/backups", "readOnly": True}
    assert environment(container)["TMPDIR"] == mounts["work"]["mountPath"]
    (secrets,) = (one for one in pod["volumes"] if one["name"] == "secrets")
    keys = [
        item["key"]
        for source in secrets["projected"]["sources"]
        for item in source["secret"]["items"]
    ]
    assert keys == ["DATABASE_URL", "SECRET_KEY"]


def test_one_runs_at_a_time() -> None:
    spec = the(render(merged(MINIMAL, DRILL)), "CronJob")["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"


def test_it_is_the_user_that_owns_the_backups() -> None:
    context = _pod({})["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (999, 999, 999)
    # The rest is that of all pods.
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    other = _pod(at("drill.podSecurityContext", {"runAsUser": 26, "runAsGroup": 26, "fsGroup": 26}))
    assert other["securityContext"]["runAsUser"] == 26
    # The user of the broker's pods is unchanged.
    broker = the(render(merged(MINIMAL, DRILL)), "Deployment")["spec"]["template"]["spec"]
    assert broker["securityContext"]["runAsUser"] == 65532


def test_the_image_is_built_for_that_user_and_as_the_guide_says() -> None:
    """tests/image/test_drill_image.py builds and runs it."""
    arguments = re.findall(r"^ARG (\w+)=(\S+)$", text_of("deploy/drill.Dockerfile"), re.MULTILINE)
    guide = section(text_of("docs/how-to/deploy-kubernetes.md"), "## Backup drill")
    listed = [
        (ticked(row[0])[0], row[1]) for row in rows(guide) if len(row) == 3 and ticked(row[0])
    ]
    assert sorted(listed) == sorted(arguments)
    assert dict(arguments)["OWNER"] == str(_pod({})["securityContext"]["runAsUser"])
    # The server of compose.yaml, whose backups it may restore.
    (server,) = re.findall(r"POSTGRES_IMAGE:-postgres:(\d+)", text_of("compose.yaml"))
    assert dict(arguments)["POSTGRES"] == server


def test_its_secrets_may_be_files_of_a_csi_driver() -> None:
    """The drill accepts the same volumes as the broker."""
    names = ("DATABASE_URL", "SECRET_KEY")
    values = {
        "extraEnv": [{"name": f"{name}_FILE", "value": f"/mnt/secrets/{name}"} for name in names],
        "extraVolumes": [
            {"name": "vault", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}}
        ],
        "extraVolumeMounts": [{"name": "vault", "mountPath": "/mnt/secrets", "readOnly": True}],
    }
    container = _container(values)
    variables = environment(container)
    for name in names:
        assert variables[f"{name}_FILE"] == f"/mnt/secrets/{name}"
    assert _mounts(container)["vault"]["mountPath"] == "/mnt/secrets"
    volumes = [one["name"] for one in _pod(values)["volumes"]]
    assert "vault" in volumes
    assert "secrets" not in volumes


def test_its_own_variables_replace_those_of_the_other_pods() -> None:
    values = merged(
        at("drill.extraEnv", [{"name": "DATABASE_URL", "value": "x"}, {"name": "A", "value": "2"}]),
        {"extraEnv": [{"name": "A", "value": "1"}, {"name": "TMPDIR", "value": "/elsewhere"}]},
    )
    assert environment(_container(values)) == {
        "TMPDIR": "/work",
        "SECRET_KEY_FILE": f"{SECRETS}/SECRET_KEY",
        "DATABASE_URL": "x",
        "A": "2",
    }


def test_it_has_volumes_of_its_own() -> None:
    values = merged(
        at("drill.extraVolumes", [{"name": "wal", "hostPath": {"path": "/wal"}}]),
        at("drill.extraVolumeMounts", [{"name": "wal", "mountPath": "/backups/wal"}]),
    )
    assert _mounts(_container(values))["wal"]["mountPath"] == "/backups/wal"
    assert "wal" in [one["name"] for one in _pod(values)["volumes"]]
    deployment = the(render(merged(MINIMAL, DRILL, values)), "Deployment")
    assert "/wal" not in str(deployment)


def test_it_may_check_a_database_that_another_tool_restored() -> None:
    """An example of docs/how-to/disaster-recovery.md, with a PostgreSQL in the same pod."""
    text = text_of("docs/how-to/disaster-recovery.md")
    (example,) = re.findall(r"```yaml\n(drill:\n.*?)```", text, re.DOTALL)
    values = yaml.safe_load(example)
    objects = render(merged(MINIMAL, values))
    cron_job = the(objects, "CronJob")
    assert not complaints(cron_job, NEWEST)
    pod = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["drill", "--restored"]
    assert environment(container)["DATABASE_URL"].startswith("postgresql://broker@127.0.0.1/")
    assert "DATABASE_URL_FILE" not in environment(container)
    assert "backups" not in _mounts(container)
    # The Job ends with the drill, so other containers must be init containers.
    beside = [one for one in pod["initContainers"] if one.get("restartPolicy") == "Always"]
    assert [one["name"] for one in beside] == ["postgres"]
    assert "startupProbe" in beside[0]


# ---- alerts


def _drill_rules(values: Object, **options: Any) -> list[Object]:
    rule = the(render(merged(MINIMAL, values), apis=MONITORING, **options), "PrometheusRule")
    return [
        one
        for group in rule["spec"]["groups"]
        if "drill" in group["name"]
        for one in group["rules"]
    ]


def test_without_a_drill_there_is_no_alert_for_it() -> None:
    rules = the(render(MINIMAL, apis=MONITORING), "PrometheusRule")
    assert "TokenBrokerDown" in str(rules)
    assert "drill" not in str(rules).lower()


def test_with_a_drill_its_alerts_are_those_of_the_files() -> None:
    shipped = yaml.safe_load(text_of("deploy/alerts/optional/drill.yaml"))["groups"]
    names = [rule["alert"] for group in shipped for rule in group["rules"]]
    rendered = _drill_rules(DRILL)
    assert [rule["alert"] for rule in rendered if "alert" in rule] == names
    assert len(names) == 2


def test_its_alerts_obey_the_values_of_all_alerts() -> None:
    values = {
        "disabledAlerts": ["TokenBrokerDrillUnknown"],
        "alertLabels": {"team": "identity"},
        "runbookBaseUrl": "https://git.example.com/broker/",
    }
    rules = _drill_rules(merged(DRILL, at("monitoring.prometheusRule", values)))
    (alert,) = (rule for rule in rules if "alert" in rule)
    assert alert["labels"] == {"severity": "warning", "team": "identity"}
    address, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert address == "https://git.example.com/broker/docs/how-to/runbooks.md"
    assert anchor in anchors(text_of("docs/how-to/runbooks.md"))


KUBE_STATE_METRICS = 'kube_cronjob_status_last_successful_time{{namespace="{}", cronjob="{}"}}'
_OURS = ("brokers", "demo-token-broker-drill")
_DAY = 86400


def _fires(
    tmp_path: Path, alert: str, series: dict[tuple[str, str], int], *, at_minutes: int = 90
) -> bool:
    """True if the alert fires, with CronJobs that last succeeded at these times (0: the start)."""
    if shutil.which("promtool") is None:
        skip_without("promtool is missing (Debian package: prometheus)")
    rule = the(render(merged(MINIMAL, DRILL), apis=MONITORING), "PrometheusRule")
    rules = tmp_path / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": rule["spec"]["groups"]}), encoding="utf-8")
    inputs = [
        {"series": KUBE_STATE_METRICS.format(*names), "values": f"{time}x{at_minutes}"}
        for names, time in series.items()
    ]
    case = {
        "interval": "1m",
        "input_series": inputs,
        "alert_rule_test": [
            {"eval_time": f"{at_minutes}m", "alertname": alert, "exp_alerts": []},
        ],
    }
    document = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [case]}
    tests = tmp_path / "tests.yaml"
    tests.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", tests],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert ("SUCCESS" in said) != (f'alertname="{alert}"' in said), said
    return done.returncode != 0


@pytest.mark.parametrize(
    ("alert", "series", "fires"),
    [
        ("TokenBrokerDrillOverdue", {_OURS: -9 * _DAY}, True),
        ("TokenBrokerDrillOverdue", {_OURS: -7 * _DAY}, False),
        # Another release's CronJob does not count.
        ("TokenBrokerDrillOverdue", {_OURS: -9 * _DAY, ("staging", _OURS[1]): 0}, True),
        ("TokenBrokerDrillOverdue", {_OURS: 0, ("staging", _OURS[1]): -9 * _DAY}, False),
        ("TokenBrokerDrillUnknown", {}, True),
        ("TokenBrokerDrillUnknown", {("staging", _OURS[1]): 0}, True),
        ("TokenBrokerDrillUnknown", {_OURS: -7 * _DAY}, False),
    ],
)
def test_they_use_the_cron_job_of_this_release(
    alert: str, series: dict[tuple[str, str], int], fires: bool, tmp_path: Path
) -> None:
    assert _fires(tmp_path, alert, series) is fires


def test_no_other_object_comes_with_it() -> None:
    with_it = render(merged(MINIMAL, DRILL))
    assert len(with_it) == len(render(MINIMAL)) + 1
    assert of_kind(with_it, "CronJob")
