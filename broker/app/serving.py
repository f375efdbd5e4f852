"""Three listeners, from the first bind to the last answer."""

import asyncio
import logging
import socket
from contextlib import AsyncExitStack
from importlib import import_module

from broker import __version__
from broker.app.assembly import assembled
from broker.app.process_context import StartError
from broker.server.graceful_stop import Listeners, bind
from broker.settings import Listen, Settings
from broker.settings.database_tls import REMEDY, UNVERIFIED

logger = logging.getLogger(__name__)
LEFT_OUT_OF_THE_START = ("authlib.integrations.httpx_client", "joserfc.jwt")
"""Whoever uses them imports them within the function that does."""
_REST_SECONDS = 0.5


async def serve_until(stop: asyncio.Event, settings: Settings) -> None:
    """Serve until `stop` is set. Raises `StartError`.

    The libraries that only talking to Google takes are left out of the start, of which they would
    be a quarter, and are imported in a thread once tokens can be handed out.
    """
    listens = (settings.public_listen, settings.internal_listen, settings.ops_listen)
    for warning in settings.warnings:
        logger.warning(warning)
    for name in settings.unverified_databases:
        logger.warning("%s; %s", UNVERIFIED.format(name=name), REMEDY)
    async with AsyncExitStack() as stack:
        sockets = [stack.enter_context(_bind(listen)) for listen in listens]
        broker = await stack.enter_async_context(assembled(settings))
        apps = (broker.public, broker.internal, broker.ops)
        listeners = Listeners(list(zip(apps, sockets, strict=True)))
        await listeners.start()
        stack.push_async_callback(_ended, asyncio.create_task(_import_the_rest()))
        logger.info(
            "serving",
            extra={
                "version": __version__,
                "public": str(listens[0]),
                "internal": str(listens[1]),
                "ops": str(listens[2]),
            },
        )
        await stop.wait()
        logger.info("stopping")
        broker.health.is_draining = True
        await listeners.stop()
    logger.info("stopped")


async def _import_the_rest() -> None:
    """A moment later, so that it is not in the way of who waited for the start."""
    await asyncio.sleep(_REST_SECONDS)
    for name in LEFT_OUT_OF_THE_START:
        await asyncio.to_thread(import_module, name)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _bind(listen: Listen) -> socket.socket:
    try:
        return bind(listen)
    except OSError as error:
        raise StartError(f"can't listen on {listen}: {error.strerror}") from error
