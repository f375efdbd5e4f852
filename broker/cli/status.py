"""`broker status`: how the broker on this machine is, as its ops listener says."""

import http.client
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from broker.cli.complaints import settings_complaint
from broker.settings import Listen, SettingsError, load_ops_listen

_TIMEOUT_SECONDS = 3.0
"""The listener itself answers within a second, whatever part is away."""

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (compared with, never bound)


@click.command(short_help="Show whether the broker on this machine can serve.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def status(output: str) -> None:
    """Show whether the broker on this machine can serve, and how each part of it is.

    Asks /readyz at BROKER_OPS_LISTEN. Exits with 0 if the broker can serve, also where a part is
    down, else with 1.
    """
    try:
        listen = load_ops_listen(os.environ)
    except SettingsError as error:
        raise settings_complaint(error) from error
    can_serve, found = _readiness(listen)
    click.echo(json.dumps(found) if output == "json" else "\n".join(_table(found)))
    sys.exit(0 if can_serve else 1)


def _readiness(listen: Listen) -> tuple[bool, Mapping[str, Any]]:
    """Whether it can serve, and what `/readyz` says. Raises `click.ClickException`."""
    host = _LOOPBACK.get(listen.host, listen.host)
    connection = http.client.HTTPConnection(host, listen.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        found = json.loads(answer.read())
        return answer.status == 200, {"status": found["status"], "parts": found["parts"]}
    except OSError as error:
        reason = error.strerror or str(error)
        raise click.ClickException(f"no broker answers at {listen}: {reason}") from error
    except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise click.ClickException(f"what answers at {listen} is no broker") from error
    finally:
        connection.close()


def _table(found: Mapping[str, Any]) -> list[str]:
    parts: Mapping[str, Mapping[str, Any]] = found["parts"]
    width = max(map(len, parts), default=0)
    lines = [
        f"{name:<{width}}  {part['status']}  {part.get('reason', '')}".rstrip()
        for name, part in parts.items()
    ]
    return [str(found["status"]), *lines]
