"""`python -m devstack.demo`: runs the demo page as a process of its own."""

import os

import uvicorn

from devstack.demo.app import create_app
from devstack.demo.config import read_config


def main() -> None:
    config = read_config(os.environ)
    uvicorn.run(
        create_app(config),
        host="127.0.0.1",
        port=config.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
