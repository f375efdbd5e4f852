"""Reading variables: files of secrets, missing values, all problems in one error."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.secret import Secret
from broker.settings import (
    SECRET_NAMES,
    EnvironmentSource,
    SettingsError,
    UnreadableSecretError,
    examine_settings,
    load_database_url,
    load_settings,
)
from tests.settings.environments import (
    GOOD,
    REQUIRED,
    VAULT,
    WEBHOOK_SECRET,
    WEBHOOKS,
    load,
    problem,
    problems,
)


def test_an_empty_variable_counts_as_not_set() -> None:
    names = ("BROKER_PUBLIC_LISTEN", "BROKER_LOG_LEVEL", "GOOGLE_DISCOVERY_URL", "VAULT_ADDR")
    assert load(dict.fromkeys(names, " ")) == load()


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


def test_white_space_around_a_secret_in_a_file_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("\n postgresql://broker@db/broker \r\n\n")
    found = load_database_url({"DATABASE_URL_FILE": str(file)})
    assert found == Secret("postgresql://broker@db/broker")


def test_a_secret_in_a_file_is_read_at_each_use(tmp_path: Path) -> None:
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
def test_value_and_file_together_are_rejected(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(GOOD[name])
    assert problem({f"{name}_FILE": str(file)}) == f"{name} and {name}_FILE are both set; keep one"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file or directory"), (b"", "is empty"), (b" \n", "is empty"),
     (b"\xff\xfe\x00", "it is not text")],
)  # fmt: skip
def test_an_unusable_secret_file_is_named(
    content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    found = problem({"DATABASE_URL": "", "DATABASE_URL_FILE": str(file)})
    assert found.startswith("DATABASE_URL_FILE: ")
    assert complaint in found
    assert str(file) in found


def test_a_folder_is_rejected_as_a_secret_file(tmp_path: Path) -> None:
    found = problem({"DATABASE_URL": "", "DATABASE_URL_FILE": str(tmp_path)})
    assert "Is a directory" in found


@pytest.mark.parametrize("secret", ["hvs.hunter2", "/hunter2/hunter2", "/hunter2", "hunter2/a"])
def test_a_secret_set_instead_of_its_file_is_not_shown(secret: str) -> None:
    found = problem({"VAULT_TOKEN": "", "VAULT_TOKEN_FILE": secret}, VAULT)
    assert found == "VAULT_TOKEN_FILE: can't read the file: No such file or directory"


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_setting_is_named_with_a_hint(name: str) -> None:
    found = problem({name: ""})
    assert found.startswith(f"{name} is missing: ")
    assert len(found) > len(f"{name} is missing: ") + 10


def test_an_empty_environment_has_all_missing_settings_in_one_error() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({})
    assert sorted(line.split(" ")[0] for line in str(raised.value).splitlines()) == REQUIRED


def test_all_problems_are_in_one_error() -> None:
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


def test_a_value_that_is_not_utf_8_is_rejected() -> None:
    assert "SECRET_KEY is not UTF-8 text" in problems({"SECRET_KEY": "x" * 40 + "\udcff"})


def test_a_webhook_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(WEBHOOK_SECRET + "\n")
    changes = {
        "BROKER_WEBHOOK_SECRET": "",
        "BROKER_WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
    }
    assert load(changes, WEBHOOKS) == load(WEBHOOKS)


def test_a_very_large_secret_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("k" * (64 * 1024 + 1))
    base = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    only = problem({"SECRET_KEY_FILE": str(path)}, base)
    assert only == f"SECRET_KEY_FILE: can't read {path}: it is much larger than a secret"


def _named_pipe(path: Path) -> None:
    os.mkfifo(path)


def _symbolic_loop(path: Path) -> None:
    path.symlink_to(path)


def _link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_named_pipe, "it is not a regular file"),
        (_link_to_zeros, "it is not a regular file"),
        (Path.mkdir, "Is a directory"),
        (_symbolic_loop, "Too many levels of symbolic links"),
    ],
)
def test_a_secret_file_that_is_not_regular_is_rejected_without_waiting(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "key"
    make(path)
    base = {name: value for name, value in GOOD.items() if name != "SECRET_KEY"}
    only = problem({"SECRET_KEY_FILE": str(path)}, base)
    assert only == f"SECRET_KEY_FILE: can't read {path}: {reason}"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY"),
        ({"SECRET_KEY": "", "SECRET_KEY_FILE": "/no/such/file"}, "SECRET_KEY"),
        ({"SECRET_KEY_FILE": "/no/such/file"}, "SECRET_KEY"),
        ({"SECRET_KEY": "", "SECRET_KEY_FILE": "\udcff"}, "SECRET_KEY"),
        ({"BROKER_SECRET_SOURCE": "aws"}, "BROKER_SECRET_SOURCE"),
        ({"GOOGLE_CLIENT_ID": "", "VAULT_ADDR": "https://v:8200"}, "GOOGLE_CLIENT_ID"),
        ({"BROKER_WEBHOOK_URL": "https://a.example/hooks"}, "BROKER_WEBHOOK_SECRET"),
        ({"BROKER_PUBLIC_LISTEN": "127.0.0.1:8001"}, "BROKER_PUBLIC_LISTEN"),
        ({"https_proxy": "socks5://127.0.0.1:1080"}, "https_proxy"),
    ],
)
def test_a_problem_names_its_setting(changes: dict[str, str], name: str) -> None:
    _, found = examine_settings({**GOOD, **changes})
    assert {problem.name for problem in found} == {name}


def test_a_setting_with_a_problem_is_as_if_it_was_not_set() -> None:
    wrong = {"BROKER_OPS_LISTEN": "nowhere", "BROKER_LOG_LEVEL": "LOUD", "SECRET_KEY": "short"}
    settings, found = examine_settings({**GOOD, **wrong})
    assert {problem.name for problem in found} == set(wrong)
    assert settings == replace(load(), secret_keys=())
