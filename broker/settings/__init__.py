"""Environment in, one frozen and validated object out.

Every problem is found before any is reported, and none of the reports prints a value that could be
a secret. Nothing else in the product reads the environment.
"""

from broker.settings.loader import (
    load_database_url,
    load_ops_listen,
    load_settings,
    load_storage,
    load_way_out,
)
from broker.settings.model import (
    GOOGLE_DISCOVERY_URL,
    IDENTITY_SCOPES,
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
)
from broker.settings.names import SECRET_NAMES, SETTING_NAMES
from broker.settings.reader import SettingsError
from broker.settings.secret_setting import SecretSetting, UnreadableSecretError
from broker.settings.urls import is_loopback_host, is_secure_url
from broker.settings.webhook_receiver import WebhookReceiver, signing_key

__all__ = [
    "GOOGLE_DISCOVERY_URL",
    "IDENTITY_SCOPES",
    "SECRET_NAMES",
    "SETTING_NAMES",
    "EnvironmentSource",
    "FileSource",
    "Listen",
    "SecretSetting",
    "SecretSource",
    "Settings",
    "SettingsError",
    "UnreadableSecretError",
    "VaultAppRoleLogin",
    "VaultJwtLogin",
    "VaultLogin",
    "VaultSource",
    "VaultTokenLogin",
    "WebhookReceiver",
    "is_loopback_host",
    "is_secure_url",
    "load_database_url",
    "load_ops_listen",
    "load_settings",
    "load_storage",
    "load_way_out",
    "signing_key",
]
