"""docs/reference/api.md, from openapi.yaml: static Markdown, which needs no script to be read."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from checks.reference.sources import ROOT
from checks.reference.tables import table

_HEAD = """# HTTP API

Generated from [openapi.yaml](../../openapi.yaml) by `python -m checks.reference`. A test sends
requests for every operation to a running broker and compares the answers with that file. Generate a
client from it with any OpenAPI 3.1 tool.
"""
_METHODS = ("get", "post", "put", "delete")
_HEADERS_OF_EVERY_ANSWER = {"Cache-Control", "X-Request-Id"}


def page() -> str:
    """Return the whole page."""
    document = yaml.safe_load((ROOT / "openapi.yaml").read_text(encoding="utf-8"))
    return _Page(document).text()


class _Page:
    """The description as Markdown."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Any] = document["components"]["schemas"]

    def text(self) -> str:
        parts = [_HEAD, self._prose(self._document["info"]["description"])]
        parts += self._authentication()
        for tag in self._document["tags"]:
            parts += [f"\n## {tag['name']}\n", self._prose(tag["description"])]
            for path, method, shared, operation in self._operations():
                if tag["name"] in operation["tags"]:
                    parts += self._operation(path, method, shared, operation)
        parts.append("\n## Schemas\n")
        for name, schema in self._schemas.items():
            parts += self._schema(name, schema)
        return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"

    def _prose(self, text: str) -> str:
        """A path of a document becomes a link."""
        linked = re.sub(
            r"`docs/([\w/-]+\.md)(#[\w-]+)?`",
            lambda match: f"[{match[1]}](../{match[1]}{match[2] or ''})",
            text,
        )
        return linked.strip() + "\n"

    def _authentication(self) -> Iterator[str]:
        yield "\n## Authentication\n"
        for scheme in self._document["components"]["securitySchemes"].values():
            yield f"- **{scheme['scheme'].capitalize()}**: {self._line(scheme['description'])}"

    def _operations(self) -> Iterator[tuple[str, str, list[Any], dict[str, Any]]]:
        places = {**self._document["paths"], **self._document["webhooks"]}
        for path, item in places.items():
            for method in _METHODS:
                if method in item:
                    yield path, method, item.get("parameters", []), item[method]

    def _operation(
        self, path: str, method: str, shared: list[Any], operation: dict[str, Any]
    ) -> Iterator[str]:
        is_webhook = not path.startswith("/")
        yield f"\n### {operation['summary']}\n"
        yield f"`{method.upper()} {'the URL of your receiver' if is_webhook else path}`\n"
        yield self._prose(operation.get("description", ""))
        parameters = [self._resolved(each) for each in (*shared, *operation.get("parameters", []))]
        if parameters:
            yield table(["parameter", "in", "type", "meaning"], map(self._parameter, parameters))
            yield ""
        if "requestBody" in operation:
            yield from self._body(self._resolved(operation["requestBody"]))
        yield table(["status", "meaning", "body"], self._answers(operation["responses"]))
        yield ""

    def _parameter(self, parameter: dict[str, Any]) -> tuple[str, str, str, str]:
        name = f"`{parameter['name']}`" + (" (required)" if parameter.get("required") else "")
        return (
            name,
            parameter["in"],
            self._type(parameter["schema"]),
            self._line(parameter.get("description", "")),
        )

    def _body(self, body: dict[str, Any]) -> Iterator[str]:
        for media_type, content in body["content"].items():
            yield f"Request body: `{media_type}`, {self._type(content['schema'])}.\n"
            if "properties" in content["schema"]:
                yield self._properties(content["schema"]) + "\n"
            shown = [content["example"]] if "example" in content else []
            shown += [each["value"] for each in content.get("examples", {}).values()]
            for example in shown[:1]:
                yield f"```json\n{_json(example)}\n```\n"

    def _answers(self, answers: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
        for status, answer in answers.items():
            resolved = self._resolved(answer)
            headers = [
                f"`{name}`"
                for name in resolved.get("headers", {})
                if name not in _HEADERS_OF_EVERY_ANSWER
            ]
            meaning = self._line(resolved["description"])
            if headers:
                meaning += f" Headers: {', '.join(headers)}."
            bodies = [
                f"{self._type(content['schema'])} (`{media_type}`)"
                for media_type, content in resolved.get("content", {}).items()
            ]
            yield str(status), meaning, ", ".join(bodies)

    def _schema(self, name: str, schema: dict[str, Any]) -> Iterator[str]:
        yield f"\n### {name}\n"
        if "description" in schema:
            yield self._prose(schema["description"])
        if "properties" in schema:
            yield self._properties(schema) + "\n"
        else:
            yield f"{self._type(schema)}{self._limits(schema)}\n"
        for example in schema.get("examples", [])[:1]:
            if isinstance(example, dict):
                yield f"```json\n{_json(example)}\n```\n"

    def _properties(self, schema: dict[str, Any]) -> str:
        required = set(schema.get("required", ()))
        based = [self._type(each) for each in schema.get("allOf", ())]
        rows = [
            (
                f"`{name}`" + (" (required)" if name in required else ""),
                self._type(each),
                (self._line(each.get("description", "")) + self._limits(each)).strip(),
            )
            for name, each in schema["properties"].items()
        ]
        text = table(["member", "type", "meaning"], rows)
        return f"{' and '.join(based)}, and:\n\n{text}" if based else text

    def _type(self, schema: Mapping[str, Any]) -> str:
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            return f"[{name}](#{name.lower()})"
        for word in ("oneOf", "anyOf", "allOf"):
            if word in schema and "properties" not in schema:
                return " or ".join(dict.fromkeys(self._type(each) for each in schema[word]))
        if "const" in schema:
            return f"`{json.dumps(schema['const'])}`"
        if "enum" in schema:
            return " ".join(f"`{each}`" for each in schema["enum"])
        if schema.get("type") == "array":
            return f"list of {self._type(schema.get('items', {}))}"
        kind = schema.get("type", "any")
        return f"{kind} ({schema['format']})" if "format" in schema else str(kind)

    @staticmethod
    def _limits(schema: Mapping[str, Any]) -> str:
        words = {
            "minLength": "at least {} characters",
            "maxLength": "at most {} characters",
            "minItems": "at least {}",
            "maxItems": "at most {}",
            "minimum": "at least {}",
            "maximum": "at most {}",
            "default": "default {}",
        }
        limits = [
            text.format(json.dumps(schema[key])) for key, text in words.items() if key in schema
        ]
        return f" ({', '.join(limits)})" if limits else ""

    def _resolved(self, node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in node:
            return node
        found: Any = self._document
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        resolved: dict[str, Any] = found
        return resolved

    def _line(self, text: str) -> str:
        return " ".join(self._prose(text).split())


def _json(example: Any) -> str:
    return json.dumps(example, ensure_ascii=False, indent=2)
