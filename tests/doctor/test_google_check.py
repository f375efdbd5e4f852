"""Google's discovery document and its endpoints."""

import pytest

from devstack.google_standin import Fault, GoogleStandin
from tests.doctor.command import diagnose


def test_an_unreachable_google_is_reported(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "GOOGLE_DISCOVERY_URL": "http://127.0.0.1:9/"})
    assert diagnosis.faulty == {"google"}
    assert "firewall" in diagnosis.words("google")


@pytest.mark.parametrize(
    "fault", [Fault.http(404), Fault.not_json(), Fault.http(200, "<html>", {})]
)
def test_a_server_that_is_not_a_provider_is_reported(
    env: dict[str, str], standin: GoogleStandin, fault: Fault
) -> None:
    standin.faults.next("discovery", fault)
    diagnosis = diagnose(env)
    assert diagnosis.faulty == {"google"}
    assert "GOOGLE_DISCOVERY_URL" in diagnosis.words("google")


def test_an_endpoint_without_https_is_named(env: dict[str, str], standin: GoogleStandin) -> None:
    standin.faults.next("discovery", Fault.replacing(token_endpoint="http://google.example/token"))
    diagnosis = diagnose(env)
    assert diagnosis.verdicts("google") == ["fail"]
    assert "token_endpoint" in diagnosis.words("google")


def test_a_missing_endpoint_is_named(env: dict[str, str], standin: GoogleStandin) -> None:
    standin.faults.next("discovery", Fault.without("jwks_uri"))
    diagnosis = diagnose(env)
    assert diagnosis.verdicts("google") == ["fail"]
    assert "jwks_uri is missing" in diagnosis.words("google")


def test_an_issuer_on_another_host_is_a_warning(
    env: dict[str, str], standin: GoogleStandin
) -> None:
    standin.faults.next("discovery", Fault.replacing(issuer="https://issuer.example"))
    diagnosis = diagnose(env)
    assert diagnosis.exit_code == 0
    assert diagnosis.verdicts("google") == ["warn", "ok"]
