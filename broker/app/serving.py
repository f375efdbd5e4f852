"""Runs the three listeners from the first bind to the last response."""

import asyncio
import logging
import socket
from contextlib import AsyncExitStack
from importlib import import_module

from broker import __version__
from broker.app.assembly import assembled
from broker.app.process_context import StartError
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen, Settings
from broker.settings.urls import UNVERIFIED_SERVER_REMEDY

logger = logging.getLogger(__name__)

IMPORTED_AFTER_START = ("authlib.oauth2", "broker.issuers.verification_keys")
"""Import these only inside the functions that use them."""

_IMPORT_DELAY_SECONDS = 0.5
"""So that the imports do not delay the first requests."""


async def serve_until(stop: asyncio.Event, settings: Settings) -> None:
    """Serve until `stop` is set. Raises `StartError`.

    The libraries that only calls to Google need would take a quarter of the start. They are
    imported in a thread, once tokens can be served.
    """
    listens = (settings.public_listen, settings.internal_listen, settings.ops_listen)
    _log_warnings(settings)
    async with AsyncExitStack() as stack:
        sockets = [stack.enter_context(_bind(listen)) for listen in listens]
        broker = await stack.enter_async_context(assembled(settings))
        apps = (broker.public, broker.internal, broker.ops)
        listeners = Listeners(list(zip(apps, sockets, strict=True)))
        await listeners.start()
        stack.push_async_callback(_cancel, asyncio.create_task(_import_the_rest()))
        logger.info(
            "serving",
            extra={
                "event": "serving",
                "version": __version__,
                "public": str(listens[0]),
                "internal": str(listens[1]),
                "ops": str(listens[2]),
            },
        )
        await stop.wait()
        logger.info("stopping", extra={"event": "stopping"})
        broker.health.drain()
        await listeners.stop()
    logger.info("stopped", extra={"event": "stopped"})


def _log_warnings(settings: Settings) -> None:
    for warning in settings.warnings:
        logger.warning(
            "a setting may be wrong",
            extra={"event": "setting_questionable", "warning": warning},
        )
    for name in settings.unverified_databases:
        logger.warning(
            "PostgreSQL's certificate is not verified",
            extra={
                "event": "database_certificate_unverified",
                "setting": name,
                "remedy": UNVERIFIED_SERVER_REMEDY,
            },
        )


async def _import_the_rest() -> None:
    await asyncio.sleep(_IMPORT_DELAY_SECONDS)
    for name in IMPORTED_AFTER_START:
        await asyncio.to_thread(import_module, name)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))


def _bind(listen: Listen) -> socket.socket:
    try:
        return bind(listen)
    except OSError as error:
        raise StartError(f"can't listen on {listen}: {error.strerror}") from error
