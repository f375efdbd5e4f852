"""`openapi.yaml` as tests use it: what is documented, and whether an answer is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import schemathesis
import yaml
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

PATH = Path(__file__).parents[2] / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.load(PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)

PLACES = {"user_id": "user-1", "sub": "1", "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}
"""What stands in the paths of requests."""

_METHODS = ("get", "put", "post", "delete", "patch")
_DESCRIPTION = schemathesis.openapi.from_path(PATH)
_CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every documented operation: path, method, description."""
    for path, item in DOCUMENT["paths"].items():
        for method in _METHODS:
            if method in item:
                yield path, method.upper(), item[method]


def listener_of(path: str) -> str:
    """Which listener serves a documented path."""
    servers = DOCUMENT["paths"][path].get("servers", DOCUMENT["servers"])
    return {"8000": "public", "8001": "internal", "8002": "ops"}[servers[0]["url"][-4:]]


def resolved(node: Any) -> Any:
    """What a `$ref` points at."""
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def problem_codes() -> set[str]:
    """Every code that some operation is documented to answer with."""
    found: set[str] = set()
    for _path, _method, operation in operations():
        for response in operation["responses"].values():
            content = resolved(response).get("content", {})
            if "application/problem+json" in content:
                schema = content["application/problem+json"]["schema"]
                for option in schema.get("oneOf", [schema]):
                    found.add(resolved(option)["properties"]["code"]["const"])
    return found


def check(path: str, method: str, answer: httpx2.Response) -> None:
    """Fail unless the answer's status, headers, type and body are as documented."""
    case = _DESCRIPTION[path][method].Case(path_parameters=PLACES)
    case.validate_response(answer, checks=_CHECKS)
