"""Whom the product's webhooks go to, and the keys that sign them (Standard Webhooks 1.0.0)."""

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import urlsplit

from broker.secret import Secret
from broker.settings.reader import Reader
from broker.settings.urls import is_secure_url

_PREFIX = "whsec_"
_KEY_BYTES = range(24, 64 + 1)


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """An address of the product's, and one key or, during a rotation, several."""

    url: str
    secrets: tuple[Secret, ...]
    """`whsec_…`, each well-formed; all of them sign."""


def read_webhook_receiver(reader: Reader) -> WebhookReceiver | None:
    """What `BROKER_WEBHOOK_URL` and `BROKER_WEBHOOK_SECRET` say; both are set, or neither."""
    url = reader.text("BROKER_WEBHOOK_URL")
    has_secret = reader.text("BROKER_WEBHOOK_SECRET") or reader.text("BROKER_WEBHOOK_SECRET_FILE")
    if not url and not has_secret:
        return None
    if not url:
        reader.problem(
            "BROKER_WEBHOOK_URL is missing: where webhooks go, or unset BROKER_WEBHOOK_SECRET"
        )
    else:
        _check_url(reader, url)
    secret = reader.secret_now(
        "BROKER_WEBHOOK_SECRET", '`echo "whsec_$(openssl rand -base64 32)"`, for the receiver, too'
    )
    secrets = tuple(Secret(key.strip()) for key in secret.reveal().split(",") if key.strip())
    if secret and not secrets:
        reader.problem("BROKER_WEBHOOK_SECRET holds no key")
    for number, key in enumerate(secrets, start=1):
        if _key_bytes(key) is None:
            reader.problem(
                f"BROKER_WEBHOOK_SECRET: key {number} of {len(secrets)} is not whsec_ and the "
                "base64 of 24 to 64 random bytes"
            )
    return WebhookReceiver(url, secrets)


def signing_key(secret: Secret) -> bytes:
    """The bytes that sign. Raises `ValueError` for a secret that settings would refuse."""
    key = _key_bytes(secret)
    if key is None:
        raise ValueError("not a webhook secret")
    return key


def _check_url(reader: Reader, url: str) -> None:
    if not is_secure_url(url) or not url.isascii() or not url.isprintable() or " " in url:
        reader.problem(
            "BROKER_WEBHOOK_URL must be an https address (plain http only on a loopback host)"
        )
        return
    parts = urlsplit(url)
    if parts.fragment or parts.username is not None:
        reader.problem("BROKER_WEBHOOK_URL must have no fragment or user name")


def _key_bytes(secret: Secret) -> bytes | None:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if text.startswith(_PREFIX) and len(key) in _KEY_BYTES else None
