"""The callers file and its issuers."""

from pathlib import Path

import yaml

from tests.doctor.command import diagnose
from tests.support.issuer import OidcIssuer
from tests.support.workloads import workload_stanza


def test_an_issuer_without_available_keys_is_reported(
    env: dict[str, str], issuer: OidcIssuer
) -> None:
    callers_file = Path(env["BROKER_CALLERS_FILE"])
    callers = {"calendar-sync": workload_stanza(issuer)}
    callers_file.write_text(yaml.safe_dump({"callers": callers}))
    diagnosis = diagnose(env)
    assert (diagnosis.exit_code, diagnosis.verdicts("issuers")) == (0, ["ok"])
    issuer.break_down(403)
    diagnosis = diagnose(env)
    assert (diagnosis.exit_code, diagnosis.verdicts("issuers")) == (1, ["fail"])
    assert issuer.url in diagnosis.words("issuers")
    assert "token_file" in diagnosis.words("issuers")


def test_all_problems_of_the_callers_file_are_reported(env: dict[str, str]) -> None:
    Path(env["BROKER_CALLERS_FILE"]).write_text(
        "callers:\n  a:\n    keys: [nonsense]\n    can: [token:read]\n    users: ['*']\n"
    )
    diagnosis = diagnose(env)
    assert diagnosis.exit_code == 1
    assert set(diagnosis.verdicts("callers file")) == {"fail"}
    assert "did you mean" in diagnosis.words("callers file")


def test_a_missing_callers_file_is_reported(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "BROKER_CALLERS_FILE": "/no/such/file"})
    assert diagnosis.faulty == {"callers file"}


def test_scopes_that_the_broker_may_not_request_are_a_warning(env: dict[str, str]) -> None:
    diagnosis = diagnose({**env, "GOOGLE_SCOPES": "https://www.googleapis.com/auth/calendar"})
    assert diagnosis.exit_code == 0
    assert diagnosis.verdicts("callers file") == ["warn", "ok"]
    assert "not in GOOGLE_SCOPES" in diagnosis.words("callers file")
