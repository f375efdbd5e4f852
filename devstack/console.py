"""The output of `make run`: one short line for each step, and how to use what was started."""

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from devstack.plan import Plan

EXAMPLE_USER = "alice"

_GREEN, _RED, _DIM, _BOLD, _PLAIN = "\033[32m", "\033[31m", "\033[2m", "\033[1m", "\033[0m"


class Step:
    """A step under way; `detail`, such as an address, is printed when it ends."""

    def __init__(self) -> None:
        self.detail = ""


class Console:
    """Prints for a person; in colour only if `stream` is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._has_colours = stream.isatty()

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Print the step's name when it starts; when it ends, success or failure and the time."""
        self._write(f"  {name} … ")
        started, step = time.monotonic(), Step()
        try:
            yield step
        except BaseException:
            self._write(self._in(_RED, "✗") + "\n")
            raise
        took = self._in(_DIM, f"{time.monotonic() - started:.1f} s")
        detail = f"  {step.detail}" if step.detail else ""
        self._write(f"{self._in(_GREEN, '✓')} {took}{detail}\n")

    def line(self, text: str = "") -> None:
        self._write(text + "\n")

    def heading(self, text: str) -> None:
        self._write(self._in(_BOLD, text) + "\n")

    def error(self, text: str) -> None:
        self._write(self._in(_RED, text) + "\n")

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._has_colours else text

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def usage(plan: Plan, key: str, folder: Path) -> str:
    """Return the lines that follow the start: addresses, and commands to paste into a shell.

    They show `key` in full: it opens only the demo on this machine.
    """
    user = f"{plan.internal_url}/v1/users/{EXAMPLE_USER}"
    bearer = shlex.quote(f"Authorization: Bearer {key}")
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    scopes = [scope for scope in plan.scopes.split() if scope not in ("openid", "email")]
    body = shlex.quote(json.dumps({"scopes": scopes[:1]}))
    return f"""\
  Click   {plan.demo_url}/
          Connect Google as {EXAMPLE_USER}, see what a service sees, call the Calendar API.

  Curl    A link for {EXAMPLE_USER} to open in a browser, then the token:

  curl -sS {user}/connect-links \\
    -H {bearer} \\
    -H 'Content-Type: application/json' -d {body}

  curl -sS {user}/token \\
    -H {bearer}

  Watch   {plan.ops_url}/readyz   {plan.ops_url}/metrics   {shown}/logs/
  Google  {_google(plan)}
  Stop    Ctrl-C; accounts and grants are kept in {shown}/ for the next start."""


def _google(plan: Plan) -> str:
    if plan.google is None:
        return (
            f"a stand-in at {plan.standin_url}; for the real one set GOOGLE_CLIENT_ID and "
            "GOOGLE_CLIENT_SECRET"
        )
    redirects = ", ".join(uri.strip() for uri in plan.redirect_uri.split(","))
    return f"{plan.consent_origin}; the client there must list the redirect URI {redirects}"
