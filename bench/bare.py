"""The bare ASGI app: always the same response, on the broker's own HTTP server.

`python -m bench.bare PORT ANSWER_FILE [--stock]`. Event loop, protocol class and settings are those
of `broker serve`; the app does nothing that the broker does for a request. With `--stock` the
protocol class is uvicorn's own, without the broker's bounds.
"""

import asyncio
import signal
import sys
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.answers import Answer
from bench.loops import new_event_loop
from broker.server.uvicorn_server import Listeners, bind
from broker.settings import Listen


def bare_app(answer: Answer) -> ASGIApp:
    """Return an application that always sends this response."""
    start = {"type": "http.response.start", "status": answer.status, "headers": [*answer.headers]}
    body = {"type": "http.response.body", "body": answer.body}

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start)
        await send(body)

    return app


async def _serve_stock(port: int, answer: Answer) -> None:
    config = uvicorn.Config(
        bare_app(answer),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve(sockets=[bind(Listen("127.0.0.1", port))])


async def _serve(port: int, answer: Answer) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listeners = Listeners([(bare_app(answer), bind(Listen("127.0.0.1", port)))])
    await listeners.start()
    await stop.wait()
    await listeners.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        serve = _serve_stock if sys.argv[3:] == ["--stock"] else _serve
        runner.run(serve(int(sys.argv[1]), Answer.load(Path(sys.argv[2]))))
