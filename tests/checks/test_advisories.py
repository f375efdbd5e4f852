import json

import pytest

from checks.advisories import Findings, read_report, verdict

_GOOD = {"name": "starlette", "version": "1.0.0", "vulns": []}
_BAD = {
    "name": "uvicorn",
    "version": "0.1",
    "vulns": [{"id": "PYSEC-2020-150", "fix_versions": ["0.11.7"], "aliases": []}],
}
_UNKNOWN = {"name": "broker-only", "skip_reason": "Dependency not found"}


def _report(*packages: object) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_known_vulnerability_fails_the_check_and_names_the_fix() -> None:
    status, lines = verdict("base.txt", read_report(_report(_GOOD, _BAD)), is_required=False)
    assert status == 1
    assert lines[1] == "  uvicorn 0.1: PYSEC-2020-150 (fixed in 0.11.7)"


def test_a_vulnerability_counts_also_if_other_packages_are_unknown() -> None:
    status, _ = verdict("base.txt", read_report(_report(_BAD, _UNKNOWN)), is_required=False)
    assert status == 1


def test_a_clean_audit_passes() -> None:
    assert verdict("base.txt", read_report(_report(_GOOD)), is_required=True)[0] == 0


@pytest.mark.parametrize(
    "findings", [Findings(outage="no route"), read_report(_report(_GOOD, _UNKNOWN))]
)
def test_an_incomplete_audit_is_reported_and_fails_if_an_audit_is_required(
    findings: Findings,
) -> None:
    status, lines = verdict("base.txt", findings, is_required=False)
    assert status == 0
    assert "NOT AUDITED" in lines[0]
    assert verdict("base.txt", findings, is_required=True)[0] == 1


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dependencies": 1}', "Traceback"])
def test_text_that_is_no_report_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (also json's own)
        read_report(text)
