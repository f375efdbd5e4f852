"""compose.yaml and the files that it mounts, without an engine."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.documents import ROOT, text_of

COMPOSE: dict[str, Any] = yaml.safe_load(text_of("compose.yaml"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def each_service() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", SERVICES)


@each_service()
def test_a_service_has_the_fewest_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert {"cpus", "mem_limit", "pids_limit", "logging"} <= set(service)


@each_service()
def test_a_permanent_service_has_a_health_check_and_time_to_stop(name: str) -> None:
    service = SERVICES[name]
    assert float(service["stop_grace_period"].rstrip("s")) >= 30, "a broker may need 25 s"
    if service["restart"] == "unless-stopped":
        is_of_the_image = name == "broker"
        has_nothing_to_serve = name in {"drill", "node-exporter"}
        assert "healthcheck" in service or is_of_the_image or has_nothing_to_serve


def test_only_the_proxy_publishes_ports() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]


def test_all_networks_except_two_are_internal() -> None:
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    assert internal == {"callers", "backend", "monitoring"}


@pytest.mark.parametrize("name", ["postgres", "openbao", "migrate", "backup", "wal", "restore"])
def test_a_service_with_data_or_secrets_is_only_on_the_internal_network(name: str) -> None:
    assert SERVICES[name]["networks"] == ["backend"]


def test_the_drill_has_no_network_and_the_proxy_only_the_outer_one() -> None:
    assert SERVICES["drill"]["network_mode"] == "none"
    assert SERVICES["proxy"]["networks"] == ["edge"]


@each_service()
def test_a_third_party_image_is_pinned_by_digest(name: str) -> None:
    image = SERVICES[name]["image"]
    assert image.startswith(("${BROKER_IMAGE:-", "${DRILL_IMAGE:-")) or re.search(
        r"@sha256:[0-9a-f]{64}}$", image
    )


def test_the_brokers_wait_for_the_migration_and_the_proxy_for_them() -> None:
    assert SERVICES["broker"]["deploy"]["replicas"] == 2
    waits = SERVICES["broker"]["depends_on"]
    assert waits["migrate"]["condition"] == "service_completed_successfully"
    assert SERVICES["proxy"]["depends_on"]["broker"]["condition"] == "service_healthy"


def test_openbao_does_not_run_in_development_mode() -> None:
    assert SERVICES["openbao"]["entrypoint"] == [
        "bao",
        "server",
        "-config=/etc/openbao/openbao.hcl",
    ]
    assert 'storage "raft"' in text_of("deploy/compose/openbao/openbao.hcl")


def test_no_secret_is_in_the_environment() -> None:
    for service in SERVICES.values():
        for setting in service.get("environment", {}):
            assert not re.search("(PASSWORD|SECRET_KEY|SECRET_ID|DATABASE_URL)$", setting), setting


def test_no_log_of_the_proxy_has_queries_or_headers() -> None:
    caddyfile = text_of("deploy/compose/Caddyfile")
    logs = re.findall(r"\n\t+log[^{]*\{(.*?)\n\t\}", caddyfile, re.DOTALL)
    assert len(logs) == 2
    for log in logs:
        assert r'request>uri regexp \?.* ""' in log
        assert "request>headers delete" in log


def test_prometheus_names_each_broker_and_so_detects_a_missing_one() -> None:
    configuration = yaml.safe_load(text_of("deploy/compose/prometheus.yaml"))
    (brokers,) = [
        job for job in configuration["scrape_configs"] if job["job_name"] == "token-broker"
    ]
    (static,) = brokers["static_configs"]
    replicas = range(1, SERVICES["broker"]["deploy"]["replicas"] + 1)
    assert static["targets"] == [f"{COMPOSE['name']}-broker-{each}:8002" for each in replicas]


def test_grafana_gets_its_data_source_and_its_dashboard_from_files() -> None:
    """Checks the files only; Grafana itself is not installed."""
    (source,) = yaml.safe_load(text_of("deploy/compose/grafana/datasources/prometheus.yaml"))[
        "datasources"
    ]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load(text_of("deploy/compose/grafana/dashboards/dashboards.yaml"))[
        "providers"
    ]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/compose/grafana"] == "/etc/grafana/provisioning"
    assert mounts["./deploy/dashboards"] == provider["options"]["path"]
    assert (ROOT / "deploy/dashboards/token-broker.json").is_file()
    assert SERVICES["grafana"]["networks"] == SERVICES["prometheus"]["networks"]


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can give the secret files to another group"
)
def test_the_secrets_are_created_once_with_the_owner_that_the_containers_need(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "secrets"
    make = (str(ROOT / "deploy/compose/make-secrets"), str(folder))
    subprocess.run(make, check=True, timeout=60)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    for secret in COMPOSE["secrets"].values():
        facts = (folder / secret["file"].rpartition("/")[2]).stat()
        assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (0, 65532, 0o440)
    subprocess.run(make, check=True, timeout=60)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
