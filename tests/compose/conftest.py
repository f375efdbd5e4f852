"""One installation for all tests of this folder. Each test restores it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from playwright.async_api import Browser, Page

from tests.compose import images
from tests.compose.google_over_tls import TlsGoogle, google_over_tls
from tests.compose.installation import Installation, prepare, start
from tests.compose.paging import Pager
from tests.containers.engine import Engine
from tests.image.installation import OTHER_ADDRESS
from tests.support.browser import chromium, find_chromium
from tests.support.optional_parts import skip_without

__all__ = ["chromium"]

_TIMEOUT = 60_000
"""Milliseconds."""


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsGoogle]:
    """A Google stand-in that the containers reach."""
    caddy = images.program("caddy")
    if caddy is None:
        skip_without("Caddy is missing: run this with `make test-containers`")
    with google_over_tls(caddy, tmp_path_factory.mktemp("google")) as serving:
        yield serving


@pytest.fixture(scope="session")
def pager() -> Iterator[Pager]:
    """The receiver of Alertmanager's webhooks."""
    with Pager.listening(OTHER_ADDRESS) as listening:
        yield listening


@pytest.fixture(scope="session")
def installation(
    tmp_path_factory: pytest.TempPathFactory,
    engine: Engine,
    image: str,
    google: TlsGoogle,
    pager: Pager,
) -> Iterator[Installation]:
    """Installed and started by the commands of the documentation; each service is healthy."""
    compose = images.program("docker-compose")
    if compose is None:
        skip_without("Compose is missing: run this with `make test-containers`")
    folder: Path = tmp_path_factory.mktemp("compose")
    made = images.build(engine, image, google.authority, folder / "images")
    project = folder / "project"
    project.mkdir()
    (project / "alertmanager.yaml").write_text(yaml.safe_dump(pager.routes), encoding="utf-8")
    installed = prepare(
        project, engine, compose, made, google, {"ALERTMANAGER_CONFIG": "./alertmanager.yaml"}
    )
    _shorten(project / "deploy/alerts/availability.yaml")
    try:
        start(installed)
        yield installed
    finally:
        # It stays in pytest's folder, to analyse a failure.
        (folder / "logs.txt").write_text(installed.compose("logs").stdout, encoding="utf-8")
        installed.compose(
            "--profile", "backup", "--profile", "monitoring", "down", "--volumes", "--timeout=5"
        )


def _shorten(rules: Path) -> None:
    """Shorten the five minutes of TokenBrokerReplicaDown, which are too long for a test."""
    text = rules.read_text(encoding="utf-8")
    assert "for: 5m" in text
    rules.write_text(text.replace("for: 5m", "for: 5s"), encoding="utf-8")


@pytest_asyncio.fixture
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """A browser tab that reaches the proxy and the Google stand-in, and nothing else."""
    own = await chromium.browser_type.launch(
        executable_path=find_chromium(),
        args=[
            "--no-sandbox",
            "--disable-background-networking",
            "--disable-quic",
            f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE {OTHER_ADDRESS}",
        ],
    )
    context = await own.new_context(ignore_https_errors=True)
    context.set_default_timeout(_TIMEOUT)
    yield await context.new_page()
    await own.close()
