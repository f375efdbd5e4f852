"""Variables that are no settings: misspelt ones, proxies, certificates."""

from pathlib import Path

import pytest

from tests.settings.environments import load, problem
from tests.support.issuer import self_signed


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
def test_a_misspelt_setting_is_reported_with_a_suggestion(name: str, meant: str) -> None:
    assert load({name: "hunter2"}).warnings == (
        f"{name} is not a setting of this release, so it has no effect; did you mean {meant}?",
    )


def test_an_unknown_setting_is_reported_without_a_suggestion() -> None:
    assert load({"BROKER_HUNTER": "hunter2"}).warnings == (
        "BROKER_HUNTER is not a setting of this release, so it has no effect",
    )


@pytest.mark.parametrize(
    "name",
    ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "VAULT_CACERT", "VAULT_SKIP_VERIFY",
     "VAULT_CLIENT_TIMEOUT", "VAULT_TOKEN_FILE", "AWS_REGION", "BROKER", "PATH"],
)  # fmt: skip
def test_variables_of_other_programs_are_ignored(name: str) -> None:
    assert load({name: "hunter2"}).warnings == ()


def test_service_links_of_kubernetes_are_ignored() -> None:
    link = {
        "BROKER_PUBLIC_SERVICE_HOST": "10.0.0.1",
        "BROKER_PUBLIC_SERVICE_PORT": "80",
        "BROKER_PUBLIC_SERVICE_PORT_HTTP": "80",
        "BROKER_PUBLIC_PORT": "tcp://10.0.0.1:80",
        "BROKER_PUBLIC_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(link).warnings == ()
    assert len(load({"BROKER_PUBLIC_PORT": "80"}).warnings) == 1


def test_an_empty_misspelt_setting_is_ignored() -> None:
    assert load({"BROKER_LOGLEVEL": " "}).warnings == ()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "address",
    ["nonsense://", "socks5://127.0.0.1:1080", "http://", "http://[", "http://user:pw@host:port"],
)
def test_an_unusable_proxy_is_named_and_not_shown(name: str, address: str) -> None:
    assert problem({name: address}) == f"{name} must be the address of an http or https proxy"


@pytest.mark.parametrize(
    "address", ["http://user:pw@proxy.example:3128", "https://proxy.example", "proxy.example:3128"]
)
def test_a_usable_proxy_is_accepted(address: str) -> None:
    assert load({"HTTPS_PROXY": address}) == load()


def test_a_proxy_that_no_request_uses_is_ignored() -> None:
    assert load({"ALL_PROXY": "socks5://127.0.0.1:1080", "NO_PROXY": "localhost, *"}) == load()


def test_unusable_certificates_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    missing = problem({"SSL_CERT_FILE": str(file)})
    assert missing == "SSL_CERT_FILE can't be read: No such file or directory"
    file.write_text("no certificate")
    assert problem({"SSL_CERT_FILE": str(file)}) == "SSL_CERT_FILE holds no certificate in PEM"


def test_usable_certificates_are_accepted(tmp_path: Path) -> None:
    certificate, _ = self_signed(tmp_path)
    assert load({"SSL_CERT_FILE": str(certificate)}) == load()
