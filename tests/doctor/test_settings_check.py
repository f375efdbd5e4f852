"""Warnings about settings, and redirect URIs."""

from dataclasses import replace

import pytest

from broker.doctor.findings import Verdict
from broker.doctor.settings_check import check_redirects, check_settings
from broker.settings import Listen, SettingProblem
from tests.doctor.command import diagnose
from tests.settings.environments import load

CALLBACK = "/auth/google/callback"


def test_each_problem_is_a_failure_with_a_remedy() -> None:
    problems = [SettingProblem("A", "A is missing"), SettingProblem("B", "B must be 7")]
    findings = check_settings(load(), problems)
    assert [(each.verdict, each.what) for each in findings[:2]] == [
        (Verdict.FAILED, "A is missing"),
        (Verdict.FAILED, "B must be 7"),
    ]
    assert all(each.remedy for each in findings)


@pytest.mark.parametrize(
    ("uri", "verdict", "words"),
    [
        (f"http://127.0.0.1:8000{CALLBACK}", Verdict.OK, "register exactly this URI"),
        (f"https://app.example.com{CALLBACK}", Verdict.OK, "forward it from your proxy to"),
        (f"http://localhost{CALLBACK}", Verdict.WARNING, "not at port 80"),
        (f"http://127.0.0.1:9000{CALLBACK}", Verdict.WARNING, "not at port 9000"),
        ("https://app.example.com/x", Verdict.FAILED, "the public listener serves nothing at /x"),
        ("https://app.example.com", Verdict.FAILED, "the public listener serves nothing at /"),
    ],
)
def test_a_redirect_uri_must_lead_to_the_public_listener(
    uri: str, verdict: Verdict, words: str
) -> None:
    settings = replace(load(), redirect_uris=(uri,), public_listen=Listen("127.0.0.1", 8000))
    (finding,) = check_redirects(settings)
    assert finding.verdict is verdict
    assert words in finding.what


def test_a_remote_database_without_verified_tls_is_a_warning(env: dict[str, str]) -> None:
    env["DATABASE_REPLICA_URL"] = "postgresql://broker:hunter2@db.invalid/broker"
    diagnosis = diagnose(env)
    assert (diagnosis.exit_code, diagnosis.verdicts("settings")) == (0, ["warn", "ok"])
    assert "DATABASE_REPLICA_URL connects over a network" in diagnosis.words("settings")
    assert "sslmode=verify-full" in diagnosis.words("settings")
    assert "hunter2" not in str(diagnosis.findings)


def test_a_misspelt_setting_is_a_warning(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "BROKER_LOGLEVEL": "hunter2"})
    assert diagnosis.exit_code == 0
    assert diagnosis.verdicts("settings") == ["warn", "ok"]
    assert "BROKER_LOGLEVEL is not a setting" in diagnosis.words("settings")
    assert "hunter2" not in diagnosis.words("settings")


def test_every_redirect_uri_must_be_registered(env: dict[str, str]) -> None:
    uris = "https://app.example.com/auth/google/callback"
    diagnosis = diagnose({**env, "GOOGLE_REDIRECT_URI": f"{uris},{uris.replace('app.', 'api.')}"})
    assert diagnosis.verdicts("redirect URI") == ["ok", "ok"]
    assert "register exactly this URI at Google" in diagnosis.words("redirect URI")
    assert "forward it from your proxy to 127.0.0.1:8000" in diagnosis.words("redirect URI")


def test_a_redirect_uri_with_another_port_is_a_warning(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "BROKER_PUBLIC_LISTEN": "127.0.0.1:8005"})
    assert diagnosis.exit_code == 0
    assert diagnosis.verdicts("redirect URI") == ["warn"]
