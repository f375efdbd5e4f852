"""A reverse proxy that records the requests it forwards to a Vault."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit


@dataclass
class RecordingProxy:
    """The recorded requests, and the tokens in the responses."""

    address: str = ""
    requests: list[str] = field(default_factory=list)
    """Each request's line, headers and body."""
    issued: list[str] = field(default_factory=list)
    """The tokens in the responses."""
    is_down: bool = False

    def has_seen(self, secret: str) -> bool:
        """Whether any request contained this."""
        return any(secret in request for request in self.requests)


@contextmanager
def recording_proxy(target: str) -> Iterator[RecordingProxy]:
    """Forward every request to `target`; respond 503 while `is_down`."""
    record, upstream = RecordingProxy(), urlsplit(target)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            record.requests.append(f"{self.command} {self.path}\n{self.headers}\n{body.decode()}")
            status, answer = (503, b"{}") if record.is_down else self._forward(body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_PUT = do_GET  # noqa: N815  (http.server's names)

        def _forward(self, body: bytes) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(
                str(upstream.hostname), upstream.port, timeout=30
            )
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                response = connection.getresponse()
                answer = response.read()
            finally:
                connection.close()
            if answer:
                record.issued += _token_in(json.loads(answer))
            return response.status, answer

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.02,), name="recording proxy")
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _token_in(answer: dict[str, Any]) -> list[str]:
    token = (answer.get("auth") or {}).get("client_token")
    return [token] if token else []
