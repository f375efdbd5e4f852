"""Parsers of settings: what they accept, and how they reject the rest."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from broker.secret import Secret
from broker.settings import Listen
from tests.settings.environments import (
    CALLBACK,
    GOOD,
    KEY,
    VAULT,
    WEBHOOK_SECRET,
    WEBHOOKS,
    load,
    problem,
    problems,
)

LOOPBACK = ["localhost", "broker.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "localhost:8080"]
ELSEWHERE = ["example.com", "10.0.0.1", "0.0.0.0", "[::]", "localhost.example.com", "128.0.0.1",
             "127.0.0.1.example.com", "notlocalhost", "127.0.0.1@example.com"]  # fmt: skip


def test_redirect_uris_keep_their_order() -> None:
    uris = [f"https://app.example.com{CALLBACK}", f"https://api.example.com{CALLBACK}"]
    assert load({"GOOGLE_REDIRECT_URI": " , ".join(uris)}).redirect_uris == tuple(uris)


def test_secret_keys_keep_their_order() -> None:
    found = load({"SECRET_KEY": f" {'n' * 32} , {'o' * 32},"})
    assert found.secret_keys == (Secret("n" * 32), Secret("o" * 32))


def test_identity_scopes_are_added_and_duplicates_are_removed() -> None:
    assert load({"GOOGLE_SCOPES": "a email  b a"}).scopes == ("openid", "email", "a", "b")


@pytest.mark.parametrize("level", ["DEBUG", "info", "Warning", "ERROR"])
def test_a_log_level_may_have_any_case(level: str) -> None:
    assert load({"BROKER_LOG_LEVEL": level}).log_level == level.upper()


def test_trusted_proxies_are_addresses_and_networks() -> None:
    given = load({"BROKER_TRUSTED_PROXIES": "10.0.0.0/8, 192.0.2.7,2001:db8::/32"}).trusted_proxies
    assert list(map(str, given)) == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
    assert load().trusted_proxies == ()


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.1/8", "*"])
def test_a_malformed_trusted_proxy_is_rejected(text: str) -> None:
    (problem,) = problems({"BROKER_TRUSTED_PROXIES": text})
    assert "BROKER_TRUSTED_PROXIES must be addresses" in problem


@pytest.mark.parametrize(
    ("text", "days"), [("", 400), ("1", 1), ("36500", 36_500), ("0", None), ("000", None)]
)
def test_audit_retention_is_a_number_of_days(text: str, days: int | None) -> None:
    kept = load({"BROKER_AUDIT_RETENTION_DAYS": text}).audit_retention
    assert kept == (timedelta(days=days) if days else None)


@pytest.mark.parametrize("text", ["-1", "1.5", "36501", "1e3", "400d", "99999999", "٤٠٠"])
def test_a_malformed_audit_retention_is_rejected(text: str) -> None:
    (problem,) = problems({"BROKER_AUDIT_RETENTION_DAYS": text})
    assert problem.startswith("BROKER_AUDIT_RETENTION_DAYS must be a number of days up to 36500")


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("2", 2), ("86400", 86_400)])
def test_the_stale_limit_is_a_number_of_seconds(text: str, seconds: int | None) -> None:
    at_most = load({"BROKER_STALE_TOKENS_AT_MOST": text}).stale_tokens_at_most
    assert at_most == (timedelta(seconds=seconds) if seconds else None)


@pytest.mark.parametrize("text", ["0", "1", "-5", "2.5", "60s", "86401", "1e3", "٦٠"])
def test_a_malformed_stale_limit_is_rejected(text: str) -> None:
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
def test_a_listen_address_is_host_and_port(text: str, listen: Listen) -> None:
    assert load({"BROKER_PUBLIC_LISTEN": text}).public_listen == listen
    assert str(listen) == text


@pytest.mark.parametrize(
    "text",
    ["8000", ":8000", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "::1:8000",
     "http://127.0.0.1:8000", "127.0.0.1:8000/", "127.0.0.1:\u0663", "a b:1", "[zz]:1"],
)  # fmt: skip
def test_a_malformed_listen_address_is_rejected(text: str) -> None:
    assert "must be host:port" in problem({"BROKER_OPS_LISTEN": text})


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
def test_a_malformed_redirect_uri_is_rejected(uri: str, complaint: str) -> None:
    found = problem({"GOOGLE_REDIRECT_URI": uri})
    assert found.startswith("GOOGLE_REDIRECT_URI must ")
    assert complaint in found


def test_the_malformed_one_of_several_redirect_uris_is_named() -> None:
    good = GOOD["GOOGLE_REDIRECT_URI"]
    found = problem({"GOOGLE_REDIRECT_URI": f"{good},http://app.example.com{CALLBACK}"})
    assert found.startswith("GOOGLE_REDIRECT_URI, number 2 must be https")


def test_a_duplicate_redirect_uri_is_rejected() -> None:
    good = GOOD["GOOGLE_REDIRECT_URI"]
    assert problem({"GOOGLE_REDIRECT_URI": f"{good},{good}"}).endswith("one address twice")


@pytest.mark.parametrize("host", LOOPBACK)
def test_plain_http_is_accepted_on_loopback(host: str) -> None:
    changes = {
        "GOOGLE_REDIRECT_URI": f"http://{host}{CALLBACK}",
        "GOOGLE_DISCOVERY_URL": f"http://{host}/.well-known/openid-configuration",
        "VAULT_ADDR": f"http://{host}",
    }
    assert load(changes, VAULT)


@pytest.mark.parametrize("host", ELSEWHERE)
@pytest.mark.parametrize("name", ["GOOGLE_REDIRECT_URI", "GOOGLE_DISCOVERY_URL", "VAULT_ADDR"])
def test_plain_http_is_rejected_on_other_hosts(name: str, host: str) -> None:
    found = problem({name: f"http://{host}{CALLBACK}"}, VAULT)
    assert found.startswith(name)
    assert "https" in found


@pytest.mark.parametrize("addresses", ["vault:8200", "https://one,two", "https://[::1", "https://"])
def test_a_malformed_vault_address_is_rejected(addresses: str) -> None:
    assert "VAULT_ADDR must be one or more https" in problem({"VAULT_ADDR": addresses}, VAULT)


@pytest.mark.parametrize(
    "url",
    ["postgresql://u:p@h:x/db", "postgresql://u:pa/ss@h/db", "postgresql://u:pa#ss@h/db",
     "postgresql://u:pa?ss@h/db", "postgresql://u:p@[::1/db", "postgresql://a:1,b:c/db",
     "postgresql://u:p]w@a:1,[::1]:2/db", "postgresql://[u:pw@a:1,[::1]:2/db"],
)  # fmt: skip
def test_a_database_url_that_no_driver_can_read_is_rejected(url: str) -> None:
    assert problem({"DATABASE_URL": url}).startswith("DATABASE_URL can't be read as an address")


@pytest.mark.parametrize(
    "url",
    ["postgresql://db/broker", "postgres://u:p%2Fw@db:5432/broker", "postgresql:///broker",
     "postgresql://a:5432,b:5433/broker?target_session_attrs=primary", "postgresql://[::1]:1/b",
     "postgresql://u@/broker?host=/run/postgresql"],
)  # fmt: skip
def test_every_database_url_that_a_driver_can_read_is_accepted(url: str) -> None:
    assert load({"DATABASE_URL": url}).database_url == Secret(url)


@pytest.mark.parametrize("url", ["mysql://db/broker", "db/broker", "POSTGRESQL//db"])
def test_another_database_is_rejected(url: str) -> None:
    assert problem({"DATABASE_URL": url}) == "DATABASE_URL must begin with postgresql://"


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("x" * 31, "SECRET_KEY: key 1 of 1 is shorter than 32 bytes"),
        (f"{KEY},{'x' * 31}", "SECRET_KEY: key 2 of 2 is shorter than 32 bytes"),
        (",,", "SECRET_KEY holds no key"),
    ],
)
def test_a_short_secret_key_is_rejected(keys: str, complaint: str) -> None:
    assert problem({"SECRET_KEY": keys}) == complaint


def test_the_length_of_a_secret_key_is_in_bytes() -> None:
    assert load({"SECRET_KEY": "\u00e9" * 16})


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
def test_an_unsupported_choice_is_rejected_without_showing_it(
    changes: Mapping[str, str], complaint: str
) -> None:
    found = problem(changes, VAULT)
    assert found.startswith(complaint)
    assert "hunter2" not in found


def test_a_read_replica_is_checked_like_the_primary() -> None:
    loaded = load({"DATABASE_REPLICA_URL": "postgresql://u:hunter2@replica/broker"})
    assert loaded.database_replica_url == Secret("postgresql://u:hunter2@replica/broker")
    assert problem({"DATABASE_REPLICA_URL": "mysql://replica"}) == (
        "DATABASE_REPLICA_URL must begin with postgresql://"
    )


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
def test_an_unsafe_webhook_address_is_rejected(url: str) -> None:
    assert problem({"BROKER_WEBHOOK_URL": url}, WEBHOOKS).startswith("BROKER_WEBHOOK_URL must")


def test_webhooks_may_use_plain_http_on_loopback() -> None:
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
def test_a_malformed_webhook_secret_is_rejected_and_not_shown(key: str) -> None:
    said = problem({"BROKER_WEBHOOK_SECRET": f"{WEBHOOK_SECRET},{key}"}, WEBHOOKS)
    assert said.startswith("BROKER_WEBHOOK_SECRET: key 2 of 2 is not whsec_")
    assert (key.removeprefix("whsec_") or "whsec_,") not in said


def test_a_database_name_that_looks_like_a_host_is_rejected() -> None:
    url = "postgresql://,b//:?target_session_attrs=primary"
    assert problem({"DATABASE_URL": url}).startswith("DATABASE_URL can't be read as an address")
