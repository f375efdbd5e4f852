"""The demo page's configuration, from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """Addresses, the service's own key, and the scopes that it may request."""

    port: int
    broker_url: str
    broker_key: Secret
    scopes: tuple[str, ...]
    api_url: str
    consent_origins: tuple[str, ...]
    """The origins that the page's forms may lead to by redirects: the broker's, then Google's."""

    @property
    def return_to(self) -> str:
        return f"http://127.0.0.1:{self.port}/connected"


def read_config(environ: Mapping[str, str]) -> DemoConfig:
    """Read the configuration that `make run` has set. Raises `KeyError` for a missing name."""
    requested = environ["DEMO_SCOPES"].split()
    return DemoConfig(
        port=int(environ["DEMO_PORT"]),
        broker_url=environ["DEMO_BROKER_URL"],
        broker_key=Secret(Path(environ["DEMO_BROKER_KEY_FILE"]).read_text(encoding="utf-8")),
        scopes=tuple(scope for scope in requested if scope not in ("openid", "email")),
        api_url=environ["DEMO_API_URL"],
        consent_origins=tuple(environ["DEMO_CONSENT_ORIGINS"].split()),
    )
