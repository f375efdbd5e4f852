"""Duplicated content of the chart is equal, and its statements about the broker are true."""

import json
import re
import shutil
import tarfile
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import broker
from broker.callers import callers_file
from broker.callers.model import Permission
from broker.settings import SECRET_NAMES, SETTING_NAMES
from checks.chart import __main__ as generator
from checks.chart import published, readme
from tests.chart.rendering import CHART, MINIMAL, ROOT, merged, render_texts, require_helm
from tests.chart.switches import DRILL, INGRESS, TRIAL, at

SET_BY_THE_CHART = {
    "BROKER_PUBLIC_LISTEN",
    "BROKER_INTERNAL_LISTEN",
    "BROKER_OPS_LISTEN",
    "BROKER_CALLERS_FILE",
    "GOOGLE_CREDENTIALS_FILE",
}


def test_generated_files_are_current(capsys: pytest.CaptureFixture[str]) -> None:
    require_helm()
    assert generator.main(["--check"]) == 0, capsys.readouterr().out


def test_a_different_copy_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_helm()
    shutil.copytree(CHART, tmp_path / "helm")
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    monkeypatch.setattr(generator, "CHART", tmp_path / "helm")
    for folder in ("deploy/alerts", "helm/files/alerts", "deploy/dashboards"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "deploy/alerts/new.yaml").write_text("groups: []\n", "utf-8")
    (tmp_path / "helm/files/alerts/gone.yaml").write_text("groups: []\n", "utf-8")
    assert generator.main(["--check"]) == 1
    assert "helm/files/alerts/new.yaml is out of date: make chart" in capsys.readouterr().out
    assert generator.main([]) == 0
    assert [path.name for path in (tmp_path / "helm/files/alerts").iterdir()] == ["new.yaml"]
    assert generator.main(["--check"]) == 0


def test_a_value_without_a_description_is_detected() -> None:
    empty = f"{readme.BEGIN}\n{readme.END}"
    with pytest.raises(ValueError, match=r"without a description: a\.c"):
        readme.build(empty, "a:\n  # -- Known.\n  b: 1\n  c: 2\n")
    assert '| `a` | `{"c": 2}` | All of it. |' in readme.build(
        empty, "# -- All of it.\na:\n  c: 2\n"
    )


def _schema() -> dict[str, object]:
    loaded: dict[str, object] = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    return loaded


def _at(*path: str) -> dict[str, object]:
    part: object = _schema()
    for name in path:
        assert isinstance(part, dict)
        part = part[name]
    assert isinstance(part, dict)
    return part


def test_the_schema_knows_every_setting_of_the_broker() -> None:
    settings = _at("properties", "settings", "properties").keys()
    assert settings == SETTING_NAMES - SECRET_NAMES - SET_BY_THE_CHART
    secrets = _at("$defs", "secretNames")["enum"]
    assert isinstance(secrets, list)
    assert set(secrets) == SECRET_NAMES | {"GOOGLE_CREDENTIALS_FILE"}


def test_the_schema_knows_every_field_of_a_callers_file() -> None:
    assert _at("$defs", "caller", "properties").keys() == set(callers_file._CALLER_FIELDS)
    assert _at("$defs", "issuer", "properties").keys() == set(callers_file._ISSUER_FIELDS)
    permissions = _at("$defs", "caller", "properties", "can", "items")["enum"]
    assert permissions == [str(one) for one in Permission]


def test_the_chart_is_of_this_release() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == broker.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", chart["version"])
    changes = yaml.safe_load(chart["annotations"]["artifacthub.io/changes"])
    kinds = {"added", "changed", "deprecated", "removed", "fixed", "security"}
    assert {change["kind"] for change in changes} <= kinds


def test_the_package_has_files_and_no_links(tmp_path: Path) -> None:
    """So a pulled chart equals that of the repository, on Windows too."""
    require_helm()
    archive = import_module("helm_python").package(CHART, destination=tmp_path)
    with tarfile.open(archive) as packed:
        members = {one.name.partition("/")[2]: one for one in packed.getmembers()}
    assert all(one.isfile() for one in members.values())
    here = {str(one.relative_to(CHART)) for one in CHART.rglob("*") if one.is_file()}
    assert members.keys() == here - {".helmignore"} | ({".helmignore"} & members.keys())
    assert not [one for one in CHART.rglob("*") if one.is_symlink()]


