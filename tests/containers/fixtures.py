"""The engine that all tests in containers share, and the broker's image in it."""

import os
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest

from tests.containers.build import Builder, Source, load_bases
from tests.containers.engine import FOLDER, PARTS, DockerError, Engine, running_engine
from tests.containers.parts import wheels
from tests.support.optional_parts import skip_without

IMAGE = "token-broker:test"


@pytest.fixture(scope="session")
def container_parts() -> Path:
    """The folder of base images and wheels."""
    folder = os.environ.get(PARTS)
    if folder is None:
        skip_without("run the tests in containers with `make test-containers`")
    return Path(folder)


@pytest.fixture(scope="session")
def engine(container_parts: Path) -> Iterator[Engine]:
    """A Docker Engine. Where none can run, the tests are skipped, or fail if they are required."""
    running = running_engine(Path(os.environ[FOLDER]))
    try:
        opened = running.__enter__()
    except DockerError as error:
        skip_without(str(error))
    load_bases(opened, container_parts)
    yield opened
    running.__exit__(None, None, None)


@pytest.fixture(scope="session")
def builder(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Builds this checkout, with secrets placed in it."""
    folder = tmp_path_factory.mktemp("build") / "source"
    folder.mkdir()
    return Builder(engine, Source.copy(folder), f"planted-{token_hex(16)}")


@pytest.fixture(scope="session")
def image(builder: Builder, container_parts: Path) -> str:
    """The broker's image, built by its Dockerfile."""
    builder.build(IMAGE, wheels(container_parts), "--build-arg", "VERSION=1.2.3")
    return IMAGE
