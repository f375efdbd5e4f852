"""Request ids, which responses, logs and audit records share."""

import pytest

from broker.web.request_ids import RequestIds


def _id_for(*values: bytes) -> str:
    return RequestIds().of([(b"x-request-id", value) for value in values])


@pytest.mark.parametrize("value", [b"a", b"0af7651916cd43dd-8448.eb_2", b"x" * 64])
def test_a_harmless_id_of_the_caller_is_kept(value: bytes) -> None:
    assert _id_for(value) == value.decode()


@pytest.mark.parametrize(
    "value", [b"", b"x" * 65, b"a b", b"a\n", b'a"b', b"<a>", b"\xe9", b"a/b", b"a%0d%0a"]
)
def test_any_other_id_is_replaced(value: bytes) -> None:
    assert _id_for(value) not in ("", value.decode("latin-1"))


def test_the_first_of_several_ids_counts() -> None:
    assert _id_for(b"good", b"other") == "good"
    assert _id_for(b"a b", b"other") != "other"


def test_other_headers_are_ignored() -> None:
    assert RequestIds().of([(b"x-other", b"good")]) != "good"


def test_new_ids_are_unique() -> None:
    ids, others = RequestIds(), RequestIds()
    new = [ids.of([]) for _ in range(1000)] + [others.of([]) for _ in range(1000)]
    assert len(set(new)) == 2000


def test_a_new_id_would_be_kept_by_another_broker() -> None:
    new = RequestIds().of([])
    assert _id_for(new.encode()) == new
