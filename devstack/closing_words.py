"""The lines that `make run` ends its start with: where to click, and what to paste into a shell."""

import json
import shlex
from pathlib import Path

from devstack.plan import Plan

EXAMPLE_USER = "alice"


def closing_words(plan: Plan, key: str, folder: Path) -> str:
    """`key` is shown in full: it opens nothing but this machine's own play."""
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
  Stop    Ctrl-C; accounts and grants are kept in {shown}/ for the next time."""


def _google(plan: Plan) -> str:
    if plan.google is None:
        return (
            f"a stand-in at {plan.standin_url}; for the real one set GOOGLE_CLIENT_ID and "
            "GOOGLE_CLIENT_SECRET"
        )
    redirects = ", ".join(uri.strip() for uri in plan.redirect_uri.split(","))
    return f"{plan.consent_origin}; the client there must list the redirect URI {redirects}"
