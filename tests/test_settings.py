"""The environment: every setting of the contract, every problem at once, never a secret shown."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.secret import Secret
from broker.settings import (
    GOOGLE_DISCOVERY_URL,
    SECRET_NAMES,
    EnvironmentSource,
    FileSource,
    Listen,
    Settings,
    SettingsError,
    UnreadableSecretError,
    VaultAppRoleLogin,
    VaultJwtLogin,
    VaultSource,
    VaultTokenLogin,
    is_loopback_host,
    is_secure_url,
    load_database_url,
    load_settings,
)
from tests.support.issuer import self_signed

KEY = "a-key-of-more-than-32-bytes-0123456789"
CALLBACK = "/auth/google/callback"
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
REQUIRED = sorted(GOOD)


def load(changes: Mapping[str, str] | None = None, base: Mapping[str, str] = GOOD) -> Settings:
    return load_settings({**base, **(changes or {})})


def problems(changes: Mapping[str, str], base: Mapping[str, str] = GOOD) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load(changes, base)
    return raised.value.problems


def problem(changes: Mapping[str, str], base: Mapping[str, str] = GOOD) -> str:
    (only,) = problems(changes, base)
    return only


def vault_source(changes: Mapping[str, str] | None = None) -> VaultSource:
    source = load(changes, VAULT).secret_source
    assert isinstance(source, VaultSource)
    return source


# ---- what is read, and what stands for what is not set


def test_what_is_required_is_enough() -> None:
    found = load()
    assert found.redirect_uris == (f"https://app.example.com{CALLBACK}",)
    assert found.database_url == Secret("postgresql://broker:pass@db/broker")
    assert found.secret_keys == (Secret(KEY),)
    assert found.callers_file == Path("/etc/broker/callers.yaml")
    assert found.warnings == ()


LOCAL_DATABASES = [
    "postgresql://broker:pass@localhost/broker",
    "postgresql://broker:pass@127.0.0.1:5432/broker",
    "postgresql://broker:pass@[::1]:5432/broker",
    "postgresql:///broker",
    "postgresql:///broker?host=/run/postgresql",
    "postgresql://broker@%2Frun%2Fpostgresql/broker",
]
FAR_DATABASES = [
    "postgresql://broker:pass@db/broker",
    "postgresql://broker:pass@192.0.2.2:5432/broker",
    "postgresql://broker:pass@[2001:db8::1]:5432/broker",
    "postgresql://broker:pass@localhost,db2:5433/broker?target_session_attrs=read-write",
    "postgresql:///broker?host=db",
    "postgresql://broker:pass@db/broker?sslmode=require",
    "postgresql://broker:pass@db/broker?sslmode=prefer",
]


@pytest.mark.parametrize("url", LOCAL_DATABASES)
def test_a_database_of_this_machine_needs_no_tls(url: str) -> None:
    assert load({"DATABASE_URL": url}).unverified_databases == ()


@pytest.mark.parametrize("url", FAR_DATABASES)
def test_a_database_elsewhere_without_verified_tls_is_pointed_out(url: str) -> None:
    assert load({"DATABASE_URL": url}).unverified_databases == ("DATABASE_URL",)
    found = load({"DATABASE_URL": LOCAL_DATABASES[0], "DATABASE_REPLICA_URL": url})
    assert found.unverified_databases == ("DATABASE_REPLICA_URL",)


@pytest.mark.parametrize("url", FAR_DATABASES)
@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_a_database_whose_certificate_is_verified_is_not(url: str, mode: str) -> None:
    url = url.partition("?sslmode")[0]
    verified = f"{url}{'&' if '?' in url else '?'}sslmode={mode}&sslrootcert=/etc/ca.pem"
    assert load({"DATABASE_URL": verified}).unverified_databases == ()
    assert load({"DATABASE_URL": url, "PGSSLMODE": mode}).unverified_databases == ()


def test_the_listeners_have_the_contracts_defaults() -> None:
    found = load()
    listens = (found.public_listen, found.internal_listen, found.ops_listen)
    assert list(map(str, listens)) == ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"]


def test_other_defaults_are_the_contracts() -> None:
    found = load()
    assert found.discovery_url == GOOGLE_DISCOVERY_URL
    assert found.access_tokens == "sealed"
    assert found.log_level == "INFO"
    assert isinstance(found.secret_source, EnvironmentSource)


def test_an_empty_setting_is_one_that_is_not_set() -> None:
    names = ("BROKER_PUBLIC_LISTEN", "BROKER_LOG_LEVEL", "GOOGLE_DISCOVERY_URL", "VAULT_ADDR")
    assert load(dict.fromkeys(names, " ")) == load()


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        load().log_level = "DEBUG"  # type: ignore[misc]


def test_the_environments_client_is_read() -> None:
    source = load().secret_source
    assert isinstance(source, EnvironmentSource)
    assert source.client_id.read() == Secret("the-client-id")
    assert source.client_secret.read() == Secret("the-client-secret")


def test_the_file_sources_path_is_read() -> None:
    changes = {"BROKER_SECRET_SOURCE": "file", "GOOGLE_CREDENTIALS_FILE": "/etc/credentials.json"}
    assert load(changes).secret_source == FileSource(Path("/etc/credentials.json"))


@pytest.mark.parametrize("source", ["file", "vault"])
def test_another_source_needs_no_client_in_the_environment(source: str) -> None:
    environ = {**VAULT, "BROKER_SECRET_SOURCE": source, "GOOGLE_CREDENTIALS_FILE": "/c.json"}
    del environ["GOOGLE_CLIENT_ID"], environ["GOOGLE_CLIENT_SECRET"]
    assert load_settings(environ).secret_source.name == source


def test_vault_has_the_contracts_defaults() -> None:
    source = vault_source()
    assert source.addresses == ("https://vault.example.com:8200",)
    assert (source.kv_mount, source.kv_path) == ("secret", "token-broker/google")
    assert source.namespace is None
    assert isinstance(source.login, VaultTokenLogin)
    assert source.login.token.read() == Secret("the-token")


def test_every_vault_setting_is_read() -> None:
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
def test_a_login_by_projected_token_needs_a_role_and_no_more(method: str) -> None:
    login = vault_source({"VAULT_AUTH": method, "VAULT_ROLE": "r", "VAULT_TOKEN": ""}).login
    assert isinstance(login, VaultJwtLogin)
    assert (login.method, login.role) == (method, "r")
    assert login.token_file == Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def test_several_redirect_uris_keep_their_order() -> None:
    uris = [f"https://app.example.com{CALLBACK}", f"https://api.example.com{CALLBACK}"]
    assert load({"GOOGLE_REDIRECT_URI": " , ".join(uris)}).redirect_uris == tuple(uris)


def test_several_secret_keys_keep_their_order() -> None:
    found = load({"SECRET_KEY": f" {'n' * 32} , {'o' * 32},"})
    assert found.secret_keys == (Secret("n" * 32), Secret("o" * 32))


def test_identity_scopes_are_always_added_and_none_is_doubled() -> None:
    assert load({"GOOGLE_SCOPES": "a email  b a"}).scopes == ("openid", "email", "a", "b")


@pytest.mark.parametrize("level", ["DEBUG", "info", "Warning", "ERROR"])
def test_a_log_level_is_read_in_any_case(level: str) -> None:
    assert load({"BROKER_LOG_LEVEL": level}).log_level == level.upper()


def test_trusted_proxies_are_addresses_and_networks() -> None:
    given = load({"BROKER_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.7,2001:db8::/32"}).trusted_proxies
    assert list(map(str, given)) == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
    assert load().trusted_proxies == ()


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.1/8", "*"])
def test_a_trusted_proxy_that_is_no_address_is_refused(text: str) -> None:
    (problem,) = problems({"BROKER_TRUSTED_PROXIES": text})
    assert "BROKER_TRUSTED_PROXIES must be addresses" in problem


def test_access_tokens_may_stay_in_memory() -> None:
    assert load({"BROKER_ACCESS_TOKENS": "memory"}).access_tokens == "memory"


@pytest.mark.parametrize(
    ("text", "days"), [("", 400), ("1", 1), ("36500", 36_500), ("0", None), ("000", None)]
)
def test_audit_records_are_kept_so_long(text: str, days: int | None) -> None:
    kept = load({"BROKER_AUDIT_RETENTION_DAYS": text}).audit_retention
    assert kept == (timedelta(days=days) if days else None)


@pytest.mark.parametrize("text", ["-1", "1.5", "36501", "1e3", "400d", "99999999", "٤٠٠"])
def test_a_retention_that_is_no_number_of_days_is_refused(text: str) -> None:
    (problem,) = problems({"BROKER_AUDIT_RETENTION_DAYS": text})
    assert problem.startswith("BROKER_AUDIT_RETENTION_DAYS must be a number of days up to 36500")


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("2", 2), ("86400", 86_400)])
def test_cached_tokens_are_served_so_long(text: str, seconds: int | None) -> None:
    at_most = load({"BROKER_STALE_TOKENS_AT_MOST": text}).stale_tokens_at_most
    assert at_most == (timedelta(seconds=seconds) if seconds else None)


@pytest.mark.parametrize("text", ["0", "1", "-5", "2.5", "60s", "86401", "1e3", "٦٠"])
def test_a_limit_of_staleness_that_is_no_number_of_seconds_is_refused(text: str) -> None:
    (problem,) = problems({"BROKER_STALE_TOKENS_AT_MOST": text})
    assert "must be a whole number of seconds from 2 to 86400" in problem


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("0.0.0.0:80", Listen("0.0.0.0", 80)),
        ("[::]:8000", Listen("::", 8000)),
        ("[::1]:0", Listen("::1", 0)),
        ("localhost:65535", Listen("localhost", 65535)),
    ],
)
def test_an_address_to_listen_at_is_host_and_port(text: str, listen: Listen) -> None:
    assert load({"BROKER_PUBLIC_LISTEN": text}).public_listen == listen
    assert str(listen) == text


# ---- secrets in files


@pytest.mark.parametrize(
    "name", sorted(SECRET_NAMES - {"DATABASE_REPLICA_URL", "BROKER_WEBHOOK_SECRET"})
)
def test_every_secret_may_come_from_a_file(name: str, tmp_path: Path) -> None:
    environ = {**VAULT, "VAULT_ROLE_ID": "r", "VAULT_SECRET_ID": "s"}
    environ["BROKER_SECRET_SOURCE"] = "env" if name.startswith("GOOGLE") else "vault"
    environ["VAULT_AUTH"] = "token" if name == "VAULT_TOKEN" else "approle"
    file = tmp_path / "secret"
    file.write_text(environ.pop(name) + "\n")
    assert load_settings({**environ, f"{name}_FILE": str(file)})


def test_the_contracts_secrets_are_known() -> None:
    assert {
        "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET", "DATABASE_URL", "DATABASE_REPLICA_URL",
        "SECRET_KEY", "VAULT_TOKEN", "VAULT_ROLE_ID", "VAULT_SECRET_ID", "BROKER_WEBHOOK_SECRET",
    } == SECRET_NAMES  # fmt: skip


def test_white_space_around_a_secret_in_a_file_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("\n postgresql://broker@db/broker \r\n\n")
    found = load_database_url({"DATABASE_URL_FILE": str(file)})
    assert found == Secret("postgresql://broker@db/broker")


def test_a_secret_in_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    environ = {**GOOD, "GOOGLE_CLIENT_SECRET_FILE": str(file)}
    del environ["GOOGLE_CLIENT_SECRET"]
    source = load_settings(environ).secret_source
    assert isinstance(source, EnvironmentSource)
    file.write_text("second")
    assert source.client_secret.read() == Secret("second")
    file.unlink()
    with pytest.raises(UnreadableSecretError, match="GOOGLE_CLIENT_SECRET_FILE: can't read"):
        source.client_secret.read()


@pytest.mark.parametrize("name", ["DATABASE_URL", "SECRET_KEY", "GOOGLE_CLIENT_SECRET"])
def test_value_and_file_together_are_a_mistake(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(GOOD[name])
    assert problem({f"{name}_FILE": str(file)}) == f"{name} and {name}_FILE are both set; keep one"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file or directory"), (b"", "is empty"), (b" \n", "is empty"),
     (b"\xff\xfe\x00", "it is not text")],
)  # fmt: skip
def test_a_secrets_file_that_can_not_be_used_is_named(
    content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    found = problem({"DATABASE_URL": "", "DATABASE_URL_FILE": str(file)})
    assert found.startswith("DATABASE_URL_FILE: ")
    assert complaint in found
    assert str(file) in found


def test_a_folder_is_no_secrets_file(tmp_path: Path) -> None:
    found = problem({"DATABASE_URL": "", "DATABASE_URL_FILE": str(tmp_path)})
    assert "Is a directory" in found


@pytest.mark.parametrize("secret", ["hvs.hunter2", "/hunter2/hunter2", "/hunter2", "hunter2/a"])
def test_a_secret_put_where_its_file_belongs_is_not_shown(secret: str) -> None:
    found = problem({"VAULT_TOKEN": "", "VAULT_TOKEN_FILE": secret}, VAULT)
    assert found == "VAULT_TOKEN_FILE: can't read the file: No such file or directory"


# ---- what is refused


@pytest.mark.parametrize("name", REQUIRED)
def test_what_is_missing_is_named_with_a_hint(name: str) -> None:
    found = problem({name: ""})
    assert found.startswith(f"{name} is missing: ")
    assert len(found) > len(f"{name} is missing: ") + 10


def test_an_empty_environment_is_told_all_that_is_missing_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({})
    assert sorted(line.split(" ")[0] for line in raised.value.problems) == REQUIRED


def test_everything_wrong_is_told_at_once() -> None:
    wrong = {
        "GOOGLE_REDIRECT_URI": "http://app.example.com",
        "GOOGLE_SCOPES": 'bad"scope',
        "GOOGLE_DISCOVERY_URL": "http://accounts.example.com",
        "DATABASE_URL": "mysql://db",
        "SECRET_KEY": "short",
        "VAULT_ADDR": "vault:8200",
        "VAULT_AUTH": "magic",
        "BROKER_ACCESS_TOKENS": "plain",
        "BROKER_CALLERS_FILE": "",
        "BROKER_KEY_SOURCE": "magic",
        "BROKER_LOG_LEVEL": "LOUD",
        "BROKER_PUBLIC_LISTEN": "8000",
        "BROKER_INTERNAL_LISTEN": "http://127.0.0.1:8001",
        "BROKER_OPS_LISTEN": "127.0.0.1:99999",
    }
    found = problems(wrong, VAULT)
    assert {line.split(" ")[0].split(":")[0] for line in found} == set(wrong)


@pytest.mark.parametrize(
    "text",
    ["8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:8000",
     "http://127.0.0.1:8000", "127.0.0.1:8000/", "127.0.0.1:\u0663", "a b:1", "[zz]:1"],
)  # fmt: skip
def test_what_is_no_address_to_listen_at_is_refused(text: str) -> None:
    assert "must be host:port" in problem({"BROKER_OPS_LISTEN": text})


@pytest.mark.parametrize(
    ("one", "other"),
    [("PUBLIC", "INTERNAL"), ("PUBLIC", "OPS"), ("INTERNAL", "OPS")],
)
def test_two_listeners_at_one_address_are_refused(one: str, other: str) -> None:
    names = [f"BROKER_{one}_LISTEN", f"BROKER_{other}_LISTEN"]
    found = problem(dict.fromkeys(names, "127.0.0.1:9000"))
    assert all(name in found for name in names)


def test_port_0_may_be_asked_for_more_than_once() -> None:
    names = ("BROKER_PUBLIC_LISTEN", "BROKER_INTERNAL_LISTEN", "BROKER_OPS_LISTEN")
    assert load(dict.fromkeys(names, "127.0.0.1:0"))


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        (f"http://app.example.com{CALLBACK}", "must be https"),
        (f"ftp://app.example.com{CALLBACK}", "must be https"),
        (f"//app.example.com{CALLBACK}", "must be https"),
        (f"https://{CALLBACK}", "must be https"),
        (f"https://[::1{CALLBACK}", "must be https"),
        (f"https://app.example.com:99999{CALLBACK}", "must be https"),
        ("https://app.example.com/callback", f"the path {CALLBACK}"),
        (f"https://app.example.com{CALLBACK}/", f"the path {CALLBACK}"),
        (f"https://app.example.com{CALLBACK}?a=b", "no query"),
        (f"https://app.example.com{CALLBACK}#a", "fragment"),
        (f"https://me:pw@app.example.com{CALLBACK}", "user name"),
    ],
)
def test_a_redirect_uri_that_can_not_work_is_refused(uri: str, complaint: str) -> None:
    found = problem({"GOOGLE_REDIRECT_URI": uri})
    assert found.startswith("GOOGLE_REDIRECT_URI must ")
    assert complaint in found


def test_of_several_redirect_uris_the_wrong_one_is_told() -> None:
    good = GOOD["GOOGLE_REDIRECT_URI"]
    found = problem({"GOOGLE_REDIRECT_URI": f"{good},http://app.example.com{CALLBACK}"})
    assert found.startswith("GOOGLE_REDIRECT_URI, number 2 must be https")


def test_a_redirect_uri_named_twice_is_refused() -> None:
    good = GOOD["GOOGLE_REDIRECT_URI"]
    assert problem({"GOOGLE_REDIRECT_URI": f"{good},{good}"}).endswith("one address twice")


LOOPBACK = ["localhost", "broker.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "localhost:8080"]
ELSEWHERE = ["example.com", "10.0.0.1", "0.0.0.0", "[::]", "localhost.example.com", "128.0.0.1",
             "127.0.0.1.example.com", "notlocalhost", "127.0.0.1@example.com"]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_plain_http_is_fine_on_this_machine(host: str) -> None:
    changes = {
        "GOOGLE_REDIRECT_URI": f"http://{host}{CALLBACK}",
        "GOOGLE_DISCOVERY_URL": f"http://{host}/.well-known/openid-configuration",
        "VAULT_ADDR": f"http://{host}",
    }
    assert load(changes, VAULT)


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize("name", ["GOOGLE_REDIRECT_URI", "GOOGLE_DISCOVERY_URL", "VAULT_ADDR"])
def test_plain_http_is_refused_to_any_other(name: str, host: str) -> None:
    found = problem({name: f"http://{host}{CALLBACK}"}, VAULT)
    assert found.startswith(name)
    assert "https" in found


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "https://", "https:///path", "https://[::1", "https://a:b", "HTTP://a"],
)
def test_what_is_no_address_is_not_secure(url: str) -> None:
    assert not is_secure_url(url)


@pytest.mark.parametrize("host", [None, "", "::ffff:127.0.0.1.example.com", "2130706433", "127.1"])
def test_what_is_not_surely_this_machine_is_not_loopback(host: str | None) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize("addresses", ["vault:8200", "https://one,two", "https://[::1", "https://"])
def test_a_vault_address_that_can_not_work_is_refused(addresses: str) -> None:
    assert "VAULT_ADDR must be one or more https" in problem({"VAULT_ADDR": addresses}, VAULT)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:p@h:x/db", "postgresql://u:pa/ss@h/db", "postgresql://u:pa#ss@h/db",
     "postgresql://u:pa?ss@h/db", "postgresql://u:p@[::1/db", "postgresql://a:1,b:c/db",
     "postgresql://u:p]w@a:1,[::1]:2/db", "postgresql://[u:pw@a:1,[::1]:2/db"],
)  # fmt: skip
def test_a_database_address_that_no_driver_can_read_is_refused(url: str) -> None:
    assert problem({"DATABASE_URL": url}).startswith("DATABASE_URL can't be read as an address")


@pytest.mark.parametrize(
    "url",
    ["postgresql://db/broker", "postgres://u:p%2Fw@db:5432/broker", "postgresql:///broker",
     "postgresql://a:5432,b:5433/broker?target_session_attrs=primary", "postgresql://[::1]:1/b",
     "postgresql://u@/broker?host=/run/postgresql"],
)  # fmt: skip
def test_any_address_that_a_driver_can_read_is_taken(url: str) -> None:
    assert load({"DATABASE_URL": url}).database_url == Secret(url)


@pytest.mark.parametrize("url", ["mysql://db/broker", "db/broker", "POSTGRESQL//db"])
def test_another_database_is_refused(url: str) -> None:
    assert problem({"DATABASE_URL": url}) == "DATABASE_URL must begin with postgresql://"


def test_only_the_database_is_asked_of_commands_that_need_nothing_else() -> None:
    assert load_database_url({"DATABASE_URL": "postgresql://db/broker"})
    with pytest.raises(SettingsError, match=r"^DATABASE_URL is missing"):
        load_database_url({})


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("x" * 31, "SECRET_KEY: key 1 of 1 is shorter than 32 bytes"),
        (f"{KEY},{'x' * 31}", "SECRET_KEY: key 2 of 2 is shorter than 32 bytes"),
        (",,", "SECRET_KEY holds no key"),
    ],
)
def test_a_key_that_is_too_short_is_refused(keys: str, complaint: str) -> None:
    assert problem({"SECRET_KEY": keys}) == complaint


def test_a_keys_length_is_counted_in_bytes() -> None:
    assert load({"SECRET_KEY": "\u00e9" * 16})


def test_a_value_that_is_not_text_is_refused() -> None:
    assert "SECRET_KEY is not UTF-8 text" in problems({"SECRET_KEY": "x" * 40 + "\udcff"})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"BROKER_SECRET_SOURCE": "aws"}, "BROKER_SECRET_SOURCE=aws is not in this release"),
        ({"BROKER_SECRET_SOURCE": "hunter2"}, "BROKER_SECRET_SOURCE must be one of env, file, "),
        ({"VAULT_AUTH": "kubernetes"}, "VAULT_ROLE is missing: the role to log in as at auth/kube"),
        ({"VAULT_AUTH": "jwt"}, "VAULT_ROLE is missing: the role to log in as at auth/jwt"),
        ({"VAULT_AUTH": "hunter2"}, "VAULT_AUTH must be one of token, approle, kubernetes, jwt"),
        ({"BROKER_KEY_SOURCE": "vault-transit"}, "BROKER_KEY_SOURCE=vault-transit is not in this"),
        ({"BROKER_KEY_SOURCE": "hunter2"}, "BROKER_KEY_SOURCE must be local"),
        ({"BROKER_ACCESS_TOKENS": "hunter2"}, "BROKER_ACCESS_TOKENS must be sealed or memory"),
        ({"BROKER_LOG_LEVEL": "hunter2"}, "BROKER_LOG_LEVEL must be one of DEBUG"),
        ({"GOOGLE_SCOPES": "openid,hunter2"}, "GOOGLE_SCOPES has a comma: separate scopes with sp"),
        ({"GOOGLE_SCOPES": "openid, hunter2"}, "GOOGLE_SCOPES has a comma: separate scopes with "),
        ({"GOOGLE_SCOPES": 'hunter2"'}, "GOOGLE_SCOPES has a name with a character that no"),
    ],
)
def test_what_is_not_supported_is_refused_in_clear_words(
    changes: Mapping[str, str], complaint: str
) -> None:
    found = problem(changes, VAULT)
    assert found.startswith(complaint)
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("source", "name"),
    [("vault", "VAULT_ADDR"), ("vault", "VAULT_TOKEN"), ("file", "GOOGLE_CREDENTIALS_FILE")],
)
def test_what_a_source_needs_is_asked_for(source: str, name: str) -> None:
    changes = {"BROKER_SECRET_SOURCE": source, "GOOGLE_CREDENTIALS_FILE": "/c.json", name: ""}
    assert problem(changes, VAULT).startswith(f"{name} is missing: ")


def test_an_approle_needs_both_ids() -> None:
    names = [line.split(" ")[0] for line in problems({"VAULT_AUTH": "approle"}, VAULT)]
    assert names == ["VAULT_ROLE_ID", "VAULT_SECRET_ID"]


def test_without_a_replica_there_is_none() -> None:
    assert load().database_replica_url is None


def test_a_replica_is_an_address_as_the_primary_is() -> None:
    loaded = load({"DATABASE_REPLICA_URL": "postgresql://u:hunter2@replica/broker"})
    assert loaded.database_replica_url == Secret("postgresql://u:hunter2@replica/broker")
    assert problem({"DATABASE_REPLICA_URL": "mysql://replica"}) == (
        "DATABASE_REPLICA_URL must begin with postgresql://"
    )


@pytest.mark.parametrize(
    ("name", "value", "source"),
    [("GOOGLE_CREDENTIALS_FILE", "/c.json", "file"), ("VAULT_ADDR", "https://v:8200", "vault")],
)
def test_a_source_that_is_described_but_not_chosen_is_pointed_out(
    name: str, value: str, source: str
) -> None:
    first, _ = problems({"GOOGLE_CLIENT_ID": "", "GOOGLE_CLIENT_SECRET": "", name: value})
    assert first.startswith("GOOGLE_CLIENT_ID is missing: ")
    assert f", or set BROKER_SECRET_SOURCE={source} for {name}" in first


def test_no_other_source_is_suggested_to_who_has_chosen() -> None:
    changes = {"BROKER_SECRET_SOURCE": "env", "VAULT_ADDR": "https://v:8200"}
    assert "BROKER_SECRET_SOURCE" not in problem({"GOOGLE_CLIENT_ID": "", **changes})


# ---- names that are no setting's


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BROKER_ACCESS_TOKEN", "BROKER_ACCESS_TOKENS"),
        ("BROKER_LOGLEVEL", "BROKER_LOG_LEVEL"),
        ("BROKER_log_level", "BROKER_LOG_LEVEL"),
        ("GOOGLE_DISCOVERY_URI", "GOOGLE_DISCOVERY_URL"),
        ("GOOGLE_CLIENT_SECRET_FIEL", "GOOGLE_CLIENT_SECRET_FILE"),
        ("VAULT_KV_PAHT", "VAULT_KV_PATH"),
    ],
)
def test_a_misspelt_setting_is_pointed_out_with_what_may_be_meant(name: str, meant: str) -> None:
    assert load({name: "hunter2"}).warnings == (
        f"{name} is not a setting of this release, so it has no effect; did you mean {meant}?",
    )


def test_a_name_like_no_setting_is_pointed_out_alone() -> None:
    assert load({"BROKER_HUNTER": "hunter2"}).warnings == (
        "BROKER_HUNTER is not a setting of this release, so it has no effect",
    )


@pytest.mark.parametrize(
    "name",
    ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "VAULT_CACERT", "VAULT_SKIP_VERIFY",
     "VAULT_CLIENT_TIMEOUT", "VAULT_TOKEN_FILE", "AWS_REGION", "BROKER", "PATH"],
)  # fmt: skip
def test_what_other_programs_read_is_left_alone(name: str) -> None:
    assert load({name: "hunter2"}).warnings == ()


def test_what_kubernetes_sets_for_a_service_is_left_alone() -> None:
    link = {
        "BROKER_PUBLIC_SERVICE_HOST": "10.0.0.1",
        "BROKER_PUBLIC_SERVICE_PORT": "80",
        "BROKER_PUBLIC_SERVICE_PORT_HTTP": "80",
        "BROKER_PUBLIC_PORT": "tcp://10.0.0.1:80",
        "BROKER_PUBLIC_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(link).warnings == ()
    assert len(load({"BROKER_PUBLIC_PORT": "80"}).warnings) == 1


def test_a_misspelt_setting_that_is_empty_is_not_set() -> None:
    assert load({"BROKER_LOGLEVEL": " "}).warnings == ()


# ---- never a secret shown

PLANTED = "hunter2"
EVERY_NAME = [
    *GOOD, "GOOGLE_CREDENTIALS_FILE", "GOOGLE_DISCOVERY_URL", "DATABASE_REPLICA_URL",
    "BROKER_SECRET_SOURCE", "VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_AUTH", "VAULT_TOKEN",
    "VAULT_ROLE_ID", "VAULT_SECRET_ID", "VAULT_ROLE", "VAULT_KV_MOUNT", "VAULT_KV_PATH",
    "VAULT_TRANSIT_KEY", "AWS_SECRET_ID", "AWS_REGION", "AWS_ENDPOINT_URL", "BROKER_KEY_SOURCE",
    "BROKER_ACCESS_TOKENS", "BROKER_LOG_LEVEL", "BROKER_PUBLIC_LISTEN", "BROKER_INTERNAL_LISTEN",
    "BROKER_OPS_LISTEN", *(f"{name}_FILE" for name in sorted(SECRET_NAMES)),
]  # fmt: skip
SHAPES = [
    PLANTED,
    PLANTED * 10,
    f"{PLANTED}:8000",
    f"{PLANTED}:99999",
    f"/{PLANTED}",
    f"/{PLANTED}/{PLANTED}",
    f"http://{PLANTED}.example.com/{PLANTED}",
    f"https://{PLANTED}:{PLANTED}@example.com:{PLANTED}/{PLANTED}?{PLANTED}",
    f"https://{PLANTED}.example.com{CALLBACK}?{PLANTED}#{PLANTED}",
    f"https://[{PLANTED}",
    f"postgresql://{PLANTED}:{PLANTED}@{PLANTED}:{PLANTED}/{PLANTED}?{PLANTED}",
    f"{PLANTED},{PLANTED}",
    f'{PLANTED} "{PLANTED}"',
    f"{PLANTED}\udcff",
    f"{PLANTED}\0",
    PLANTED * 1000,
]
VALUES: Any = st.dictionaries(
    st.sampled_from(EVERY_NAME), st.sampled_from(SHAPES) | st.just(""), max_size=len(EVERY_NAME)
)
SOURCES: Any = st.fixed_dictionaries(
    {
        "BROKER_SECRET_SOURCE": st.sampled_from(["env", "file", "vault", "aws", PLANTED]),
        "VAULT_AUTH": st.sampled_from(["token", "approle", "jwt", PLANTED]),
    }
)


@settings(max_examples=300)
@given(planted=VALUES, source=SOURCES)
def test_no_problem_shows_what_was_set(planted: dict[str, str], source: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({**GOOD, **planted, **source, "BROKER_KEY_SOURCE": "nowhere"})
    assert PLANTED not in str(raised.value).lower()


@pytest.mark.parametrize("shape", SHAPES)
def test_each_setting_alone_is_kept_out_of_the_problems(shape: str) -> None:
    for name in EVERY_NAME:
        broken = dict.fromkeys((*GOOD, "BROKER_LOG_LEVEL"), "")
        with pytest.raises(SettingsError) as raised:
            load_settings({**broken, name: shape, "BROKER_OPS_LISTEN": "nowhere"})
        assert PLANTED not in str(raised.value).lower(), name


def test_the_settings_show_no_secret() -> None:
    shown = repr(load()) + repr(load({"VAULT_TOKEN": PLANTED}, VAULT))
    for value in ("the-client-secret", "pass@db", KEY, PLANTED):
        assert value not in shown


# Webhooks.

WEBHOOK_SECRET = "whsec_" + "bWFkZSB1cCBmb3IgdGVzdHMsIDMyIGJ5dGVzIGxvbmc="
WEBHOOKS: Mapping[str, str] = {
    **GOOD,
    "BROKER_WEBHOOK_URL": "https://app.example.com/hooks",
    "BROKER_WEBHOOK_SECRET": WEBHOOK_SECRET,
}


def test_without_a_receiver_there_are_no_webhooks() -> None:
    assert load().webhooks is None


def test_a_receiver_may_have_several_secrets() -> None:
    receiver = load({"BROKER_WEBHOOK_SECRET": f"{WEBHOOK_SECRET}, {WEBHOOK_SECRET}"}, WEBHOOKS)
    assert receiver.webhooks is not None
    assert receiver.webhooks.url == "https://app.example.com/hooks"
    assert [secret.reveal() for secret in receiver.webhooks.secrets] == [WEBHOOK_SECRET] * 2


def test_a_webhook_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(WEBHOOK_SECRET + "\n")
    changes = {
        "BROKER_WEBHOOK_SECRET": "",
        "BROKER_WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
    }
    assert load(changes, WEBHOOKS) == load(WEBHOOKS)


@pytest.mark.parametrize("missing", ["BROKER_WEBHOOK_URL", "BROKER_WEBHOOK_SECRET"])
def test_webhooks_need_an_address_and_a_secret(missing: str) -> None:
    assert f"{missing} is missing" in problem({missing: ""}, WEBHOOKS)


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example.com/hooks",
        "ftp://app.example.com/hooks",
        "https://",
        "https://app.example.com:99999/hooks",
        "https://app.example.com/a b",
        "https://app.example.com/hooks#here",
        "https://user@app.example.com/hooks",
    ],
)
def test_webhooks_go_nowhere_unsafe(url: str) -> None:
    assert problem({"BROKER_WEBHOOK_URL": url}, WEBHOOKS).startswith("BROKER_WEBHOOK_URL must")


def test_webhooks_may_go_to_this_machine_in_plain_http() -> None:
    changes = {"BROKER_WEBHOOK_URL": "http://127.0.0.1:9000/hooks"}
    assert load(changes, WEBHOOKS).webhooks is not None


@pytest.mark.parametrize(
    "key",
    [
        WEBHOOK_SECRET.removeprefix("whsec_"),
        WEBHOOK_SECRET.replace("whsec_", "whsk_"),
        "whsec_c2hvcnQ=",
        "whsec_not-base64-not-base64-not-base64-not-base64!",
        "whsec_" + "A" * 88,
        "whsec_",
    ],
)
def test_a_malformed_webhook_secret_is_refused_and_not_shown(key: str) -> None:
    said = problem({"BROKER_WEBHOOK_SECRET": f"{WEBHOOK_SECRET},{key}"}, WEBHOOKS)
    assert said.startswith("BROKER_WEBHOOK_SECRET: key 2 of 2 is not whsec_")
    assert (key.removeprefix("whsec_") or "whsec_,") not in said


def test_a_database_name_that_could_be_taken_for_a_host_is_refused() -> None:
    url = "postgresql://,b//:?target_session_attrs=primary"
    assert problem({"DATABASE_URL": url}).startswith("DATABASE_URL can't be read as an address")


# ---- what libraries read by themselves


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "address",
    ["nonsense://", "socks5://127.0.0.1:1080", "http://", "http://[", "http://user:pw@host:port"],
)
def test_a_proxy_that_can_not_be_used_is_named_and_not_shown(name: str, address: str) -> None:
    assert problem({name: address}) == f"{name} must be the address of an http or https proxy"


@pytest.mark.parametrize(
    "address", ["http://user:pw@proxy.example:3128", "https://proxy.example", "proxy.example:3128"]
)
def test_a_proxy_that_can_be_used_is_no_problem(address: str) -> None:
    assert load({"HTTPS_PROXY": address}) == load()


def test_a_proxy_that_nothing_goes_through_is_no_problem() -> None:
    assert load({"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "localhost, *"}) == load()


def test_certificates_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    missing = problem({"SSL_CERT_FILE": str(file)})
    assert missing == "SSL_CERT_FILE can't be read: No such file or directory"
    file.write_text("no certificate")
    assert problem({"SSL_CERT_FILE": str(file)}) == "SSL_CERT_FILE holds no certificate in PEM"


def test_certificates_that_can_be_used_are_no_problem(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    assert load({"SSL_CERT_FILE": str(certificate)}) == load()


def test_what_is_much_larger_than_a_secret_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("k" * (64 * 1024 + 1))
    base = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    only = problem({"SECRET_KEY_FILE": str(path)}, base)
    assert only == f"SECRET_KEY_FILE: can't read {path}: it is much larger than a secret"


def test_what_is_no_regular_file_is_neither_read_nor_waited_for(tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    base = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    for path, reason in (
        (pipe, "it is not a regular file"),
        (Path("/dev/zero"), "it is not a regular file"),
        (tmp_path, "Is a directory"),
        (loop, "Too many levels of symbolic links"),
    ):
        only = problem({"SECRET_KEY_FILE": str(path)}, base)
        assert only == f"SECRET_KEY_FILE: can't read {path}: {reason}"
