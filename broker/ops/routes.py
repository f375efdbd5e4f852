"""`/metrics`, `/livez` and `/readyz`."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from broker.ops.health import HealthCheck
from broker.web.problems import NO_STORE


def ops_routes(registry: CollectorRegistry, health: HealthCheck) -> list[Route]:
    """Return the routes of the ops listener."""

    async def metrics(request: Request) -> Response:
        encode, media_type = _encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={**NO_STORE, "Content-Type": media_type})

    async def livez(_request: Request) -> Response:
        """The event loop runs. Nothing else is checked: a restart would fix nothing else."""
        return PlainTextResponse("ok\n", headers=NO_STORE)

    async def readyz(_request: Request) -> Response:
        result = await health.check()
        return JSONResponse(
            {"status": result.status, "parts": result.parts},
            status_code=200 if result.can_serve else 503,
            headers=NO_STORE,
        )

    return [
        Route("/metrics", metrics, methods=["GET"]),
        Route("/livez", livez, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
    ]


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return the format that the scraper accepts; plain text if its header is malformed."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # The library parses a version that is not a number.
        return choose_encoder("")
