"""Loads settings: all of them for `broker serve`, or those that one command needs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from broker.secret import Secret
from broker.settings import table
from broker.settings.configured_secret import ConfiguredSecret
from broker.settings.environment import Environment, SettingProblem
from broker.settings.model import (
    EnvironmentSource,
    FileSource,
    Listen,
    SecretSource,
    Settings,
    VaultAppRoleLogin,
    VaultJwtLogin,
    VaultLogin,
    VaultSource,
    VaultTokenLogin,
    WebhookReceiver,
)
from broker.settings.other_variables import (
    DRIVERS_TLS_MODE,
    check_proxies_and_certificates,
    misspelt_settings,
)
from broker.settings.urls import is_server_verified


def load_settings(variables: Mapping[str, str]) -> Settings:
    """Load and validate all settings. Raises `SettingsError` with every problem."""
    environment = Environment(variables)
    settings = _settings(environment, tuple(misspelt_settings(variables)))
    environment.raise_problems()
    return settings


def examine_settings(variables: Mapping[str, str]) -> tuple[Settings, tuple[SettingProblem, ...]]:
    """Load what can be loaded, and return it with all problems.

    A setting that has a problem is as if it was not set.
    """
    environment = Environment(variables)
    settings = _settings(environment, tuple(misspelt_settings(variables)))
    return settings, tuple(environment.problems)


def load_database_url(variables: Mapping[str, str]) -> Secret:
    """Load `DATABASE_URL` alone. Raises `SettingsError`."""
    environment = Environment(variables)
    url = environment.read(table.DATABASE_URL)
    environment.raise_problems()
    return url


def load_storage(variables: Mapping[str, str]) -> tuple[Secret, tuple[Secret, ...]]:
    """Load `DATABASE_URL`, and the keys in `SECRET_KEY`. Raises `SettingsError`."""
    environment = Environment(variables)
    url, keys = environment.read(table.DATABASE_URL), environment.read(table.SECRET_KEY)
    environment.raise_problems()
    return url, keys


def load_ops_listen(variables: Mapping[str, str]) -> Listen:
    """Load `BROKER_OPS_LISTEN` alone. Raises `SettingsError`."""
    environment = Environment(variables)
    listen = environment.read(table.OPS_LISTEN)
    environment.raise_problems()
    return listen


def check_outbound_variables(variables: Mapping[str, str]) -> None:
    """Check the variables on which calls to other servers depend. Raises `SettingsError`."""
    environment = Environment(variables)
    check_proxies_and_certificates(environment)
    environment.raise_problems()


def _settings(environment: Environment, warnings: tuple[str, ...]) -> Settings:
    environment.read(table.KEY_SOURCE)
    settings = Settings(
        public_listen=environment.read(table.PUBLIC_LISTEN),
        internal_listen=environment.read(table.INTERNAL_LISTEN),
        ops_listen=environment.read(table.OPS_LISTEN),
        redirect_uris=environment.read(table.REDIRECT_URI),
        scopes=environment.read(table.SCOPES),
        discovery_url=environment.read(table.DISCOVERY_URL),
        database_url=environment.read(table.DATABASE_URL),
        database_replica_url=environment.read(table.DATABASE_REPLICA_URL),
        secret_keys=environment.read(table.SECRET_KEY),
        secret_source=_secret_source(environment),
        access_tokens=environment.read(table.ACCESS_TOKENS),
        stale_tokens_at_most=environment.read(table.STALE_TOKENS_AT_MOST),
        audit_retention=environment.read(table.AUDIT_RETENTION_DAYS),
        callers_file=environment.read(table.CALLERS_FILE),
        webhooks=_webhook_receiver(environment),
        log_level=environment.read(table.LOG_LEVEL),
        trusted_proxies=environment.read(table.TRUSTED_PROXIES),
        warnings=warnings,
    )
    _reject_shared_addresses(environment, settings)
    check_proxies_and_certificates(environment)
    return replace(settings, unverified_databases=_unverified_databases(environment, settings))


def _reject_shared_addresses(environment: Environment, settings: Settings) -> None:
    """Note each listener that has the address of another; port 0 is a different port each time."""
    listeners = {
        table.PUBLIC_LISTEN.name: settings.public_listen,
        table.INTERNAL_LISTEN.name: settings.internal_listen,
        table.OPS_LISTEN.name: settings.ops_listen,
    }
    seen: dict[Listen, str] = {}
    broken = environment.broken
    for name, listen in listeners.items():
        if not listen.port or name in broken:
            continue
        if listen in seen:
            environment.note(seen[listen], f"and {name} are the same address")
        seen[listen] = name


def _unverified_databases(environment: Environment, settings: Settings) -> tuple[str, ...]:
    urls = {
        table.DATABASE_URL.name: settings.database_url,
        table.DATABASE_REPLICA_URL.name: settings.database_replica_url,
    }
    mode = environment.text(DRIVERS_TLS_MODE)
    return tuple(
        name
        for name, url in urls.items()
        if url is not None and not is_server_verified(url.reveal(), mode)
    )


def _webhook_receiver(environment: Environment) -> WebhookReceiver | None:
    """Read both settings of webhooks if one of them is set."""
    if not (environment.is_set(table.WEBHOOK_URL) or environment.is_set(table.WEBHOOK_SECRET)):
        return None
    return WebhookReceiver(
        environment.read(table.WEBHOOK_URL), environment.read(table.WEBHOOK_SECRET)
    )


def _secret_source(environment: Environment) -> SecretSource:
    name = environment.read(table.SECRET_SOURCE)
    if table.SECRET_SOURCE.name in environment.broken:
        return EnvironmentSource(_none(table.CLIENT_ID), _none(table.CLIENT_SECRET))
    match name:
        case "env":
            return EnvironmentSource(
                client_id=environment.read_later(
                    table.CLIENT_ID, hint=_forgotten_choice(environment)
                ),
                client_secret=environment.read_later(table.CLIENT_SECRET),
            )
        case "file":
            return FileSource(environment.read(table.CREDENTIALS_FILE))
        case "vault":
            return VaultSource(
                addresses=environment.read(table.VAULT_ADDR),
                namespace=environment.read(table.VAULT_NAMESPACE),
                login=_vault_login(environment),
                kv_mount=environment.read(table.VAULT_KV_MOUNT),
                kv_path=environment.read(table.VAULT_KV_PATH),
            )


def _forgotten_choice(environment: Environment) -> str:
    """A hint for settings of another source, if `BROKER_SECRET_SOURCE` is not set."""
    if environment.is_set(table.SECRET_SOURCE):
        return ""
    described = {"file": table.CREDENTIALS_FILE.name, "vault": table.VAULT_ADDR.name}
    return "".join(
        f", or set {table.SECRET_SOURCE.name}={source} for {name}"
        for source, name in described.items()
        if environment.text(name)
    )


def _vault_login(environment: Environment) -> VaultLogin:
    method: Literal["token", "approle", "kubernetes", "jwt"] = environment.read(table.VAULT_AUTH)
    if table.VAULT_AUTH.name in environment.broken:
        return VaultTokenLogin(_none(table.VAULT_TOKEN))
    match method:
        case "token":
            return VaultTokenLogin(environment.read_later(table.VAULT_TOKEN))
        case "approle":
            return VaultAppRoleLogin(
                role_id=environment.read_later(table.VAULT_ROLE_ID),
                secret_id=environment.read_later(table.VAULT_SECRET_ID),
            )
        case "kubernetes" | "jwt":
            role = environment.read(table.VAULT_ROLE, hint=f" at auth/{method}")
            return VaultJwtLogin(method, role)


def _none(setting: table.Setting[Secret]) -> ConfiguredSecret:
    return ConfiguredSecret(setting.name, value=Secret(""))
