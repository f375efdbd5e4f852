"""The stand-in as one object, which serves from a thread and whose behaviour tests control."""

import asyncio
import socket
import threading
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from broker.clock import Clock, SystemClock
from devstack.google_standin import tokens
from devstack.google_standin.authorization import consent_without_a_browser
from devstack.google_standin.context import StandinContext
from devstack.google_standin.endpoints import OpenConnections
from devstack.google_standin.faults import FaultPlan
from devstack.google_standin.holds import Holds
from devstack.google_standin.model import Account, Client
from devstack.google_standin.recording import Issued, RequestLog
from devstack.google_standin.risc_api import new_service_account
from devstack.google_standin.routes import DISCOVERY_PATH, build_app
from devstack.google_standin.security_events import EventOrder, deliver, mint
from devstack.google_standin.state import StandinState


class GoogleStandin:
    """The stand-in. Methods may be called from any thread."""

    def __init__(
        self,
        clients: Iterable[Client] = (),
        *,
        state_file: Path | None = None,
        clock: Clock | None = None,
        public_url: str | None = None,
    ) -> None:
        """`public_url` is the address in discovery, if it differs from the one listened on."""
        self._context = StandinContext(StandinState(clients, state_file), clock or SystemClock())
        self._public_url = public_url
        self._connections = OpenConnections()
        self._server: _ThreadedServer | None = None
        self._last_address: tuple[str, int] | None = None
        self.app: Starlette = build_app(self._context, self._connections)

    def start(self, host: str = "127.0.0.1", port: int | None = None) -> str:
        """Serve from a thread until `stop`; return the base URL.

        The default port is any free one; after a `stop`, it is the previous port.
        """
        if self._server is not None:
            raise RuntimeError("the stand-in runs already")
        if port is None:
            host, port = self._last_address or (host, 0)
        listener = _listen(host, port)
        self._last_address = (host, listener.getsockname()[1])
        shown_host = f"[{host}]" if ":" in host else host
        address = f"http://{shown_host}:{self._last_address[1]}"
        self._context.base_url = (self._public_url or address).rstrip("/")
        self._server = _ThreadedServer(self.app, self._connections, listener)
        return self.base_url

    def stop(self) -> None:
        """Close all connections, also of requests under way, and refuse new ones."""
        if self._server is not None:
            self._context.holds.release_all()
            self._context.stop_deliveries()
            self._server.stop()
            self._server = None
        self._context.state.save()

    def reset(self, *, clock: Clock | None = None) -> None:
        """Reset everything but the address and the signing key."""
        with self._context.state.lock:
            self._context.reset()
            self._context.clock = clock or SystemClock()

    @property
    def base_url(self) -> str:
        return self._context.base_url

    @property
    def discovery_url(self) -> str:
        return self.base_url + DISCOVERY_PATH

    @property
    def calendar_endpoint(self) -> str:
        """The value for `client_options={"api_endpoint": …}` of google-api-python-client."""
        return self.base_url + "/calendar/v3/"

    @property
    def state(self) -> StandinState:
        return self._context.state

    @property
    def faults(self) -> FaultPlan:
        return self._context.faults

    @property
    def holds(self) -> Holds:
        return self._context.holds

    @property
    def requests(self) -> RequestLog:
        return self._context.requests

    @property
    def issued(self) -> Issued:
        return self._context.issued

    @property
    def clock(self) -> Clock:
        return self._context.clock

    @clock.setter
    def clock(self, clock: Clock) -> None:
        self._context.clock = clock

    def behave(self, **manners: Any) -> None:
        """Change fields of `Behaviour`, for example `token_lifetime=5` or `send_iss=True`."""
        self._context.behaviour = replace(self._context.behaviour, **manners)

    def add_client(
        self,
        client_id: str,
        client_secret: str,
        redirect_uris: Iterable[str],
        *,
        project: str = "",
        name: str = "Token broker",
    ) -> Client:
        """Register a client, or replace it."""
        with self._context.state.lock:
            client = Client(client_id, client_secret, list(redirect_uris), project, name)
            return self._context.state.add_client(client)

    def change_client_secret(self, client_id: str, client_secret: str) -> None:
        """Replace the client's secret."""
        with self._context.state.lock:
            self._context.state.clients[client_id].client_secret = client_secret

    def delete_client(self, client_id: str) -> None:
        """Delete a client: its requests get `deleted_client`."""
        with self._context.state.lock:
            self._context.state.clients[client_id].deleted = True

    def add_account(
        self, email: str, name: str | None = None, *, hd: str | None = None, sub: str | None = None
    ) -> Account:
        return self._context.state.add_account(email, name, hd=hd, sub=sub)

    def account(self, sub_or_email: str) -> Account:
        """Return an account. Raises `KeyError` for an unknown one."""
        return self._context.state.account(sub_or_email)

    def consent(
        self, url: str, account: str, *, untick: Collection[str] = (), deny: bool = False
    ) -> str:
        """Decide on an authorization URL without a browser; return the callback's address.

        Raises `ShownError` where Google would show an error.
        """
        return consent_without_a_browser(
            self._context, url, account=account, untick=untick, deny=deny
        )

    def revoke_account(self, account: str, *, project: str | None = None) -> None:
        """Remove the app on Google's account page, which revokes all its tokens."""
        with self._context.state.lock:
            sub = self.account(account).sub
            tokens.revoke_authorization(self._context, sub=sub, project=project)

    def change_password(self, account: str) -> int:
        """Change the password: revokes refresh tokens with Gmail scopes; returns their number."""
        with self._context.state.lock:
            sub = self.account(account).sub
            return tokens.kill_refresh_tokens(self._context, sub=sub, only_mail=True)

    def change_email(self, account: str, email: str) -> None:
        """Change the account's email, not its `sub`."""
        with self._context.state.lock:
            self.account(account).email = email

    def expire_refresh_tokens(self, account: str) -> int:
        """Revoke refresh tokens, as disuse or an admin's rule does; access tokens stay valid."""
        with self._context.state.lock:
            return tokens.kill_refresh_tokens(self._context, sub=self.account(account).sub)

    def expire_access_tokens(self, account: str | None = None) -> int:
        """Make access tokens invalid at the APIs before their time."""
        with self._context.state.lock:
            sub = self.account(account).sub if account else None
            return tokens.expire_access_tokens(self._context, sub=sub)

    def security_event(self, event: str, account: str | None = None, **changes: Any) -> str:
        """Return a security event token, unsent; `changes` are other fields of `EventOrder`."""
        with self._context.state.lock:
            return mint(self._context, EventOrder(event, account, **changes))

    def send(self, url: str, token: str, *, times: int = 1) -> list[int | None]:
        """Post a security event token as Google does; return the receiver's answers."""
        return [deliver(url, token) for _ in range(times)]

    def add_service_account(self, name: str = "risc-admin") -> dict[str, str]:
        """Create a service account that may register the stream; return its key file's content."""
        with self._context.state.lock:
            return new_service_account(self._context, name)

    @property
    def delivered(self) -> list[dict[str, Any]]:
        """The security events that the stream has sent."""
        return list(self._context.delivered)

    @property
    def risc_api(self) -> str:
        """The value for `broker risc --api`."""
        return self.base_url + "/v1beta"

    def rotate_keys(self, *, keep_old: bool = True) -> str:
        """Sign ID tokens with a new key; return its `kid`."""
        with self._context.state.lock:
            return self._context.state.keys.rotate(keep_old=keep_old)


class _ThreadedServer(uvicorn.Server):
    """uvicorn in a thread. The constructor returns once it serves."""

    def __init__(
        self, app: Starlette, connections: OpenConnections, listener: socket.socket
    ) -> None:
        config = uvicorn.Config(
            app,
            http=connections.protocol(),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=60,
        )
        super().__init__(config)
        self._serving = threading.Event()
        self._listener = listener
        self._connections = connections
        self._thread = threading.Thread(target=self._run, name="google-standin", daemon=True)
        self._thread.start()
        if not self._serving.wait(10):
            raise RuntimeError("the stand-in did not start")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serving.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Close the connections first: a cancelled request would still be answered, with 500.
        for server in self.servers:
            server.close()
        self._connections.close_all()
        await super().shutdown(sockets)

    def stop(self) -> None:
        self.should_exit = True
        self._thread.join(10)
        self._listener.close()

    def _run(self) -> None:
        asyncio.run(self.serve(sockets=[self._listener]))


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The explicit protocol number makes asyncio set TCP_NODELAY; without it an answer in two writes
    # takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
