"""Only `reveal()` shows the value of a `Secret`."""

import copy
import dataclasses
import io
import json
import logging
import pickle
import pprint
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.secret import Secret
from broker.telemetry.logs import JsonFormatter

VALUE = "hunter2-hunter2"
SECRET = Secret(VALUE)


@dataclasses.dataclass
class Holder:
    """A dataclass with a secret."""

    secret: Secret


def test_reveal_returns_the_value() -> None:
    assert SECRET.reveal() == VALUE


SHOWN = {
    "str": str(SECRET),
    "repr": repr(SECRET),
    "f-string": f"{SECRET}",
    "f-string with a width": f"{SECRET:>40}",
    "f-string with repr": f"{SECRET!r}",
    "f-string with =": f"{SECRET=}",
    "format": "{:s}".format(SECRET),  # noqa: UP032  (under test)
    "percent s": "%s" % SECRET,  # noqa: UP031  (under test)
    "percent r": "%r" % SECRET,  # noqa: UP031  (under test)
    "join of reprs": ",".join(map(repr, [SECRET])),
    "list": str([SECRET]),
    "dict": str({"key": SECRET}),
    "dict key": str({SECRET: 1}),
    "dataclass": repr(Holder(SECRET)),
    "pprint": pprint.pformat(Holder(SECRET)),
    "ascii": ascii(SECRET),
}


@pytest.mark.parametrize("shown", SHOWN.values(), ids=SHOWN)
def test_every_representation_is_masked(shown: str) -> None:
    assert "hunter2" not in shown
    assert "***" in shown


def test_a_log_line_masks_it_in_message_and_fields() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.Logger("broker.test")  # noqa: LOG001  (without propagation)
    logger.addHandler(handler)
    logger.warning("a %s b %r", SECRET, Holder(SECRET), extra={"key": SECRET, "all": [SECRET]})
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("***") == 4


def test_json_cannot_serialise_it() -> None:
    with pytest.raises(TypeError):
        json.dumps({"secret": SECRET})
    assert "hunter2" not in json.dumps({"secret": SECRET}, default=str)


def test_a_traceback_with_locals_masks_it() -> None:
    def fail(secret: Secret) -> None:
        raise RuntimeError("broken")

    try:
        fail(SECRET)
    except RuntimeError as error:
        lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    text = "".join(lines)
    assert "secret = Secret(***)" in text
    assert "hunter2" not in text.replace(f"VALUE = {VALUE!r}", "")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_raises(protocol: int) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(SECRET, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, dataclasses.asdict])
def test_copying_raises(duplicate: object) -> None:
    assert callable(duplicate)
    with pytest.raises(TypeError):
        duplicate(Holder(SECRET) if duplicate is dataclasses.asdict else SECRET)


def test_it_has_no_dict() -> None:
    assert not hasattr(SECRET, "__dict__")


def test_it_is_not_a_string() -> None:
    assert SECRET != VALUE
    assert not issubclass(Secret, str)
    with pytest.raises(TypeError):
        "" + SECRET  # type: ignore[operator]


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert SECRET


@given(st.text(), st.text())
def test_equal_values_compare_equal_and_hash_alike(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) == (one == other)
    assert hash(Secret(one)) == hash(Secret(one))
