"""helm/values.schema.json: our own schema, and Kubernetes' strict one for its own types."""

import copy
import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

SOURCE = Path(__file__).with_name("schema.yaml")
KUBERNETES = "v1.37.0"
"""Whose types the values may use: the newest, since it only adds to older ones."""

_PREFIX = "kubernetes:"
_IO = "io.k8s."
_NOT_USED = re.compile(r"description|x-kubernetes-.*|\$schema|\$id")


def build() -> str:
    """The text of values.schema.json. Needs the package kubernetes-validate."""
    schema = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    kubernetes = _kubernetes_definitions()
    peer = kubernetes[f"{_IO}api.networking.v1.NetworkPolicyPeer"]
    schema["$defs"]["peer"] = {**peer, "minProperties": 1}
    volume = kubernetes[f"{_IO}api.core.v1.Volume"]
    sources = {name: part for name, part in volume["properties"].items() if name != "name"}
    schema["$defs"]["volumeSource"] = {"type": "object", "properties": sources, "maxProperties": 1}
    schema["$defs"]["container"] = _container(kubernetes)
    _close(schema)
    todo = list(_references(schema))
    while todo:
        name = todo.pop()
        if name not in schema["$defs"]:
            schema["$defs"][name] = kubernetes[name]
            todo += _references(kubernetes[name])
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
    return text.replace(f'"{_PREFIX}', '"#/$defs/') + "\n"


def _container(kubernetes: dict[str, Any]) -> dict[str, Any]:
    """A container beside the broker: without ports of the node, which would publish listeners."""
    container: dict[str, Any] = copy.deepcopy(kubernetes[f"{_IO}api.core.v1.Container"])
    port = copy.deepcopy(kubernetes[f"{_IO}api.core.v1.ContainerPort"])
    for name in ("hostPort", "hostIP"):
        del port["properties"][name]
    container["properties"]["ports"] = {"type": "array", "items": port}
    return container


def _kubernetes_definitions() -> dict[str, Any]:
    package = resources.files("kubernetes_validate")
    folder = package / "kubernetes-json-schema" / f"{KUBERNETES}-local-strict"
    loaded = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = _stripped(loaded["$defs"])
    return found


def _stripped(part: Any) -> Any:
    if isinstance(part, dict):
        named = {name: _stripped(value) for name, value in part.items() if not _is_dropped(name)}
        if named.get("type") == ["object", "null"]:
            named["type"] = "object"
        return named
    return [_stripped(item) for item in part] if isinstance(part, list) else part


def _is_dropped(name: str) -> bool:
    return _NOT_USED.fullmatch(name) is not None


def _close(part: Any) -> None:
    """Have every object with `properties` refuse others."""
    if isinstance(part, list):
        for item in part:
            _close(item)
    if not isinstance(part, dict):
        return
    if isinstance(part.get("properties"), dict):
        part.setdefault("type", "object")
        part.setdefault("additionalProperties", False)
    for value in part.values():
        _close(value)


def _references(part: Any) -> Iterator[str]:
    for target in re.findall(r'"\$ref": "([^"]+)"', json.dumps(part)):
        name = str(target).removeprefix(_PREFIX).removeprefix("#/$defs/")
        if name.startswith(_IO):
            yield name
