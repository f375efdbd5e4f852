"""The plan of `make run`: its environment, checked before anything is started."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from broker.secret import Secret
from broker.secret_sources.local_sources import CredentialsFileSource
from broker.secret_sources.source import SourceMisconfigured
from broker.settings import (
    GOOGLE_DISCOVERY_URL,
    ConfiguredSecret,
    FileSource,
    UnreadableSecretError,
    is_secure_url,
)
from devstack.processes import DevstackError, is_free

DEFAULT_SCOPES = (
    "https://www.googleapis.com/auth/calendar.readonly "
    "https://www.googleapis.com/auth/contacts.readonly"
)
HOST = "127.0.0.1"

_PORTS = {
    "PUBLIC_PORT": (8000, "the broker's public listener"),
    "INTERNAL_PORT": (8001, "the broker's internal listener"),
    "OPS_PORT": (8002, "the broker's ops listener"),
    "DEMO_PORT": (8080, "the demo page"),
    "GOOGLE_PORT": (8085, "the Google stand-in"),
}


@dataclass(frozen=True, slots=True)
class RealGoogle:
    """The developer's own OAuth client at Google: no stand-in is started."""

    client_id: str
    client_secret: Secret
    discovery_url: str

    @property
    def api_url(self) -> str:
        """The origin of the Calendar API: that of the discovery document, if it isn't Google's."""
        if self.discovery_url == GOOGLE_DISCOVERY_URL:
            return "https://www.googleapis.com"
        parts = urlsplit(self.discovery_url)
        return f"{parts.scheme}://{parts.netloc}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The ports and addresses of all parts."""

    public_port: int
    internal_port: int
    ops_port: int
    demo_port: int
    google_port: int
    scopes: str
    redirect_uri: str
    google: RealGoogle | None
    """None for the stand-in."""

    @property
    def public_url(self) -> str:
        """The origin of the public listener in the browser: that of the redirect URI."""
        parts = urlsplit(self.redirect_uri.split(",")[0].strip())
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def internal_url(self) -> str:
        return f"http://{HOST}:{self.internal_port}"

    @property
    def ops_url(self) -> str:
        return f"http://{HOST}:{self.ops_port}"

    @property
    def demo_url(self) -> str:
        return f"http://{HOST}:{self.demo_port}"

    @property
    def standin_url(self) -> str:
        return f"http://{HOST}:{self.google_port}"

    @property
    def api_url(self) -> str:
        return self.google.api_url if self.google else self.standin_url

    @property
    def consent_origin(self) -> str:
        """The origin of Google's consent page."""
        if self.google and self.google.discovery_url == GOOGLE_DISCOVERY_URL:
            return "https://accounts.google.com"
        return self.api_url

    @property
    def discovery_url(self) -> str:
        if self.google:
            return self.google.discovery_url
        return f"{self.standin_url}/.well-known/openid-configuration"


def make_plan(environ: Mapping[str, str]) -> Plan:
    """Read and check the environment. Raises `DevstackError`, with a line for each problem."""
    problems: list[str] = []
    ports = {name: _port(environ, name, problems) for name in _PORTS}
    google = _real_google(environ, problems)
    problems += _shared_ports(ports)
    if problems:
        raise DevstackError("\n".join(problems))
    default_redirect = f"http://{HOST}:{ports['PUBLIC_PORT']}/auth/google/callback"
    return Plan(
        public_port=ports["PUBLIC_PORT"],
        internal_port=ports["INTERNAL_PORT"],
        ops_port=ports["OPS_PORT"],
        demo_port=ports["DEMO_PORT"],
        google_port=ports["GOOGLE_PORT"],
        scopes=environ.get("GOOGLE_SCOPES", "").strip() or DEFAULT_SCOPES,
        redirect_uri=environ.get("GOOGLE_REDIRECT_URI", "").strip() or default_redirect,
        google=google,
    )


def refuse_taken_ports(plan: Plan) -> None:
    """Raise `DevstackError`, with a line for each port that another program listens on."""
    ports = {
        "PUBLIC_PORT": plan.public_port,
        "INTERNAL_PORT": plan.internal_port,
        "OPS_PORT": plan.ops_port,
        "DEMO_PORT": plan.demo_port,
        **({} if plan.google else {"GOOGLE_PORT": plan.google_port}),
    }
    problems = [
        f"Port {port} ({_PORTS[name][1]}) is taken by another program; "
        f"choose another: make run {name}={port + 1000 if port < 64000 else port - 1000}"
        for name, port in ports.items()
        if not is_free(port)
    ]
    if problems:
        raise DevstackError("\n".join(problems))


def _port(environ: Mapping[str, str], name: str, problems: list[str]) -> int:
    text = environ.get(name, "").strip()
    if not text:
        return _PORTS[name][0]
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        problems.append(f"{name} must be a port number from 1 to 65535")
        return 0
    return int(text)


def _shared_ports(ports: Mapping[str, int]) -> list[str]:
    seen: dict[int, str] = {}
    problems = []
    for name, port in ports.items():
        if port and port in seen:
            problems.append(f"{seen[port]} and {name} are the same port, {port}")
        seen[port] = name
    return problems


def _real_google(environ: Mapping[str, str], problems: list[str]) -> RealGoogle | None:
    discovery_url = environ.get("GOOGLE_DISCOVERY_URL", "").strip() or GOOGLE_DISCOVERY_URL
    if not is_secure_url(discovery_url):
        problems.append("GOOGLE_DISCOVERY_URL must be https (plain http only on a loopback host)")
    credentials = environ.get("GOOGLE_CREDENTIALS_FILE", "").strip()
    try:
        if credentials:
            source = CredentialsFileSource(FileSource(Path(credentials)))
            client = asyncio.run(source.read())
            return RealGoogle(client.client_id, client.client_secret, discovery_url)
        pair = [_secret(environ, name) for name in ("GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET")]
    except (SourceMisconfigured, UnreadableSecretError) as error:
        problems.append(str(error))
        return None
    client_id, client_secret = pair
    if client_id and client_secret:
        return RealGoogle(client_id.reveal(), client_secret, discovery_url)
    if client_id or client_secret:
        missing = "GOOGLE_CLIENT_SECRET" if client_id else "GOOGLE_CLIENT_ID"
        problems.append(f"{missing} is missing: the real Google needs both, the stand-in neither")
    return None


def _secret(environ: Mapping[str, str], name: str) -> Secret:
    path = environ.get(f"{name}_FILE", "").strip()
    value = Secret(environ.get(name, "").strip())
    return ConfiguredSecret(name, path=Path(path)).read() if path and not value else value
