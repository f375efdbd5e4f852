"""Environments for the tests of the settings, and their problems."""

from collections.abc import Mapping

import pytest

from broker.settings import CALLBACK_PATH, Settings, SettingsError, VaultSource, load_settings

KEY = "a-key-of-more-than-32-bytes-0123456789"
CALLBACK = CALLBACK_PATH
GOOD: Mapping[str, str] = {
    "GOOGLE_CLIENT_ID": "the-client-id",
    "GOOGLE_CLIENT_SECRET": "the-client-secret",
    "GOOGLE_REDIRECT_URI": f"https://app.example.com{CALLBACK}",
    "GOOGLE_SCOPES": "https://www.googleapis.com/auth/calendar.readonly",
    "DATABASE_URL": "postgresql://broker:pass@db/broker",
    "SECRET_KEY": KEY,
    "BROKER_CALLERS_FILE": "/etc/broker/callers.yaml",
}
VAULT: Mapping[str, str] = {
    **GOOD,
    "BROKER_SECRET_SOURCE": "vault",
    "VAULT_ADDR": "https://vault.example.com:8200",
    "VAULT_TOKEN": "the-token",
}
WEBHOOK_SECRET = "whsec_" + "bWFkZSB1cCBmb3IgdGVzdHMsIDMyIGJ5dGVzIGxvbmc="
WEBHOOKS: Mapping[str, str] = {
    **GOOD,
    "BROKER_WEBHOOK_URL": "https://app.example.com/hooks",
    "BROKER_WEBHOOK_SECRET": WEBHOOK_SECRET,
}
REQUIRED = sorted(GOOD)


def load(changes: Mapping[str, str] | None = None, base: Mapping[str, str] = GOOD) -> Settings:
    return load_settings({**base, **(changes or {})})


def problems(changes: Mapping[str, str], base: Mapping[str, str] = GOOD) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(changes, base)
    return [problem.text for problem in raised.value.problems]


def problem(changes: Mapping[str, str], base: Mapping[str, str] = GOOD) -> str:
    (only,) = problems(changes, base)
    return only


def vault_source(changes: Mapping[str, str] | None = None) -> VaultSource:
    source = load(changes, VAULT).secret_source
    assert isinstance(source, VaultSource)
    return source
