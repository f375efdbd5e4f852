"""Pushing, signing and verifying, with real tools and a real registry.

The script is that of the release workflow. Here it signs with a key, because signing by a
workflow's identity needs Sigstore and GitHub.
"""

import importlib
import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.oci import (
    Registry,
    chart_layout,
    image_layout,
    local_registry,
    required_tool,
)

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".github/sign-and-verify"
IMAGE, CHART, TAG = "token-broker", "charts/token-broker", "1.2.3"
METADATA = {"apiVersion": "v2", "name": "token-broker", "version": TAG, "appVersion": TAG}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with local_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two key pairs, `release` and `other`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release", "other"):
        _run(required_tool("cosign"), "generate-key-pair", f"--output-key-prefix={folder / name}")
    return folder


def _environment(keys: Path | None = None) -> dict[str, str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "COSIGN_PASSWORD": ""}
    environment["COSIGN_OPTIONS"] = "--allow-http-registry"
    if keys is not None:
        environment["COSIGN_KEY"] = str(keys / "release.key")
        environment["COSIGN_PUBLIC_KEY"] = str(keys / "release.pub")
    return environment


def _run(*command: str | Path, keys: Path | None = None) -> subprocess.CompletedProcess[str]:
    result = _try(*command, keys=keys)
    assert result.returncode == 0, result.stderr
    return result


def _try(*command: str | Path, keys: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=_environment(keys),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _verify(reference: str, key: Path) -> subprocess.CompletedProcess[str]:
    return _try(
        *(required_tool("cosign"), "verify", "--key", key, "--insecure-ignore-tlog=true"),
        *("--allow-http-registry", reference),
    )


def test_an_image_of_two_architectures_is_pushed_signed_and_verified(
    registry: Registry, keys: Path, tmp_path: Path
) -> None:
    layout = image_layout(tmp_path / "image", TAG, {"etc/release": TAG.encode()})
    digest = registry.push(layout, TAG, IMAGE)
    manifests = registry.manifest(IMAGE, f":{TAG}")["manifests"]
    assert isinstance(manifests, list)
    assert [each["platform"]["architecture"] for each in manifests] == ["amd64", "arm64"]

    reference = f"{registry.host}/{IMAGE}@{digest}"
    assert _verify(reference, keys / "release.pub").returncode != 0

    _run(SCRIPT, reference, keys=keys)

    assert digest in _verify(reference, keys / "release.pub").stdout
    for each in manifests:
        one = f"{registry.host}/{IMAGE}@{each['digest']}"
        assert _verify(one, keys / "release.pub").returncode == 0
    by_tag = f"{registry.host}/{IMAGE}:{TAG}"
    assert _verify(by_tag, keys / "release.pub").returncode == 0
    assert _verify(by_tag, keys / "other.pub").returncode != 0

    exchanged = image_layout(tmp_path / "exchanged", TAG, {"etc/release": b"exchanged"})
    registry.push(exchanged, TAG, IMAGE)
    assert _verify(by_tag, keys / "release.pub").returncode != 0
    assert _verify(reference, keys / "release.pub").returncode == 0


def test_a_chart_is_pushed_signed_and_verified(
    registry: Registry, keys: Path, tmp_path: Path
) -> None:
    digest = registry.push(chart_layout(tmp_path / "chart", TAG, METADATA), TAG, CHART)
    config = registry.manifest(CHART, f":{TAG}")["config"]
    assert isinstance(config, dict)
    assert config["mediaType"] == "application/vnd.cncf.helm.config.v1+json"

    reference = f"{registry.host}/{CHART}@{digest}"
    _run(SCRIPT, reference, keys=keys)

    assert digest in _verify(reference, keys / "release.pub").stdout
    assert _verify(reference, keys / "other.pub").returncode != 0


def test_helms_own_engine_pushes_the_chart_and_gets_the_signed_one_back(
    registry: Registry, keys: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec("helm_python") is None:
        pytest.skip("Helm's SDK is not installed; it comes with what tests the chart")
    helm: Any = importlib.import_module("helm_python")
    archive = helm.package(
        _chart_folder(tmp_path), destination=tmp_path, version=TAG, app_version=TAG
    )
    remote = f"oci://{registry.host}/helm"
    helm.push(archive, remote, plain_http=True)
    digest = registry.digest("helm/token-broker", f":{TAG}")

    _run(SCRIPT, f"{registry.host}/helm/token-broker@{digest}", keys=keys)

    (tmp_path / "pulled").mkdir()
    helm.pull(
        f"{remote}/token-broker", version=TAG, destination=tmp_path / "pulled", plain_http=True
    )
    (pulled,) = (tmp_path / "pulled").iterdir()
    assert pulled.read_bytes() == Path(archive).read_bytes()


def _chart_folder(tmp_path: Path) -> Path:
    """Return the project's chart, or a minimal one if there is none."""
    if (ROOT / "helm/Chart.yaml").exists():
        return ROOT / "helm"
    folder = tmp_path / "token-broker"
    folder.mkdir()
    (folder / "Chart.yaml").write_text(json.dumps(METADATA), encoding="ascii")
    return folder


@pytest.mark.parametrize("reference", ["", "token-broker:1.2.3", "token-broker@sha256:abc"])
def test_a_reference_without_a_digest_is_not_signed(reference: str) -> None:
    result = _try(SCRIPT, reference)
    assert result.returncode == 2
    assert "names no digest" in result.stderr


def test_a_signature_that_cannot_be_verified_fails_the_release(
    registry: Registry, keys: Path, tmp_path: Path
) -> None:
    """The workflow must stop: here the public key is another one."""
    layout = image_layout(tmp_path / "image", TAG, {"etc/release": b"unverifiable"})
    digest = registry.push(layout, TAG, "unverifiable")
    environment = {**_environment(keys), "COSIGN_PUBLIC_KEY": str(keys / "other.pub")}
    result = subprocess.run(
        [SCRIPT, f"{registry.host}/unverifiable@{digest}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode != 0
    assert _verify(f"{registry.host}/unverifiable@{digest}", keys / "release.pub").returncode == 0
