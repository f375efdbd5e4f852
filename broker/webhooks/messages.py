"""An event as it is sent: the body, and headers that prove it (Standard Webhooks 1.0.0)."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from broker.secret import Secret
from broker.settings import signing_key
from broker.webhooks.outbox import WebhookEvent


@dataclass(frozen=True, slots=True)
class Message:
    """What is posted, byte by byte."""

    headers: Mapping[str, str]
    body: bytes


class MessageSigner:
    """Signs with every key, so that a receiver may know the old one or the new one."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = tuple(secrets)

    def sign(self, event: WebhookEvent, *, attempted_at: datetime) -> Message:
        """The body is the same each time; timestamp and signature are the attempt's."""
        body = body_of(event)
        timestamp = str(int(attempted_at.timestamp()))
        # An id is a UUID: nobody can choose one with a full stop, and shift what is signed.
        signed = b".".join((str(event.id).encode(), timestamp.encode(), body))
        return Message(
            headers={
                "webhook-id": str(event.id),
                "webhook-timestamp": timestamp,
                "webhook-signature": " ".join(_signature(key, signed) for key in self._secrets),
                "content-type": "application/json",
            },
            body=body,
        )


def _signature(secret: Secret, signed: bytes) -> str:
    digest = hmac.digest(signing_key(secret), signed, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


def body_of(event: WebhookEvent) -> bytes:
    """What happened, and to which grant; neither a token nor an email."""
    data: dict[str, Any] = {
        "user_id": event.user_id,
        "account": {"sub": event.google_sub},
        "status": event.status,
        **({"reason": event.reason} if event.reason else {}),
        "scopes": list(event.scopes),
    }
    document = {"type": event.type, "timestamp": _exact(event.happened_at), "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _exact(moment: datetime) -> str:
    """With microseconds: two changes of a grant may be in one second."""
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(timespec="microseconds") + "Z"
