"""What the demo page is told through its environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """Addresses, the service's own key, and the scopes that it may ask for."""

    port: int
    broker_url: str
    broker_key: Secret
    scopes: tuple[str, ...]
    api_url: str
    consent_origins: tuple[str, ...]
    """Where a form of the page may lead, by redirects: the broker, then Google."""

    @property
    def return_to(self) -> str:
        return f"http://127.0.0.1:{self.port}/connected"


def read_config(environ: Mapping[str, str]) -> DemoConfig:
    """The configuration that `make run` set. A missing name is a `KeyError`."""
    asked = environ["DEMO_SCOPES"].split()
    return DemoConfig(
        port=int(environ["DEMO_PORT"]),
        broker_url=environ["DEMO_BROKER_URL"],
        broker_key=Secret(Path(environ["DEMO_BROKER_KEY_FILE"]).read_text(encoding="utf-8")),
        scopes=tuple(scope for scope in asked if scope not in ("openid", "email")),
        api_url=environ["DEMO_API_URL"],
        consent_origins=tuple(environ["DEMO_CONSENT_ORIGINS"].split()),
    )
