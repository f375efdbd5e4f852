"""The MACs of audit batches and checkpoints, without a database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.audit.batch_macs import (
    INITIAL_MAC,
    AuditKeys,
    BatchContents,
    ChainHead,
    Checkpoint,
    audit_keys,
)
from broker.secret import Secret

OLD, NEW = Secret("an old key, which is long enough"), Secret("a new key, which is long enough!")
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONTENTS = BatchContents(7, 3, AT, AT + timedelta(seconds=1), b"digest")


def _checkpoint(keys: AuditKeys, *, unverified: int = 0) -> Checkpoint:
    return keys.checkpoint(
        number=5,
        last_mac=bytes(32),
        began_at=AT,
        until=AT + timedelta(days=1),
        records=10,
        faults=0,
        unverified=unverified,
    )


def test_each_batch_continues_the_head_before_it() -> None:
    keys = audit_keys([NEW])
    first = keys.sign(CONTENTS, ChainHead(0, INITIAL_MAC))
    second = keys.sign(CONTENTS, ChainHead(first.number, first.mac))
    assert (first.number, first.previous_mac) == (1, INITIAL_MAC)
    assert (second.number, second.previous_mac) == (2, first.mac)
    assert first.mac != second.mac


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 2},
        {"previous_mac": b"\1" * 32},
        {"mac": bytes(32)},
        {"contents": replace(CONTENTS, batch_id=8)},
        {"contents": replace(CONTENTS, records=2)},
        {"contents": replace(CONTENTS, digest=b"other")},
        {"contents": replace(CONTENTS, first_at=AT - timedelta(microseconds=1))},
        {"contents": replace(CONTENTS, last_at=AT)},
    ],
)
def test_a_changed_batch_is_not_genuine(changes: dict[str, object]) -> None:
    keys = audit_keys([NEW])
    signed = keys.sign(CONTENTS, ChainHead(0, INITIAL_MAC))
    assert keys.is_genuine(signed)
    assert not keys.is_genuine(replace(signed, **changes))  # type: ignore[arg-type]


def test_the_first_key_signs_and_each_key_verifies() -> None:
    old, both, new = audit_keys([OLD]), audit_keys([NEW, OLD]), audit_keys([NEW])
    signed = old.sign(CONTENTS, ChainHead(0, INITIAL_MAC))
    assert both.is_genuine(signed)
    assert both.has_key_of(signed)
    assert not new.is_genuine(signed)
    assert not new.has_key_of(signed)
    assert new.is_genuine(both.sign(CONTENTS, ChainHead(0, INITIAL_MAC)))


def test_a_checkpoint_that_is_signed_again_needs_the_old_key_no_more() -> None:
    checkpoint = audit_keys([NEW, OLD]).sign_again(_checkpoint(audit_keys([OLD])))
    assert audit_keys([NEW]).is_genuine(checkpoint)


def test_the_mac_of_a_checkpoint_covers_its_unverified_batches() -> None:
    keys = audit_keys([NEW])
    checkpoint = _checkpoint(keys, unverified=4)
    assert keys.is_genuine(checkpoint)
    assert not keys.is_genuine(replace(checkpoint, unverified=0))


def test_key_ids_do_not_contain_the_secret() -> None:
    keys = audit_keys([NEW])
    assert keys.current.id.startswith("audit:")
    assert NEW.reveal() not in keys.current.id


def test_a_trail_needs_a_key() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        AuditKeys([])
