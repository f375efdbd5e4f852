"""Assembles the broker: process context, services, listeners and background jobs, in this order.

Each part gets what it depends on at construction; nothing is assigned later.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from broker.app.background_jobs import start_grant_jobs, start_purges, start_token_jobs
from broker.app.grant_changes import open_grant_change_feed
from broker.app.grant_service import open_grant_service
from broker.app.internal_listener import internal_listener
from broker.app.ops_listener import ops_listener
from broker.app.process_context import open_process_context
from broker.app.public_listener import public_listener
from broker.app.token_service import open_token_service
from broker.background import BackgroundJobs
from broker.clock import Clock, SteadyClock
from broker.database.clock import DatabaseClock
from broker.ops.health import HealthCheck
from broker.settings import Settings


@dataclass(frozen=True, slots=True)
class Broker:
    """An ASGI application per listener, and the broker's health."""

    public: ASGIApp
    internal: ASGIApp
    ops: ASGIApp
    health: HealthCheck


@asynccontextmanager
async def assembled(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Broker]:
    """Run the broker's background jobs and yield its listeners. Raises `StartError`."""
    own_clock = clock or SteadyClock()
    async with AsyncExitStack() as stack:
        context = await open_process_context(settings, DatabaseClock(own_clock), stack)
        tokens = open_token_service(context, stack)
        grants = open_grant_service(context, tokens, stack)
        changes = await open_grant_change_feed(context, tokens, grants, stack)
        internal = internal_listener(context, tokens, grants)
        public = public_listener(context, tokens, grants)
        ops = ops_listener(context, tokens, stack)
        jobs = BackgroundJobs()
        stack.push_async_callback(jobs.stop)
        start_grant_jobs(jobs, context, grants, changes)
        start_token_jobs(jobs, context, tokens)
        start_purges(jobs, context, grants, own_clock, public.purges)
        yield Broker(public.app, internal, ops.app, ops.health)
