"""Renders the chart with Helm's own engine (libhelm), and validates objects with strict schemas."""

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.support.optional_parts import skip_without

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm"
VERSIONS = tuple(f"v1.{minor}.0" for minor in range(25, 38))
"""Kubernetes versions with schemas here, from the oldest that the chart supports."""
OLDEST, NEWEST = VERSIONS[0], VERSIONS[-1]
MONITORING = (
    "monitoring.coreos.com/v1/ServiceMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
)

Object = dict[str, Any]

MINIMAL: Object = {
    "image": {"repository": "registry.example.com/token-broker"},
    "settings": {
        "GOOGLE_REDIRECT_URI": "https://app.example.com/auth/google/callback",
        "GOOGLE_SCOPES": "https://www.googleapis.com/auth/calendar.readonly",
    },
    "secrets": {"existingSecret": "broker-secrets"},
}
"""The minimal values that the chart accepts."""


def merged(*parts: Mapping[str, Any]) -> Object:
    """Merge values as Helm does: maps are merged, everything else is replaced."""
    result: Object = {}
    for part in parts:
        for key, value in part.items():
            if isinstance(value, Mapping) and isinstance(result.get(key), dict):
                result[key] = merged(result[key], value)
            else:
                result[key] = copy.deepcopy(value)
    return result


def require_helm() -> None:
    """Skip if requirements/chart.txt is not installed."""
    if find_spec("helm_python") is None or find_spec("kubernetes_validate") is None:
        skip_without("requirements/chart.txt is not installed: make chart-tools")


@cache
def _chart(path: Path) -> Any:
    return import_module("helm_python").Chart.load(path)


def render_texts(
    values: Mapping[str, Any],
    *,
    kube: str = NEWEST,
    apis: tuple[str, ...] = (),
    chart: Path = CHART,
    release: str = "demo",
) -> dict[str, str]:
    """Return each template's text. Raises `helm_python.HelmError`, as `helm install` would fail."""
    require_helm()
    options = {"name": release, "namespace": "brokers", "kube_version": kube, "api_versions": apis}
    rendered: dict[str, str] = json.loads(_render(chart, json.dumps(values), json.dumps(options)))
    return {name.partition("/templates/")[2]: content for name, content in rendered.items()}


@lru_cache(maxsize=256)
def _render(chart: Path, values: str, options: str) -> str:
    # The package's own `Chart.render` has no argument for the cluster's version and kinds.
    native = import_module("helm_python")._native
    return str(native.call_string("helm_render", _chart(chart)._raw(), values, options))


def forget() -> None:
    """Make the next `render` compute its result again."""
    _render.cache_clear()


class _Loader(yaml.CSafeLoader):
    """Rejects duplicate keys, as kubectl and kustomize do; Helm uses the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"twice in {sorted(keys)}"
        return super().construct_mapping(node, deep)


def render(values: Mapping[str, Any], **options: Any) -> list[Object]:
    """Return all objects, hooks included."""
    texts = render_texts(values, **options)
    return [
        found
        for name, text in texts.items()
        if name != "NOTES.txt"
        for found in yaml.load_all(text, Loader=_Loader)
        if found is not None
    ]


def refusal(values: Mapping[str, Any], **options: Any) -> str:
    """Return Helm's reason to refuse the values; fails if it accepts them."""
    require_helm()
    errors = import_module("helm_python")
    try:
        render_texts(values, **options)
    except errors.HelmError as error:
        return str(error)
    raise AssertionError("the chart accepted the values")


def of_kind(objects: list[Object], kind: str, suffix: str | None = None) -> list[Object]:
    """Return the objects of a kind; with a suffix, those with that suffix after the release's full
    name.
    """
    named = [found for found in objects if found["kind"] == kind]
    if suffix is None:
        return named
    return [found for found in named if found["metadata"]["name"] == f"demo-token-broker{suffix}"]


def the(objects: list[Object], kind: str, suffix: str | None = None) -> Object:
    """Return the only such object."""
    (found,) = of_kind(objects, kind, suffix)
    return found


def pod_specs(objects: list[Object]) -> Iterator[Object]:
    """Return the spec of every pod of the objects."""
    for found in objects:
        if found["kind"] == "Pod":
            yield found["spec"]
        elif found["kind"] in {"Deployment", "Job"}:
            yield found["spec"]["template"]["spec"]
        elif found["kind"] == "CronJob":
            yield found["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def broker(objects: list[Object]) -> Object:
    """Return the broker's container."""
    spec = the(objects, "Deployment")["spec"]["template"]["spec"]
    return next(found for found in spec["containers"] if found["name"] == "broker")


def environment(container: Object) -> dict[str, Any]:
    """Return a container's variables."""
    names = [entry["name"] for entry in container.get("env", [])]
    assert len(names) == len(set(names)), f"set twice: {names}"
    return {entry["name"]: entry.get("value") for entry in container.get("env", [])}


def complaints(found: Object, version: str) -> list[str]:
    """Return a strict API server's errors for an object, in that version."""
    validator = _validator(found["apiVersion"], found["kind"], version)
    place = f"{found['kind']} {found['metadata']['name']}"
    return [
        f"{place}: {error.json_path}: {error.message}" for error in validator.iter_errors(found)
    ]


@cache
def _validator(api: str, kind: str, version: str) -> Draft202012Validator:
    custom = {
        found["spec"]["names"]["kind"]: found
        for path in sorted((Path(__file__).parent / "crds").glob("*.json"))
        for found in [json.loads(path.read_text(encoding="utf-8"))]
    }
    if kind in custom:
        assert api == f"{custom[kind]['spec']['group']}/v1"
        return Draft202012Validator(_strict(custom[kind]["spec"]["versions"][0]["schema"]))
    group, _, number = api.rpartition("/")
    file = "-".join(filter(None, (kind.lower(), group.partition(".")[0], number))) + ".json"
    schema = json.loads(_schema_text(version, file))
    return Draft202012Validator(schema, registry=_registry(version))


def _schema_text(version: str, file: str) -> str:
    package = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    return (package / f"{version}-local-strict" / file).read_text(encoding="utf-8")


@cache
def _registry(version: str) -> Registry[Any]:
    definitions = Resource.from_contents(json.loads(_schema_text(version, "_definitions.json")))
    registry: Registry[Any] = definitions @ Registry()
    named: Registry[Any] = registry.with_resource("_definitions.json", definitions)
    return named


def _strict(crd: Object) -> Object:
    """Return a CRD's schema that also refuses unknown fields, which an API server drops."""
    schema = copy.deepcopy(crd["openAPIV3Schema"])
    _close(schema)
    schema["properties"]["metadata"] = {"type": "object"}
    return dict(schema)


def _close(part: Any) -> None:
    if isinstance(part, list):
        for item in part:
            _close(item)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("properties"), dict) and part.get("type") == "object":
        part.setdefault("additionalProperties", False)
    if part.pop("x-kubernetes-int-or-string", False):
        part.pop("anyOf", None)
        part["type"] = ["integer", "string"]
    for value in part.values():
        _close(value)
