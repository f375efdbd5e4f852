"""The AWS module, applied by a real Terraform to moto's AWS."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.support.terraform import MODULES, Workspace, aws_standin

pytestmark = pytest.mark.terraform

MODULE = MODULES / "aws"
HERE, THERE = "eu-central-1", "eu-west-1"
NAME = "token-broker/google"
ACCOUNT = "123456789012"
"""moto's."""
CLUSTER = "oidc.eks.eu-central-1.amazonaws.com/id/ABC"
CLIENT_ID = "1234-abc.apps.googleusercontent.com"

PROVIDER = """
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}
"""
"""The version of the module's README; the module also allows newer ones."""

ROOT = """
provider "aws" {{
  region                      = "{region}"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true

  endpoints {{
    iam            = "{address}"
    secretsmanager = "{address}"
    sts            = "{address}"
  }}
}}

variable "client" {{
  type      = object({{ client_id = string, client_secret = string }})
  ephemeral = true
}}

variable "client_version" {{
  type = number
}}

module "secret" {{
  source          = "{module}"
  client          = var.client
  client_version  = var.client_version
  replica_regions = ["{replica}"]

  irsa = {{
    oidc_provider_arn = "arn:aws:iam::{account}:oidc-provider/{cluster}"
    namespace         = "broker"
    service_account   = "token-broker"
  }}
}}

output "made" {{
  value = module.secret
}}
"""


@dataclass(frozen=True)
class Applied:
    """The module in a user's configuration, and the AWS that it is applied to."""

    workspace: Workspace
    address: str

    def aws(self, service: str, region: str = HERE) -> Any:
        """Return a client of AWS's own library."""
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.address,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def secret(self, region: str) -> dict[str, str]:
        answer = self.aws("secretsmanager", region).get_secret_value(SecretId=NAME)
        found: dict[str, str] = json.loads(answer["SecretString"])
        return found


def _variables(client_secret: str, version: int) -> dict[str, str]:
    client = {"client_id": CLIENT_ID, "client_secret": client_secret}
    return {"TF_VAR_client": json.dumps(client), "TF_VAR_client_version": str(version)}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """Applied once, with the secret `the-secret`."""
    folder = tmp_path_factory.mktemp("terraform")
    workspace = Workspace.new(folder / "root")
    with aws_standin(folder / "moto.log") as address:
        names = {"region": HERE, "replica": THERE, "account": ACCOUNT, "cluster": CLUSTER}
        (workspace.folder / "main.tf").write_text(
            ROOT.format(address=address, module=MODULE, **names), encoding="utf-8"
        )
        (workspace.folder / "provider.tf").write_text(PROVIDER, encoding="utf-8")
        workspace.initialise()
        workspace.succeed("apply", "-auto-approve", more=_variables("the-secret", version=1))
        yield Applied(workspace, address)


def test_aws_module_stores_the_client_and_replicates_it(applied: Applied) -> None:
    expected = {"client_id": CLIENT_ID, "client_secret": "the-secret"}
    assert applied.secret(HERE) == applied.secret(THERE) == expected
    described = applied.aws("secretsmanager").describe_secret(SecretId=NAME)
    assert [(each["Region"], each["Status"]) for each in described["ReplicationStatus"]] == [
        (THERE, "InSync")
    ]

    made = applied.workspace.outputs()["made"]
    assert made["secret_name"] == NAME
    replica = applied.aws("secretsmanager", THERE).describe_secret(SecretId=NAME)
    assert made["secret_arns"] == {HERE: described["ARN"], THERE: replica["ARN"]}


def test_aws_module_is_stable_and_keeps_the_secret_out_of_plan_and_state(applied: Applied) -> None:
    again = applied.workspace.run(
        "plan", "-detailed-exitcode", "-out=plan", more=_variables("the-secret", version=1)
    )
    assert again.returncode == 0, again.stdout + again.stderr
    folder = applied.workspace.folder
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 10**7]
    assert {folder / "terraform.tfstate", folder / "plan"} <= set(files)
    assert [path for path in files if b"the-secret" in path.read_bytes()] == []
    assert "the-secret" not in applied.workspace.succeed("show", "-json", "plan")


def test_aws_policy_reads_this_secret_in_both_regions_and_nothing_else(applied: Applied) -> None:
    made = applied.workspace.outputs()["made"]
    iam = applied.aws("iam")
    version = iam.get_policy(PolicyArn=made["policy_arn"])["Policy"]["DefaultVersionId"]
    policy = iam.get_policy_version(PolicyArn=made["policy_arn"], VersionId=version)
    (statement,) = policy["PolicyVersion"]["Document"]["Statement"]
    assert statement["Effect"] == "Allow"
    assert statement["Action"] == "secretsmanager:GetSecretValue"
    assert sorted(statement["Resource"]) == [
        f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{NAME}-??????"
        for region in (HERE, THERE)
    ]

    other = applied.aws("secretsmanager").create_secret(Name=f"{NAME}-b", SecretString="{}")
    matched = {
        arn
        for arn in (*made["secret_arns"].values(), other["ARN"])
        for pattern in statement["Resource"]
        if fnmatchcase(arn, pattern)
    }
    assert matched == set(made["secret_arns"].values())


def test_aws_role_trusts_one_service_account_and_has_the_policy(applied: Applied) -> None:
    made = applied.workspace.outputs()["made"]
    iam = applied.aws("iam")
    role = iam.get_role(RoleName="token-broker")["Role"]
    assert role["Arn"] == made["role_arn"]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Condition"] == {
        "StringEquals": {
            f"{CLUSTER}:sub": "system:serviceaccount:broker:token-broker",
            f"{CLUSTER}:aud": "sts.amazonaws.com",
        }
    }
    attached = iam.list_attached_role_policies(RoleName="token-broker")["AttachedPolicies"]
    assert [policy["PolicyArn"] for policy in attached] == [made["policy_arn"]]


def test_aws_module_passes_its_own_tests(tmp_path: Path) -> None:
    workspace = Workspace.new(tmp_path / "root")
    for path in MODULE.rglob("*"):
        if path.suffix in {".tf", ".hcl"} and ".terraform" not in path.parts:
            copy = workspace.folder / path.relative_to(MODULE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (workspace.folder / "provider_override.tf").write_text(PROVIDER, encoding="utf-8")
    workspace.initialise()
    printed = workspace.succeed("test", "-no-color")
    assert re.search(r"Success! [1-9][0-9]* passed, 0 failed", printed)
