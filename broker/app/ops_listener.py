"""The ops listener: metrics, liveness and readiness."""

from contextlib import AsyncExitStack
from dataclasses import dataclass

from broker.app.listener_app import listener_app, routed_app
from broker.app.process_context import ProcessContext
from broker.app.token_service import TokenService
from broker.ops.health import HealthCheck, Part
from broker.ops.routes import ops_routes
from broker.server.listener import Listener
from broker.telemetry.loop_lag import LoopLag
from broker.web.errors import INTERNAL_HANDLERS


@dataclass(frozen=True, slots=True)
class OpsListener:
    """The application, and the health that it reports."""

    app: Listener
    health: HealthCheck


def ops_listener(
    context: ProcessContext, tokens: TokenService, stack: AsyncExitStack
) -> OpsListener:
    """Return the ops listener. `stack` stops its measurements."""
    health = HealthCheck(
        [
            Part("database", context.database.ping),
            Part("secret_source", context.client.ping),
            Part("google", context.discovery.ping),
            Part("callers_file", context.registry.ping),
            Part("issuers", context.issuers.ping),
            Part("revocations", context.failed_revocations.ping),
        ],
        holds_tokens=lambda: len(tokens.cache) > 0,
    )
    stack.push_async_callback(health.aclose)
    stack.callback(LoopLag(context.metrics.event_loop_lag).close)
    app = routed_app(ops_routes(context.metrics.registry, health), INTERNAL_HANDLERS)
    return OpsListener(listener_app(context, "ops", app), health)
