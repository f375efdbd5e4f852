"""Webhook messages: the JSON body, and headers that authenticate it (Standard Webhooks 1.0.0)."""

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
class SignedMessage:
    """The exact bytes to post."""

    headers: Mapping[str, str]
    body: bytes


class MessageSigner:
    """Signs with every key, so that receivers can rotate from an old key to a new one."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = tuple(secrets)

    def sign(self, event: WebhookEvent, *, attempted_at: datetime) -> SignedMessage:
        """Return one attempt's message. Attempts share the body, but not time and signature."""
        body = body_of(event)
        timestamp = str(int(attempted_at.timestamp()))
        # The id is a UUID: it can't contain a full stop, which would shift what is signed.
        signed = b".".join((str(event.id).encode(), timestamp.encode(), body))
        return SignedMessage(
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
    """Return the JSON body: the change and its grant, without tokens and without the email."""
    data: dict[str, Any] = {
        "user_id": event.user_id,
        "account": {"sub": event.google_sub},
        "status": event.status,
        **({"reason": event.reason} if event.reason else {}),
        "scopes": list(event.scopes),
    }
    document = {"type": event.type, "timestamp": _timestamp(event.happened_at), "data": data}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _timestamp(moment: datetime) -> str:
    """RFC 3339 with microseconds: a grant may change twice in one second."""
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(timespec="microseconds") + "Z"