def test_a_release_names_its_image_and_its_repository(tmp_path: Path) -> None:
    chart = tmp_path / "token-broker"
    shutil.copytree(CHART, chart)
    repository = "https://git.example.com/example/broker"
    published.publish(chart, "ghcr.io/example/broker", repository, broker.__version__)
    values = merged(MINIMAL)
    del values["image"]
    deployment = yaml.safe_load(render_texts(values, chart=chart)["deployment.yaml"])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"ghcr.io/example/broker:{broker.__version__}"
    about = yaml.safe_load((chart / "Chart.yaml").read_text("utf-8"))
    assert (about["home"], about["sources"]) == (repository, [repository])
    annotations = {name: yaml.safe_load(text) for name, text in about["annotations"].items()}
    (image,) = annotations["artifacthub.io/images"]
    assert image == {"name": "token-broker", "image": container["image"]}
    # Every link leads to a file of the repository.
    text = (chart / "README.md").read_text("utf-8")
    at_the_tag = f"{repository}/blob/v{broker.__version__}/"
    urls = [one["url"] for one in annotations["artifacthub.io/links"]]
    paths = re.findall(re.escape(at_the_tag) + r"([^)#\s]+)", " ".join([text, *urls]))
    assert len(paths) > 3
    assert not [path for path in paths if not (ROOT / path).exists()]
    assert "](../" not in text


def test_the_workflow_does_so_before_it_packages() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    (step,) = (one for one in workflow["jobs"]["chart"]["steps"] if one.get("id") == "push")
    command = 'python3 -m checks.chart.published "$IMAGE" "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"'
    _, _, after = step["run"].partition(command)
    assert after.startswith(' "$VERSION"\nhelm package helm')
    assert "IMAGE" in workflow["jobs"]["chart"]["env"]


def test_a_release_of_another_chart_is_refused(tmp_path: Path) -> None:
    chart = tmp_path / "token-broker"
    shutil.copytree(CHART, chart)
    values = (chart / "values.yaml").read_text("utf-8").replace('  repository: ""', "  repo: x")
    (chart / "values.yaml").write_text(values, "utf-8")
    with pytest.raises(ValueError, match=r"values\.yaml does not hold"):
        published.publish(chart, "i", "https://r.example.com", "1.2.3")


def test_the_example_of_the_readme_renders() -> None:
    text = (CHART / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(# values\.yaml.*?)```", text, re.DOTALL)
    values = yaml.safe_load(example)
    values["callers"]["file"]["callers"]["calendar-sync"]["keys"] = ["sha256:" + "0" * 64]
    assert "Ingress" in render_texts(values)["ingress.yaml"]


NOTES = [
    (TRIAL, "secrets.create is for trials"),
    ({}, "lists no caller"),
    (INGRESS, "BROKER_TRUSTED_PROXIES is empty"),
    ({}, "Nothing in this release publishes it"),
    (at("migrations.mode", "none"), "run `broker migrate` before each upgrade"),
    ({"replicaCount": 1}, "There is one replica"),
    ({}, "knows no ServiceMonitor"),
    (DRILL, "create job first-drill --from=cronjob/demo-token-broker-drill"),
    ({}, "helm --namespace brokers test demo"),
]


@pytest.mark.parametrize(("values", "line"), NOTES)
def test_the_notes_name_the_next_steps(values: dict[str, object], line: str) -> None:
    assert line in render_texts(merged(MINIMAL, values))["NOTES.txt"]
    well = {
        "settings": {"BROKER_TRUSTED_PROXIES": "10.0.0.0/8"},
        "callers": {"existingConfigMap": "x"},
        "monitoring": {"serviceMonitor": {"mode": "never"}},
    }
    assert "Warnings" not in render_texts(merged(MINIMAL, INGRESS, well))["NOTES.txt"]
