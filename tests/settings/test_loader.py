"""Loading settings: defaults, the source of the OAuth client, settings that depend on others."""

from pathlib import Path

import pytest

from broker.secret import Secret
from broker.settings import (
    GOOGLE_DISCOVERY_URL,
    EnvironmentSource,
    FileSource,
    SettingsError,
    VaultAppRoleLogin,
    VaultJwtLogin,
    VaultTokenLogin,
    load_database_url,
    load_settings,
)
from tests.settings.environments import (
    CALLBACK,
    KEY,
    VAULT,
    WEBHOOK_SECRET,
    WEBHOOKS,
    load,
    problem,
    problems,
    vault_source,
)

LOCAL_DATABASES = [
    "postgresql://broker:pass@localhost/broker",
    "postgresql://broker:pass@127.0.0.1:5432/broker",
    "postgresql://broker:pass@[::1]:5432/broker",
    "postgresql:///broker",
    "postgresql:///broker?host=/run/postgresql",
    "postgresql://broker@%2Frun%2Fpostgresql/broker",
]
REMOTE_DATABASES = [
    "postgresql://broker:pass@db/broker",
    "postgresql://broker:pass@192.0.2.2:5432/broker",
    "postgresql://broker:pass@[2001:db8::1]:5432/broker",
    "postgresql://broker:pass@localhost,db2:5433/broker?target_session_attrs=read-write",
    "postgresql:///broker?host=db",
    "postgresql://broker:pass@db/broker?sslmode=require",
    "postgresql://broker:pass@db/broker?sslmode=prefer",
]


def test_the_required_settings_are_enough() -> None:
    found = load()
    assert found.redirect_uris == (f"https://app.example.com{CALLBACK}",)
    assert found.database_url == Secret("postgresql://broker:pass@db/broker")
    assert found.secret_keys == (Secret(KEY),)
    assert found.callers_file == Path("/etc/broker/callers.yaml")
    assert found.warnings == ()


@pytest.mark.parametrize("url", LOCAL_DATABASES)
def test_a_local_database_needs_no_tls(url: str) -> None:
    assert load({"DATABASE_URL": url}).unverified_databases == ()


@pytest.mark.parametrize("url", REMOTE_DATABASES)
def test_a_remote_database_without_verified_tls_is_reported(url: str) -> None:
    assert load({"DATABASE_URL": url}).unverified_databases == ("DATABASE_URL",)
    found = load({"DATABASE_URL": LOCAL_DATABASES[0], "DATABASE_REPLICA_URL": url})
    assert found.unverified_databases == ("DATABASE_REPLICA_URL",)


@pytest.mark.parametrize("url", REMOTE_DATABASES)
@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_a_remote_database_with_verified_tls_is_not_reported(url: str, mode: str) -> None:
    url = url.partition("?sslmode")[0]
    verified = f"{url}{'&' if '?' in url else '?'}sslmode={mode}&sslrootcert=/etc/ca.pem"
    assert load({"DATABASE_URL": verified}).unverified_databases == ()
    assert load({"DATABASE_URL": url, "PGSSLMODE": mode}).unverified_databases == ()


def test_listeners_have_the_defaults_of_the_contract() -> None:
    found = load()
    listens = (found.public_listen, found.internal_listen, found.ops_listen)
    assert list(map(str, listens)) == ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"]


def test_other_settings_have_the_defaults_of_the_contract() -> None:
    found = load()
    assert found.discovery_url == GOOGLE_DISCOVERY_URL
    assert found.access_tokens == "sealed"
    assert found.log_level == "INFO"
    assert isinstance(found.secret_source, EnvironmentSource)


def test_settings_are_immutable() -> None:
    with pytest.raises(AttributeError):
        load().log_level = "DEBUG"  # type: ignore[misc]


def test_source_env_has_the_client_of_the_environment() -> None:
    source = load().secret_source
    assert isinstance(source, EnvironmentSource)
    assert source.client_id.read() == Secret("the-client-id")
    assert source.client_secret.read() == Secret("the-client-secret")


def test_source_file_has_its_path() -> None:
    changes = {"BROKER_SECRET_SOURCE": "file", "GOOGLE_CREDENTIALS_FILE": "/etc/credentials.json"}
    assert load(changes).secret_source == FileSource(Path("/etc/credentials.json"))


@pytest.mark.parametrize("source", ["file", "vault"])
def test_another_source_needs_no_client_in_the_environment(source: str) -> None:
    environ = {**VAULT, "BROKER_SECRET_SOURCE": source, "GOOGLE_CREDENTIALS_FILE": "/c.json"}
    del environ["GOOGLE_CLIENT_ID"], environ["GOOGLE_CLIENT_SECRET"]
    assert load_settings(environ).secret_source.name == source


def test_vault_has_the_defaults_of_the_contract() -> None:
    source = vault_source()
    assert source.addresses == ("https://vault.example.com:8200",)
    assert (source.kv_mount, source.kv_path) == ("secret", "token-broker/google")
    assert source.namespace is None
    assert isinstance(source.login, VaultTokenLogin)
    assert source.login.token.read() == Secret("the-token")


