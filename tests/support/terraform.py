"""Runs Terraform, and a stand-in of AWS's API (moto's server) for it.

Terraform is in no package registry that this project installs from: where it, or the provider of a
module, is missing, the test is skipped.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import clean_environment, free_port, running

MODULES = Path(__file__).parents[2] / "deploy/terraform"

_LIMIT_SECONDS = 300
_PROVIDER_FOLDERS = ("/usr/local/share/terraform/plugins", "/opt/tf-plugins")
"""Folders of providers on machines without a network."""


def terraform_binary() -> str:
    """Return the path of Terraform; skip the test without one."""
    binary = shutil.which("terraform")
    if binary is None:
        pytest.skip("there is no terraform on this machine")
    return binary


@dataclass(frozen=True)
class Workspace:
    """A folder that Terraform runs in, isolated from the developer's own configuration."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def new(cls, folder: Path, environment: Mapping[str, str] | None = None) -> "Workspace":
        """Create the folder; `environment` is added to Terraform's variables."""
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "terraform.rc"
        configuration.touch()
        return cls(
            folder,
            {
                "TF_CLI_CONFIG_FILE": str(configuration),
                "TF_IN_AUTOMATION": "1",
                "TF_INPUT": "0",
                "CHECKPOINT_DISABLE": "1",
                **(environment or {}),
            },
        )

    def run(
        self, *arguments: str, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command until it ends."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        kept = {name: value for name, value in clean_environment({}).items() if name in own}
        return subprocess.run(
            [terraform_binary(), *arguments],
            cwd=self.folder,
            env={**kept, **self.environment, **(more or {})},
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )

    def succeed(self, *arguments: str, more: Mapping[str, str] | None = None) -> str:
        """Run a command that must succeed; return its output."""
        result = self.run(*arguments, more=more)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def initialise(self) -> None:
        """Run `init`; skip the test if a provider is unavailable."""
        folders = [each for each in _PROVIDER_FOLDERS if Path(each).is_dir()]
        result = self.run("init", *(f"-plugin-dir={each}" for each in folders))
        if result.returncode != 0 and "provider" in result.stderr:
            pytest.skip("terraform can't get the module's provider on this machine")
        assert result.returncode == 0, result.stderr

    def outputs(self) -> dict[str, Any]:
        """Return the outputs by name."""
        printed = json.loads(self.succeed("output", "-json"))
        return {name: output["value"] for name, output in printed.items()}


@contextmanager
def aws_standin(log: Path) -> Iterator[str]:
    """Run moto's server; yield its URL."""
    address = ("127.0.0.1", free_port())
    url = "http://{}:{}".format(*address)
    command = [sys.executable, "-m", "moto.server", "--host", address[0], "--port", str(address[1])]
    with running(command, answers_at=f"{url}/moto-api/", log=log):
        yield url
