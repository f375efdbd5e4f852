"""`broker doctor` as a whole: all parts at the same time, each fault reported once."""

import time
from urllib.parse import urlsplit

import pytest

from tests.doctor.command import diagnose, run
from tests.support.world import CLIENT_SECRET


def test_a_good_installation_has_only_ok_findings(env: dict[str, str]) -> None:
    diagnosis = diagnose(env)
    assert diagnosis.exit_code == 0
    assert diagnosis.faulty == set()
    assert {each["part"] for each in diagnosis.findings} == {
        "settings", "database", "failover", "sealing keys", "secret source", "google",
        "redirect URI", "clock", "callers file",
    }  # fmt: skip


def test_the_text_has_a_line_per_finding_and_no_colour_without_a_terminal(
    env: dict[str, str],
) -> None:
    result = run(env)
    assert result.exit_code == 0
    assert all(line.startswith("ok    ") for line in result.stdout.splitlines())
    assert "\x1b" not in result.stdout


def test_a_failure_has_its_remedy_in_the_next_line(env: dict[str, str]) -> None:
    lines = run({**env, "GOOGLE_SCOPES": ""}).stdout.splitlines()
    assert lines[0].startswith("FAIL  settings: GOOGLE_SCOPES is missing")
    assert lines[1].startswith("      → ")


def test_no_secret_is_shown(env: dict[str, str], database_url: str) -> None:
    password = urlsplit(database_url).password
    assert password
    broken = {
        **env,
        "DATABASE_URL": database_url.replace(password, password[::-1]),
        "GOOGLE_DISCOVERY_URL": "http://127.0.0.1:9/planted-path",
    }
    shown = run(env).output + run(broken).output + run(broken, "--json").output
    for secret in (CLIENT_SECRET, env["SECRET_KEY"], password, password[::-1]):
        assert secret not in shown


def test_all_wrong_settings_are_reported_together(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "GOOGLE_SCOPES": "", "SECRET_KEY": "short", "DATABASE_URL": ""})
    assert diagnosis.exit_code == 1
    assert diagnosis.verdicts("settings") == ["fail"] * 3


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        ({"DATABASE_URL": ""}, {"database", "sealing keys"}),
        ({"SECRET_KEY": "short"}, {"sealing keys"}),
        ({"GOOGLE_CLIENT_SECRET": ""}, {"secret source"}),
        ({"BROKER_SECRET_SOURCE": "vault", "VAULT_AUTH": "magic"}, {"secret source"}),
        ({"BROKER_SECRET_SOURCE": "vault", "VAULT_AUTH": "jwt"}, {"secret source"}),
        ({"BROKER_SECRET_SOURCE": "aws"}, {"secret source"}),
        ({"GOOGLE_DISCOVERY_URL": "http://google.example"}, {"google"}),
        ({"BROKER_WEBHOOK_URL": "https://app.example.com/hooks"}, set()),
        ({"BROKER_WEBHOOK_SECRET": "whsec_short"}, set()),
        ({"GOOGLE_REDIRECT_URI": "http://app.example.com/x"}, {"redirect URI"}),
        ({"BROKER_CALLERS_FILE": ""}, {"callers file"}),
        ({"BROKER_LOG_LEVEL": "LOUD"}, set()),
    ],
)
def test_parts_that_do_not_depend_on_a_wrong_setting_are_checked(
    env: dict[str, str], change: dict[str, str], skipped: set[str]
) -> None:
    diagnosis = diagnose({**env, **change})
    assert diagnosis.faulty == {"settings"}
    assert {each["part"] for each in diagnosis.findings if each["verdict"] == "skip"} == skipped


def test_silent_parts_take_five_seconds_together(env: dict[str, str], silent_port: int) -> None:
    began = time.monotonic()
    diagnosis = diagnose(
        {
            **env,
            "DATABASE_URL": f"postgresql://broker@127.0.0.1:{silent_port}/broker",
            "GOOGLE_DISCOVERY_URL": f"http://127.0.0.1:{silent_port}/",
        }
    )
    # One after the other would take ten.
    assert time.monotonic() - began < 9.5
    assert diagnosis.faulty == {"database", "google"}
    assert diagnosis.verdicts("clock") == ["skip"]
