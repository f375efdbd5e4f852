"""The id that callers, logs and audit records share."""

import pytest

from broker.web.request_ids import RequestIds


def _id_for(*values: bytes) -> str:
    return RequestIds().of([(b"x-request-id", value) for value in values])


@pytest.mark.parametrize("value", [b"a", b"0af7651916cd43dd-8448.eb_2", b"x" * 64])
def test_a_harmless_id_of_the_callers_is_kept(value: bytes) -> None:
    assert _id_for(value) == value.decode()


@pytest.mark.parametrize(
    "value", [b"", b"x" * 65, b"a b", b"a\n", b'a"b', b"<a>", b"\xe9", b"a/b", b"a%0d%0a"]
)
def test_any_other_is_replaced(value: bytes) -> None:
    assert _id_for(value) not in ("", value.decode("latin-1"))


def test_of_several_the_first_one_counts() -> None:
    assert _id_for(b"good", b"other") == "good"
    assert _id_for(b"a b", b"other") != "other"


def test_only_the_header_of_that_name_counts() -> None:
    assert RequestIds().of([(b"x-other", b"good")]) != "good"


def test_made_ids_are_unique() -> None:
    ids, others = RequestIds(), RequestIds()
    made = [ids.of([]) for _ in range(1000)] + [others.of([]) for _ in range(1000)]
    assert len(set(made)) == 2000


def test_a_made_id_would_be_kept_by_the_next_broker() -> None:
    made = RequestIds().of([])
    assert _id_for(made.encode()) == made
