"""One HTTP answer as bytes: taken from the broker, given again by the bare app."""

import json
import socket
from dataclasses import dataclass
from pathlib import Path

_BY_UVICORN = frozenset({b"date", b"server"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What an application sent; the headers that the server itself adds are left out."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def save(self, path: Path) -> None:
        """Write it for `load`, where only its owner can read it: the body holds a token."""
        path.touch(mode=0o600)
        headers = [
            [name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers
        ]
        document = {"status": self.status, "headers": headers, "body": self.body.decode()}
        path.write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "Answer":
        """What `save` wrote."""
        document = json.loads(path.read_text(encoding="utf-8"))
        headers = tuple((name.encode(), value.encode()) for name, value in document["headers"])
        return cls(document["status"], headers, document["body"].encode())


def ask_once(port: int, request: bytes) -> Answer:
    """The answer to one request over a connection of its own."""
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
