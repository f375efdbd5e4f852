"""The table of settings: every declaration is complete and consistent."""

from collections import Counter
from itertools import product
from typing import Any

import pytest

from broker.settings import SECRET_NAMES, SETTING_NAMES
from broker.settings import loader as settings_loader
from broker.settings.environment import Environment
from broker.settings.table import SETTINGS, Setting
from tests.settings.environments import GOOD, VAULT, WEBHOOKS

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)


@each_setting
def test_the_parser_accepts_the_default(setting: Setting[Any]) -> None:
    setting.parse(setting.default)


@each_setting
def test_the_parser_accepts_the_example(setting: Setting[Any]) -> None:
    if setting.example:
        setting.parse(setting.example)


@each_setting
def test_the_meaning_is_at_least_one_sentence(setting: Setting[Any]) -> None:
    assert setting.meaning[0].isupper() or setting.meaning[0] == "`"
    assert setting.meaning.endswith(".")


@each_setting
def test_a_required_setting_has_no_default(setting: Setting[Any]) -> None:
    assert not (setting.required and setting.default)


def test_no_name_is_declared_twice() -> None:
    assert max(Counter(setting.name for setting in SETTINGS).values()) == 1


def test_the_loader_reads_every_setting_of_the_table_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: set[str] = set()

    class Recorded(Environment):
        def text(self, variable: str, *, setting: str = "") -> str:
            read.add(setting or variable)
            return super().text(variable, setting=setting)

    monkeypatch.setattr(settings_loader, "Environment", Recorded)
    for source, auth in product(("env", "file", "vault"), ("token", "approle", "jwt")):
        choice = {"BROKER_SECRET_SOURCE": source, "VAULT_AUTH": auth}
        settings_loader.examine_settings({**GOOD, **VAULT, **WEBHOOKS, **choice})
    libraries = {"PGSSLMODE", "SSL_CERT_FILE"}
    assert {name for name in read if not name.lower().endswith("_proxy")} - libraries == (
        SETTING_NAMES
    )


def test_the_secrets_are_those_of_the_contract() -> None:
    assert {
        "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "DATABASE_URL", "DATABASE_REPLICA_URL",
        "SECRET_KEY", "VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "BROKER_WEBHOOK_SECRET",
    } == SECRET_NAMES  # fmt: skip
