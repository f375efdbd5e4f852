"""Servers that are not Vault: they never answer, or give every request the same answer."""

import asyncio
import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from broker.secret import Secret
from broker.settings import VaultSource
from tests.support.openbao import token_login


class SilentVaults:
    """Two addresses that accept every connection and never answer."""

    def __init__(self) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self._held: list[socket.socket] = []

    @property
    def settings(self) -> VaultSource:
        addresses = tuple(f"http://127.0.0.1:{s.getsockname()[1]}" for s in self._sockets)
        return VaultSource(addresses, None, token_login(Secret("any")), "secret", "any")

    async def connection(self) -> socket.socket:
        """Accept the next connection to the first address; its client waits until it is closed."""
        self._sockets[0].setblocking(False)
        accepted, _ = await asyncio.get_running_loop().sock_accept(self._sockets[0])
        self._held.append(accepted)
        return accepted

    def count(self) -> int:
        """The number of connections since the last call."""
        return sum(self._take_all(listening) for listening in self._sockets)

    def _take_all(self, listening: socket.socket) -> int:
        listening.setblocking(False)
        held_before = len(self._held)
        with suppress(BlockingIOError):
            while True:
                self._held.append(listening.accept()[0])
        return len(self._held) - held_before

    def stop(self) -> None:
        for each in (*self._sockets, *self._held):
            each.close()


class FakeVaults:
    """Starts servers that give every request one answer."""

    def __init__(self) -> None:
        self.headers_seen: list[str] = []
        self._servers: list[ThreadingHTTPServer] = []

    def start(self, status: int, headers: dict[str, str], body: bytes) -> str:
        """Start a server, and return its address."""
        headers_seen = self.headers_seen

        class OneAnswer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers_seen.extend(self.headers)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET  # noqa: N815  (http.server's name)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """No log."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), OneAnswer)
        Thread(target=server.serve_forever, args=(0.02,)).start()
        self._servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
