"""The keys that seal the audit trail, made from `SECRET_KEY`; they open nothing."""

from collections.abc import Sequence

from broker.audit.batch_macs import SealKey, SealKeys
from broker.crypto.keys import derive_key
from broker.secret import Secret


def audit_keys(secret_keys: Sequence[Secret]) -> SealKeys:
    """One from each `SECRET_KEY`, in their order; the ids reveal nothing."""
    return SealKeys(
        [
            SealKey(
                id="audit:" + derive_key(secret_key, "audit seal key id")[:8].hex(),
                key=derive_key(secret_key, "audit seals"),
            )
            for secret_key in secret_keys
        ]
    )
