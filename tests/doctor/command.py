"""`broker doctor` as tests run it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner, Result

from broker.cli.doctor import doctor


def run(env: Mapping[str, str], *arguments: str) -> Result:
    # An empty value counts as not set.
    unset = dict.fromkeys(("BROKER_LOG_LEVEL", "HTTP_PROXY", "HTTPS_PROXY"), "")
    return CliRunner().invoke(doctor, list(arguments), env={**unset, **env})


@dataclass(frozen=True)
class Diagnosis:
    """The findings of one run."""

    exit_code: int
    findings: list[dict[str, Any]]

    def verdicts(self, part: str) -> list[str]:
        return [each["verdict"] for each in self.findings if each["part"] == part]

    def words(self, part: str) -> str:
        return "\n".join(
            f"{each['what']} → {each['remedy']}" for each in self.findings if each["part"] == part
        )

    @property
    def faulty(self) -> set[str]:
        """The parts with a failure or a warning."""
        return {each["part"] for each in self.findings if each["verdict"] in ("fail", "warn")}


def diagnose(env: Mapping[str, str]) -> Diagnosis:
    result = run(env, "--json")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["well"] is (result.exit_code == 0)
    for finding in document["findings"]:
        needs_remedy = finding["verdict"] in ("fail", "warn")
        assert (finding["remedy"] is not None) is needs_remedy
    return Diagnosis(result.exit_code, document["findings"])
