"""Environment variables in, one frozen and validated object out.

All problems are found before any is reported, and no report shows a value, which may be a secret.
No other package reads the environment.
"""

from broker.settings.configured_secret import ConfiguredSecret, UnreadableSecretError
from broker.settings.environment import SettingProblem, SettingsError
from broker.settings.loader import (
    check_outbound_variables,
    examine_settings,
    load_database_url,
    load_ops_listen,
    load_settings,
    load_storage,
)
from broker.settings.model import (
    ALWAYS_REQUESTED,
    GOOGLE_DISCOVERY_URL,
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
from broker.settings.parsers import CALLBACK_PATH, signing_key
from broker.settings.table import SECRET_NAMES, SETTING_NAMES
from broker.settings.urls import is_loopback_host, is_secure_url

__all__ = [
    "ALWAYS_REQUESTED",
    "CALLBACK_PATH",
    "GOOGLE_DISCOVERY_URL",
    "SECRET_NAMES",
    "SETTING_NAMES",
    "ConfiguredSecret",
    "EnvironmentSource",
    "FileSource",
    "Listen",
    "SecretSource",
    "SettingProblem",
    "Settings",
    "SettingsError",
    "UnreadableSecretError",
    "VaultAppRoleLogin",
    "VaultJwtLogin",
    "VaultLogin",
    "VaultSource",
    "VaultTokenLogin",
    "WebhookReceiver",
    "check_outbound_variables",
    "examine_settings",
    "is_loopback_host",
    "is_secure_url",
    "load_database_url",
    "load_ops_listen",
    "load_settings",
    "load_storage",
    "signing_key",
]