def test_all_vault_settings_are_read() -> None:
    source = vault_source(
        {
            "VAULT_ADDR": " https://one:8200/ , https://two:8200,",
            "VAULT_NAMESPACE": "team/a",
            "VAULT_KV_MOUNT": "kv",
            "VAULT_KV_PATH": "google/client",
            "VAULT_AUTH": "approle",
            "VAULT_ROLE_ID": "the-role",
            "VAULT_SECRET_ID": "the-secret-id",
        }
    )
    assert source.addresses == ("https://one:8200", "https://two:8200")
    assert source.namespace == "team/a"
    assert (source.kv_mount, source.kv_path) == ("kv", "google/client")
    assert isinstance(source.login, VaultAppRoleLogin)
    assert source.login.role_id.read() == Secret("the-role")
    assert source.login.secret_id.read() == Secret("the-secret-id")


@pytest.mark.parametrize("method", ["kubernetes", "jwt"])
def test_a_login_with_the_projected_token_needs_only_a_role(method: str) -> None:
    login = vault_source({"VAULT_AUTH": method, "VAULT_ROLE": "r", "VAULT_TOKEN": ""}).login
    assert isinstance(login, VaultJwtLogin)
    assert (login.method, login.role) == (method, "r")
    assert login.token_file == Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def test_access_tokens_may_stay_in_memory() -> None:
    assert load({"BROKER_ACCESS_TOKENS": "memory"}).access_tokens == "memory"


@pytest.mark.parametrize(
    ("one", "other"),
    [("PUBLIC", "INTERNAL"), ("PUBLIC", "OPS"), ("INTERNAL", "OPS")],
)
def test_two_listeners_with_one_address_are_rejected(one: str, other: str) -> None:
    names = [f"BROKER_{one}_LISTEN", f"BROKER_{other}_LISTEN"]
    found = problem(dict.fromkeys(names, "127.0.0.1:9000"))
    assert all(name in found for name in names)


def test_several_listeners_may_have_port_0() -> None:
    names = ("BROKER_PUBLIC_LISTEN", "BROKER_INTERNAL_LISTEN", "BROKER_OPS_LISTEN")
    assert load(dict.fromkeys(names, "127.0.0.1:0"))


def test_the_database_url_loads_without_the_other_settings() -> None:
    assert load_database_url({"DATABASE_URL": "postgresql://db/broker"})
    with pytest.raises(SettingsError, match=r"^DATABASE_URL is missing"):
        load_database_url({})


@pytest.mark.parametrize(
    ("source", "name"),
    [("vault", "VAULT_ADDR"), ("vault", "VAULT_TOKEN"), ("file", "GOOGLE_CREDENTIALS_FILE")],
)
def test_a_source_requires_its_own_settings(source: str, name: str) -> None:
    changes = {"BROKER_SECRET_SOURCE": source, "GOOGLE_CREDENTIALS_FILE": "/c.json", name: ""}
    assert problem(changes, VAULT).startswith(f"{name} is missing: ")


def test_an_approle_requires_both_ids() -> None:
    names = [line.split(" ")[0] for line in problems({"VAULT_AUTH": "approle"}, VAULT)]
    assert names == ["VAULT_ROLE_ID", "VAULT_SECRET_ID"]


def test_the_read_replica_is_optional() -> None:
    assert load().database_replica_url is None


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [("GOOGLE_CREDENTIALS_FILE", "/c.json", "file"), ("VAULT_ADDR", "https://v:8200", "vault")],
)
def test_a_source_that_is_configured_but_not_chosen_is_suggested(
    name: str, value: str, source: str
) -> None:
    first, _ = problems({"GOOGLE_CLIENT_ID": "", "GOOGLE_CLIENT_SECRET": "", name: value})
    assert first.startswith("GOOGLE_CLIENT_ID is missing: ")
    assert f", or set BROKER_SECRET_SOURCE={source} for {name}" in first


def test_no_source_is_suggested_when_one_is_chosen() -> None:
    changes = {"BROKER_SECRET_SOURCE": "env", "VAULT_ADDR": "https://v:8200"}
    assert "BROKER_SECRET_SOURCE" not in problem({"GOOGLE_CLIENT_ID": "", **changes})


def test_webhooks_are_optional() -> None:
    assert load().webhooks is None


def test_a_webhook_receiver_may_have_several_secrets() -> None:
    receiver = load({"BROKER_WEBHOOK_SECRET": f"{WEBHOOK_SECRET}, {WEBHOOK_SECRET}"}, WEBHOOKS)
    assert receiver.webhooks is not None
    assert receiver.webhooks.url == "https://app.example.com/hooks"
    assert [secret.reveal() for secret in receiver.webhooks.secrets] == [WEBHOOK_SECRET] * 2


@pytest.mark.parametrize("missing", ["BROKER_WEBHOOK_URL", "BROKER_WEBHOOK_SECRET"])
def test_webhooks_require_an_address_and_a_secret(missing: str) -> None:
    assert f"{missing} is missing" in problem({missing: ""}, WEBHOOKS)
