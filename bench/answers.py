"""One HTTP response as bytes: recorded from the broker, replayed by the bare app."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path

_BY_UVICORN = frozenset({b"date", b"server"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The application's response, without the headers that the server adds."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def save(self, path: Path) -> None:
        """Write it to a file that only the owner can read: the body has a token."""
        path.touch(mode=0o600)
        headers = [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers
        ]
        document = {"status": self.status, "headers": headers, "body": self.body.decode()}
        path.write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Answer":
        """Read what `save` wrote."""
        document = json.loads(path.read_text(encoding="utf-8"))
        headers = tuple((name.encode(), value.encode()) for name, value in document["headers"])
        return cls(document["status"], headers, document["body"].encode())


def ask_once(port: int, request: bytes) -> Answer:
    """Send one request on a new connection and return the response."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        received = b""
        while not _is_whole(received):
            chunk = connection.recv(65536)
            if not chunk:
                break
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.split(b"\r\n")
    pairs = (line.split(b": ", 1) for line in lines)
    headers = tuple((name, value) for name, value in pairs if name not in _BY_UVICORN)
    return Answer(int(status_line.split()[1]), headers, body)


def _is_whole(received: bytes) -> bool:
    head, gap, body = received.partition(b"\r\n\r\n")
    _, found, rest = head.lower().partition(b"content-length: ")
    return bool(gap and found) and len(body) >= int(rest.split(b"\r\n")[0])
