"""`broker status`: the readiness of the broker on this machine, from its ops listener."""

import http.client
import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from broker.cli.environment import from_environment
from broker.settings import Listen, load_ops_listen

_TIMEOUT_SECONDS = 3.0
"""The listener answers within a second, also while parts are unavailable."""

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared with, never bound)


@click.command(short_help="Show whether the broker on this machine can serve.")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="The format; json is one object.",
)
def status(output: str) -> None:
    """Show whether the broker on this machine can serve, and the state of each part.

    Reads /readyz at BROKER_OPS_LISTEN. Exits with 0 if the broker can serve, even while a part is
    down, and with 1 otherwise.
    """
    can_serve, found = _readiness(from_environment(load_ops_listen))
    click.echo(json.dumps(found) if output == "json" else "\n".join(_lines(found)))
    sys.exit(0 if can_serve else 1)


def _readiness(listen: Listen) -> tuple[bool, Mapping[str, Any]]:
    """Return whether it can serve, and the body of `/readyz`. Raises `click.ClickException`."""
    host = _LOOPBACK.get(listen.host, listen.host)
    connection = http.client.HTTPConnection(host, listen.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        found = json.loads(answer.read())
        return answer.status == 200, {"status": found["status"], "parts": found["parts"]}
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(f"can't reach a broker at {listen}: {reason}") from error
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"the server at {listen} is not a broker") from error
    finally:
        connection.close()


def _lines(found: Mapping[str, Any]) -> list[str]:
    parts: Mapping[str, Mapping[str, Any]] = found["parts"]
    width = max(map(len, parts), default=0)
    lines = [
        f"{name:<{width}}  {part['status']}  {part.get('reason', '')}".rstrip()
        for name, part in parts.items()
    ]
    return [str(found["status"]), *lines]
