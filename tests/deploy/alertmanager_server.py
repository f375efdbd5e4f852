"""A real Alertmanager, from Debian's package, and a receiver for its notifications."""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.rule_files import written
from tests.docs.documents import ROOT
from tests.support.processes import free_port, running

_COMMAND = "prometheus-alertmanager"


@dataclass
class Receivers:
    """The receivers of the example routes: each is a path of one server."""

    port: int = 0
    delivered: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    """Pairs of a receiver's name and an alert that it received."""

    def notifications_of(self, alert: str) -> dict[str, Mapping[str, Any]]:
        """Return the notifications of this firing alert, by receiver."""
        return {
            receiver: sent
            for receiver, sent in list(self.delivered)
            if sent["labels"]["alertname"] == alert and sent["status"] == "firing"
        }


def is_installed() -> bool:
    return shutil.which(_COMMAND) is not None


@contextmanager
def receivers() -> Iterator[Receivers]:
    """Accept everything."""
    found = Receivers()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.delivered += [(self.path.strip("/"), alert) for alert in body["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing into the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def alertmanager(folder: Path, takers: Receivers) -> Iterator[str]:
    """Yield its address; it has the shipped routes, with a wait of one second."""
    config = yaml.safe_load((ROOT / "deploy" / "alertmanager.yaml").read_text(encoding="utf-8"))
    config["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        url = f"http://127.0.0.1:{takers.port}/{receiver['name']}"
        receiver["webhook_configs"] = [{"url": url}]
    address = f"127.0.0.1:{free_port()}"
    command = (
        _COMMAND,
        f"--config.file={written(folder / 'alertmanager.yml', config)}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )
    with running(command, answers_at=f"http://{address}/-/ready", log=folder / "alertmanager.log"):
        yield address
