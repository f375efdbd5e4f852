"""Contents of the image."""

import json
import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from broker import __version__
from tests.containers.build import Builder
from tests.containers.engine import DockerError, Engine
from tests.containers.fixtures import IMAGE
from tests.containers.parts import wheels
from tests.image.layers import SavedImage
from tests.support.optional_parts import skip_without

pytestmark = pytest.mark.container

MEGABYTE = 1_000_000
MAX_OWN_LAYERS = 45 * MEGABYTE
MAX_TOTAL = 170 * MEGABYTE
BASE_LAYERS = 1
"""Of the local base image; the official one has several."""


@pytest.fixture(scope="module")
def saved(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> SavedImage:
    return SavedImage.save(engine, image, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def own_paths(saved: SavedImage) -> set[PurePosixPath]:
    return {PurePosixPath(member.name) for member, _ in saved.files(first_layer=BASE_LAYERS)}


def test_it_is_small(engine: Engine, image: str, saved: SavedImage) -> None:
    own = sum(member.size for member, _ in saved.files(first_layer=BASE_LAYERS))
    whole = engine.image(image)["Size"]
    assert own <= MAX_OWN_LAYERS, f"{own / MEGABYTE:.1f} MB"
    assert whole <= MAX_TOTAL, f"{whole / MEGABYTE:.1f} MB"


def test_no_secret_of_the_build_is_in_a_layer_or_in_the_history(
    builder: Builder, saved: SavedImage
) -> None:
    planted = [secret.encode() for secret in (*builder.source.planted, builder.mirror_password)]
    found = [
        (member.name, secret)
        for member, content in saved.files(first_layer=0)
        for secret in planted
        if secret in content
    ]
    assert found == []
    assert not any(secret.decode() in saved.configuration for secret in planted)


def test_a_secret_in_a_layer_would_be_found(
    engine: Engine, image: str, builder: Builder, tmp_path: Path
) -> None:
    """Proves the search: it finds the secrets in an image with a copy of the whole checkout."""
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nCOPY secret /secret\n")
    (tmp_path / "secret").write_text(builder.source.planted[0])
    engine.docker("build", "--tag", "leaking", str(tmp_path))
    leaking = SavedImage.save(engine, "leaking", tmp_path)
    planted = builder.source.planted[0].encode()
    assert any(planted in content for _, content in leaking.files(first_layer=0))


def test_only_the_broker_and_what_it_imports_are_added(own_paths: set[PurePosixPath]) -> None:
    assert {path.parts[:2] for path in own_paths if len(path.parts) > 1} == {("opt", "broker")}
    names = {part for path in own_paths for part in path.parts}
    assert not names & {"devstack", "tests", "test", "pip", "setuptools", "pytest", "uv"}
    assert not {path.suffix for path in own_paths} & {".c", ".h", ".pyx", ".pxd", ".pyi", ".whl"}


def test_every_module_has_its_bytecode(own_paths: set[PurePosixPath]) -> None:
    sources = [path for path in own_paths if path.suffix == ".py"]
    assert len(sources) > 500
    missing = [
        path
        for path in sources
        if path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc" not in own_paths
    ]
    assert missing == []


@pytest.mark.parametrize("tool", ["cc", "gcc", "ld", "strip", "make", "git"])
def test_no_build_tool_remains(engine: Engine, image: str, tool: str) -> None:
    done = engine.run("run", "--rm", "--entrypoint", "sh", image, "-c", f"command -v {tool}")
    assert (done.returncode != 0, done.stdout) == (True, "")


def test_its_metadata_and_its_command_are_right(engine: Engine, image: str) -> None:
    config = engine.image(image)["Config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["broker"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "broker", "status"]
    assert set(config["ExposedPorts"]) == {"8000/tcp", "8001/tcp", "8002/tcp"}
    labels = {
        name.removeprefix("org.opencontainers.image."): value
        for name, value in config["Labels"].items()
    }
    assert (labels["title"], labels["version"]) == ("Token broker", "1.2.3")
    assert (labels["licenses"], labels["base.name"]) == ("Apache-2.0", "base")
    assert {"description", "revision", "created"} <= set(labels)


def test_a_second_build_gives_the_same_layers(
    engine: Engine, image: str, builder: Builder, container_parts: Path
) -> None:
    builder.build(f"{IMAGE}-again", wheels(container_parts), "--no-cache")
    first, second = (engine.image(name)["RootFS"]["Layers"] for name in (image, f"{IMAGE}-again"))
    assert first == second


def test_make_image_builds_the_same_and_lists_its_components(
    engine: Engine, image: str, builder: Builder, container_parts: Path
) -> None:
    venv = Path(sys.executable).parents[1]
    if not (venv / "bin" / "syft").exists():
        skip_without("syft is missing: run this with `make test-containers`")
    builder.run_make_image(f"{IMAGE}-made", wheels(container_parts), venv)
    first, second = (engine.image(name)["RootFS"]["Layers"] for name in (image, f"{IMAGE}-made"))
    assert first == second
    (listed,) = (builder.source.folder / "dist").glob("token-broker-*.spdx.json")
    parts = json.loads(listed.read_text())["packages"]
    assert ("token-broker", __version__) in {(part["name"], part["versionInfo"]) for part in parts}
    names = {part["name"] for part in parts}
    assert {"asyncpg", "cryptography", "uvloop", "libc6"} <= names
    assert not {"pip", "setuptools", "pytest"} & names


def test_a_wheel_with_another_hash_fails_the_build(
    builder: Builder, container_parts: Path, tmp_path: Path
) -> None:
    for wheel in wheels(container_parts).iterdir():
        shutil.copy2(wheel, tmp_path)
    (tampered,) = tmp_path.glob("anyio-*.whl")
    with tampered.open("ab") as opened:
        opened.write(b"\0")
    with pytest.raises(DockerError, match="DO NOT MATCH THE HASHES"):
        builder.build(f"{IMAGE}-tampered", tmp_path, "--no-cache", "--target", "build")
