"""The environment of each part of `make run`, as an operator would set it.

No secret is in it: each is in a file that only its owner can read, and the name of that file here.
"""

from collections.abc import Mapping
from pathlib import Path

from devstack.keepsakes import Keepsakes
from devstack.plan import HOST, Plan

_PASSED_ON = frozenset({"BROKER_LOG_LEVEL", "BROKER_ACCESS_TOKENS"})
_KEPT_OUT = ("BROKER_", "GOOGLE_", "VAULT_", "BAO_", "AWS_", "DATABASE_", "SECRET_KEY", "DEMO_")
"""Beginnings of names that a shell may well have, and that would reach into what is set up here."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What the parts get of our own environment."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or not name.startswith(_KEPT_OUT)
    }
    return {**kept, "PYTHONUNBUFFERED": "1"}


def broker_settings(plan: Plan, keepsakes: Keepsakes, *, vault_address: str) -> dict[str, str]:
    """What `broker serve` needs beside the database: OpenBao through AppRole, secrets in files."""
    return {
        "BROKER_PUBLIC_LISTEN": f"{HOST}:{plan.public_port}",
        "BROKER_INTERNAL_LISTEN": f"{HOST}:{plan.internal_port}",
        "BROKER_OPS_LISTEN": f"{HOST}:{plan.ops_port}",
        "GOOGLE_REDIRECT_URI": plan.redirect_uri,
        "GOOGLE_SCOPES": plan.scopes,
        "GOOGLE_DISCOVERY_URL": plan.discovery_url,
        "SECRET_KEY_FILE": str(keepsakes.path("secret-key")),
        "BROKER_CALLERS_FILE": str(keepsakes.path("callers.yaml")),
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": vault_address,
        "VAULT_AUTH": "approle",
        "VAULT_ROLE_ID_FILE": str(keepsakes.path("vault-role-id")),
        "VAULT_SECRET_ID_FILE": str(keepsakes.path("vault-secret-id")),
    }


def demo_settings(plan: Plan, key_file: Path) -> dict[str, str]:
    """What the demo page is told: where the broker is, and its own key."""
    return {
        "DEMO_PORT": str(plan.demo_port),
        "DEMO_BROKER_URL": plan.internal_url,
        "DEMO_BROKER_KEY_FILE": str(key_file),
        "DEMO_SCOPES": plan.scopes,
        "DEMO_API_URL": plan.api_url,
        # Where the browser is sent on the way to Google: the page's policy must let forms go there.
        "DEMO_CONSENT_ORIGINS": f"{plan.public_url} {plan.consent_origin}",
    }
