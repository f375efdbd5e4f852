"""The environment of each part of `make run`, as an operator would set it.

It contains no secret: each is in a file that only its owner can read, and the environment names it.
"""

from collections.abc import Mapping
from pathlib import Path

from devstack.data_folder import DataFolder
from devstack.plan import HOST, Plan

_PASSED_ON = frozenset({"BROKER_LOG_LEVEL", "BROKER_ACCESS_TOKENS"})
_KEPT_OUT = ("BROKER_", "GOOGLE_", "VAULT_", "BAO_", "AWS_", "DATABASE_", "SECRET_KEY", "DEMO_")
"""Prefixes of variables that a developer's shell may have, and that would change the parts."""


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of this process that the parts inherit."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or not name.startswith(_KEPT_OUT)
    }
    return {**kept, "PYTHONUNBUFFERED": "1"}


def broker_settings(plan: Plan, data: DataFolder, *, vault_address: str) -> dict[str, str]:
    """Return the settings of `broker serve`, but for the database: OpenBao through AppRole."""
    return {
        "BROKER_PUBLIC_LISTEN": f"{HOST}:{plan.public_port}",
        "BROKER_INTERNAL_LISTEN": f"{HOST}:{plan.internal_port}",
        "BROKER_OPS_LISTEN": f"{HOST}:{plan.ops_port}",
        "GOOGLE_REDIRECT_URI": plan.redirect_uri,
        "GOOGLE_SCOPES": plan.scopes,
        "GOOGLE_DISCOVERY_URL": plan.discovery_url,
        "SECRET_KEY_FILE": str(data.file("secret-key")),
        "BROKER_CALLERS_FILE": str(data.file("callers.yaml")),
        "BROKER_SECRET_SOURCE": "vault",
        "VAULT_ADDR": vault_address,
        "VAULT_AUTH": "approle",
        "VAULT_ROLE_ID_FILE": str(data.file("vault-role-id")),
        "VAULT_SECRET_ID_FILE": str(data.file("vault-secret-id")),
    }


def demo_settings(plan: Plan, key_file: Path) -> dict[str, str]:
    """Return the settings of the demo page: the broker's address and the page's own key."""
    return {
        "DEMO_PORT": str(plan.demo_port),
        "DEMO_BROKER_URL": plan.internal_url,
        "DEMO_BROKER_KEY_FILE": str(key_file),
        "DEMO_SCOPES": plan.scopes,
        "DEMO_API_URL": plan.api_url,
        # The redirects to Google: the page's policy must let forms lead there.
        "DEMO_CONSENT_ORIGINS": f"{plan.public_url} {plan.consent_origin}",
    }
