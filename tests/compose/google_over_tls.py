"""The Google stand-in over TLS, at an address that containers reach. The broker requires TLS."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from devstack.google_standin import GoogleStandin
from tests.image.installation import OTHER_ADDRESS
from tests.support.processes import free_port, started, wait_until

_PORT = 8443
URL = f"https://{OTHER_ADDRESS}:{_PORT}"

_CADDYFILE = """
{{
	admin off
	skip_install_trust
	auto_https disable_redirects
}}

https://{address}:{port} {{
	tls internal
	reverse_proxy {behind}
}}
"""


@dataclass(frozen=True)
class TlsGoogle:
    """The stand-in, and the certificates to trust."""

    standin: GoogleStandin
    authority: str
    """PEM."""


@contextmanager
def google_over_tls(caddy: Path, folder: Path) -> Iterator[TlsGoogle]:
    """Serve until the block ends."""
    standin, port = GoogleStandin(public_url=URL), free_port()
    standin.start(port=port)
    configuration = folder / "Caddyfile"
    configuration.write_text(
        _CADDYFILE.format(address=OTHER_ADDRESS, port=_PORT, behind=f"127.0.0.1:{port}"),
        encoding="ascii",
    )
    command = (str(caddy), "run", "--config", str(configuration), "--adapter", "caddyfile")
    homes = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    try:
        with started(command, log=folder / "caddy.log", settings=homes):
            wait_until("the Google stand-in serves over TLS", _serves, within=30)
            root = folder / "caddy/pki/authorities/local/root.crt"
            yield TlsGoogle(standin, root.read_text(encoding="ascii"))
    finally:
        standin.stop()


def _serves() -> bool:
    try:
        httpx2.get(f"{URL}/nothing", verify=False, trust_env=False)
    except httpx2.TransportError:
        return False
    return True
