"""A whole broker behind real sockets, run from a thread, for tests that block while they ask."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen
from devstack.google_standin import GoogleStandin
from tests.support.clock import ManualClock
from tests.support.scopes import CALENDAR, CALENDAR_READONLY
from tests.support.world import ADA, REDIRECT_URI, RETURN_TO, open_world


@dataclass(frozen=True)
class Served:
    """Where each listener is, and what a caller needs."""

    public_url: str
    internal_url: str
    ops_url: str
    key: str
    account_sub: str
    user_id: str = "alice"
    """Who has connected an account."""
    return_to: str = RETURN_TO
    redirect_uri: str = REDIRECT_URI

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


@contextmanager
def serve(folder: Path, database_url: str, standin: GoogleStandin) -> Iterator[Served]:
    """The broker, with one user who has connected an account, until the block ends."""
    ready: Future[Served] = Future()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def run() -> None:
        try:
            loop.run_until_complete(_serve(folder, database_url, standin, ready, stop))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="served broker")
    thread.start()
    try:
        yield ready.result(timeout=30)
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=30)


async def _serve(
    folder: Path,
    database_url: str,
    standin: GoogleStandin,
    ready: Future[Served],
    stop: asyncio.Event,
) -> None:
    clock = ManualClock()
    standin.reset(clock=clock)
    async with open_world(folder, database_url, standin, clock) as world:
        trip = await world.connect("alice", ADA, scopes=[CALENDAR, CALENDAR_READONLY])
        assert trip.response.status_code == 200
        apps = (world.broker.public, world.broker.internal, world.broker.ops)
        sockets = [bind(Listen("127.0.0.1", 0)) for _ in apps]
        public, internal, ops = (f"http://127.0.0.1:{bound.getsockname()[1]}" for bound in sockets)
        listeners = Listeners(list(zip(apps, sockets, strict=True)))
        await listeners.start()
        sub = (await world.grants("alice"))[0]["account"]["sub"]
        ready.set_result(Served(public, internal, ops, world.key, account_sub=sub))
        await stop.wait()
        await listeners.stop()
