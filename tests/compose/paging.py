"""The receiver of alerts: Alertmanager's webhooks arrive here."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Pager:
    """Keeps every alert that arrives."""

    url: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def listening(cls, address: str) -> Iterator["Pager"]:
        """Receive until the block ends."""
        pager = cls()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                pager.alerts += json.loads(body)["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer((address, 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            pager.url = f"http://{address}:{server.server_port}/"
            try:
                yield pager
            finally:
                server.shutdown()
                thread.join()

    @property
    def routes(self) -> dict[str, Any]:
        """Return Alertmanager's configuration: it sends everything here immediately."""
        return {
            "route": {"receiver": "pager", "group_wait": "0s", "group_interval": "1s"},
            "receivers": [{"name": "pager", "webhook_configs": [{"url": self.url}]}],
        }

    def named(self, name: str) -> list[dict[str, Any]]:
        return [alert for alert in self.alerts if alert["labels"]["alertname"] == name]
