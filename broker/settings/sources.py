"""Which source of the OAuth client is configured, and how."""

from pathlib import Path

from broker.secret import Secret
from broker.settings.model import (
    EnvironmentSource,
    FileSource,
    SecretSource,
    VaultAppRoleLogin,
    VaultJwtLogin,
    VaultLogin,
    VaultSource,
    VaultTokenLogin,
)
from broker.settings.reader import Reader
from broker.settings.secret_setting import SecretSetting
from broker.settings.urls import is_secure_url


def read_source(reader: Reader) -> SecretSource:
    """What `BROKER_SECRET_SOURCE` and its own settings say."""
    name = reader.text("BROKER_SECRET_SOURCE") or "env"
    if name == "file":
        return _file_source(reader)
    if name == "vault":
        return _vault_source(reader)
    if name == "aws":
        reader.problem("BROKER_SECRET_SOURCE=aws is not in this release; use env, file or vault")
    elif name != "env":
        reader.problem("BROKER_SECRET_SOURCE must be one of env, file, vault")
    if name != "env":
        nothing = Secret("")
        return EnvironmentSource(
            client_id=SecretSetting("GOOGLE_CLIENT_ID", value=nothing),
            client_secret=SecretSetting("GOOGLE_CLIENT_SECRET", value=nothing),
        )
    return EnvironmentSource(
        client_id=reader.secret(
            "GOOGLE_CLIENT_ID", "the OAuth client's id from Google's console" + _forgotten(reader)
        ),
        client_secret=reader.secret("GOOGLE_CLIENT_SECRET", "the OAuth client's secret"),
    )


def _forgotten(reader: Reader) -> str:
    """What may have been meant, where another source was described but not chosen."""
    if reader.text("BROKER_SECRET_SOURCE"):
        return ""
    described = {"file": "GOOGLE_CREDENTIALS_FILE", "vault": "VAULT_ADDR"}
    return "".join(
        f", or set BROKER_SECRET_SOURCE={source} for {name}"
        for source, name in described.items()
        if reader.text(name)
    )


def _file_source(reader: Reader) -> FileSource:
    path = reader.text("GOOGLE_CREDENTIALS_FILE")
    if not path:
        reader.problem(
            "GOOGLE_CREDENTIALS_FILE is missing: the credentials.json from Google's console"
        )
    return FileSource(Path(path))


def _vault_source(reader: Reader) -> VaultSource:
    addresses = tuple(
        a.strip().rstrip("/") for a in reader.text("VAULT_ADDR").split(",") if a.strip()
    )
    if not addresses:
        reader.problem("VAULT_ADDR is missing: for example https://vault.example.com:8200")
    if not all(map(is_secure_url, addresses)):
        reader.problem(
            "VAULT_ADDR must be one or more https addresses with commas between (plain http "
            "only on a loopback host)"
        )
    return VaultSource(
        addresses=addresses,
        namespace=reader.text("VAULT_NAMESPACE") or None,
        login=_vault_login(reader),
        kv_mount=reader.text("VAULT_KV_MOUNT") or "secret",
        kv_path=reader.text("VAULT_KV_PATH") or "token-broker/google",
    )


def _vault_login(reader: Reader) -> VaultLogin:
    method = reader.text("VAULT_AUTH") or "token"
    if method == "approle":
        return VaultAppRoleLogin(
            role_id=reader.secret("VAULT_ROLE_ID", "the AppRole's role id"),
            secret_id=reader.secret("VAULT_SECRET_ID", "the AppRole's secret id"),
        )
    if method in ("kubernetes", "jwt"):
        role = reader.text("VAULT_ROLE")
        if not role:
            reader.problem(f"VAULT_ROLE is missing: the role to log in as at auth/{method}")
        return VaultJwtLogin("kubernetes" if method == "kubernetes" else "jwt", role)
    if method != "token":
        reader.problem("VAULT_AUTH must be one of token, approle, kubernetes, jwt")
        return VaultTokenLogin(SecretSetting("VAULT_TOKEN", value=Secret("")))
    return VaultTokenLogin(reader.secret("VAULT_TOKEN", "the token to read the secret with"))
