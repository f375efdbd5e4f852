"""Messages match `openapi.yaml` and the callers' guide, whose example works."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jsonschema
import pytest

from broker.secret import Secret
from broker.webhooks.outbox import WebhookEvent
from broker.webhooks.signing import MessageSigner
from tests.docs.documents import blocks, rows, section, text_of, ticked
from tests.openapi.description import DOCUMENT
from tests.webhooks.conftest import SECRET

OPERATION = DOCUMENT["webhooks"]["grant"]["post"]
EVENT = DOCUMENT["components"]["schemas"]["GrantEvent"]
TYPES = EVENT["properties"]["type"]["enum"]
PAGE = text_of("docs/how-to/receive-webhooks.md")
GUIDE = section(PAGE, "## Events")


def check(event: dict[str, Any]) -> None:
    """Fail unless it matches the schema, without further members."""
    schema = {**EVENT, "components": DOCUMENT["components"]}
    jsonschema.validate(event, schema, cls=jsonschema.Draft202012Validator)
    assert set(event) == set(EVENT["properties"])
    assert set(event["data"]) <= set(EVENT["properties"]["data"]["properties"])


def event_of(kind: str) -> WebhookEvent:
    is_broken = kind == "grant.reauthorization_required"
    status = {"grant.revoked": "revoked", "grant.reauthorization_required": kind[6:]}
    return WebhookEvent(
        id=uuid4(),
        type=kind,
        user_id="42",
        google_sub="110",
        scopes=("openid",),
        status=status.get(kind, "active"),
        reason="invalid_grant" if is_broken else None,
        happened_at=datetime.now(UTC),
        attempts=1,
    )


@pytest.mark.parametrize("kind", TYPES)
def test_each_message_matches_its_schema(kind: str) -> None:
    message = MessageSigner([Secret(SECRET)]).sign(event_of(kind), attempted_at=datetime.now(UTC))
    check(json.loads(message.body))
    described = {parameter["name"]: parameter["schema"] for parameter in OPERATION["parameters"]}
    assert set(message.headers) == {*described, "content-type"}
    for name, schema in described.items():
        jsonschema.validate(message.headers[name], schema)


@pytest.mark.parametrize("example", [*EVENT["examples"], json.loads(blocks(GUIDE, "json")[0])])
def test_the_examples_match_the_schema(example: dict[str, Any]) -> None:
    check(example)


def test_the_guide_lists_every_type() -> None:
    assert [ticked(row[0])[0] for row in rows(GUIDE)] == TYPES


def test_the_python_example_receives_each_event_once() -> None:
    (shown,) = blocks(PAGE, "py")
    seen: set[str] = set()
    queue: list[Any] = []

    def seen_before(name: str) -> bool:
        is_known = name in seen
        seen.add(name)
        return is_known

    names: dict[str, Any] = {
        "WEBHOOK_SECRET": SECRET,
        "seen_before": seen_before,
        "enqueue": queue.append,
    }
    exec(shown, names)
    message = MessageSigner([Secret(SECRET)]).sign(
        event_of("grant.revoked"), attempted_at=datetime.now(UTC)
    )
    for _ in range(2):
        names["receive"](message.body, dict(message.headers))
    assert [event["type"] for event in queue] == ["grant.revoked"]
