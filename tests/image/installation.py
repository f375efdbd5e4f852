"""The broker in a container with the fewest rights: no writable file, no capability, no root.

It uses the host's network, which for this engine is a namespace with nothing but the tests.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from devstack.google_standin import GoogleStandin
from devstack.postgres import EmbeddedPostgres
from tests.acceptance.installation import Service
from tests.containers.engine import Container, Engine
from tests.support.scopes import CALENDAR, CALENDAR_READONLY

USER = 65532
CLIENT_ID = "528374-image.apps.googleusercontent.com"
PUBLIC_URL, INTERNAL_URL, OPS_URL = (f"http://127.0.0.1:{port}" for port in (8000, 8001, 8002))
OTHER_ADDRESS = "198.18.255.1"
"""A second address of this host; `tests.containers` adds it."""

HARDENED = (
    *("--read-only", "--user", f"{USER}:{USER}", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--network", "host"),
)


@dataclass(frozen=True)
class Installation:
    """A serving broker and what it depends on."""

    engine: Engine
    image: str
    arguments: tuple[str, ...]
    """The arguments of `docker run` before the image's name."""
    secret_values: tuple[str, ...]
    serving: Container
    google: GoogleStandin
    service: Service


def set_up(
    folder: Path, engine: Engine, image: str, postgres: EmbeddedPostgres, google: GoogleStandin
) -> Installation:
    """Migrate, create a caller, and serve, each in a separate container."""
    redirect_uri = f"{PUBLIC_URL}/auth/google/callback"
    client_secret = f"GOCSPX-{secrets.token_hex(12)}"
    google.add_client(CLIENT_ID, client_secret, [redirect_uri])
    values = {
        "DATABASE_URL": postgres.create_database(f"image_{uuid4().hex}"),
        "SECRET_KEY": secrets.token_urlsafe(48),
        "GOOGLE_CLIENT_SECRET": client_secret,
    }
    mounted = folder / "mounted"
    mounted.mkdir()
    callers = mounted / "callers.yaml"
    arguments = (
        *HARDENED,
        # A folder of every image. One that the engine must create appears in `docker diff`.
        *("--volume", f"{mounted}:/mnt:ro"),
        *("--env", "BROKER_CALLERS_FILE=/mnt/callers.yaml"),
        *_written(mounted, values),
        *("--env", f"GOOGLE_CLIENT_ID={CLIENT_ID}"),
        *("--env", f"GOOGLE_REDIRECT_URI={redirect_uri}"),
        *("--env", f"GOOGLE_SCOPES={CALENDAR} {CALENDAR_READONLY}"),
        *("--env", f"GOOGLE_DISCOVERY_URL={google.discovery_url}"),
    )
    callers.write_text("callers: {}\n")
    key = _new_caller(engine, image, callers)
    assert engine.docker("run", "--rm", *arguments, image, "migrate").endswith("done")
    serving = engine.start(*arguments, image)
    serving.wait_until_healthy()
    return Installation(
        engine, image, arguments, tuple(values.values()), serving, google,
        Service(INTERNAL_URL, key),
    )  # fmt: skip


def _written(folder: Path, values: Mapping[str, str]) -> list[str]:
    """Write each secret to a file that only the container's group may read."""
    arguments = []
    for name, value in values.items():
        path = folder / name
        path.write_text(value)
        path.chmod(0o440)
        os.chown(path, 0, USER)
        arguments += ["--env", f"{name}_FILE=/mnt/{name}"]
    return arguments


def _new_caller(engine: Engine, image: str, callers: Path) -> str:
    printed = engine.docker(
        *("run", "--rm", *HARDENED, image, "callers", "new", "calendar-sync"),
        *("--can", "tokens:read,links:create,grants:read,grants:revoke", "--user", "*"),
        *("--scope", CALENDAR, "--scope", CALENDAR_READONLY),
        *("--return-to", "https://app.example.com/settings"),
    )
    key, _, stanza = printed.partition("\n\n")
    callers.write_text(stanza + "\n")
    return key.strip()
