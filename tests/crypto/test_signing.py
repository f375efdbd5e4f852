"""Signatures verify for one purpose and one binding, with any configured key."""

import pytest

from broker.crypto.signing import Signer
from broker.secret import Secret
from tests.consent.harness import SECRET_KEY

_NEWER = Secret("a newer secret key for tests, 32 bytes or more")


def test_a_signed_value_verifies() -> None:
    signer = Signer([SECRET_KEY], "links")
    assert signer.verify(signer.sign("value", bound_to=("alice",)), bound_to=("alice",)) == "value"


def test_a_value_may_contain_dots() -> None:
    signer = Signer([SECRET_KEY], "links")
    assert signer.verify(signer.sign("a.b.c")) == "a.b.c"


@pytest.mark.parametrize("bound_to", [(), ("bob",), ("alice", ""), ("al", "ice")])
def test_it_does_not_verify_with_another_binding(bound_to: tuple[str, ...]) -> None:
    signer = Signer([SECRET_KEY], "links")
    assert signer.verify(signer.sign("value", bound_to=("alice",)), bound_to=bound_to) is None


def test_value_and_binding_with_the_same_concatenation_differ() -> None:
    signer = Signer([SECRET_KEY], "links")
    signature = signer.sign("a", bound_to=("bc",)).rpartition(".")[2]
    assert signer.verify(f"ab.{signature}", bound_to=("c",)) is None


def test_it_does_not_verify_for_another_purpose() -> None:
    assert Signer([SECRET_KEY], "state").verify(Signer([SECRET_KEY], "links").sign("x")) is None


def test_the_first_key_signs_and_all_verify() -> None:
    old, both = Signer([SECRET_KEY], "links"), Signer([_NEWER, SECRET_KEY], "links")
    new = Signer([_NEWER], "links")
    assert both.verify(old.sign("x")) == "x"
    assert new.verify(both.sign("x")) == "x"
    assert old.verify(both.sign("x")) is None


@pytest.mark.parametrize("text", ["", ".", "value", "value.", ".sig", "välue.ß", "value.\ud800"])
def test_garbage_does_not_verify(text: str) -> None:
    assert Signer([SECRET_KEY], "links").verify(text) is None


def test_a_signer_needs_a_key() -> None:
    with pytest.raises(ValueError, match="no key"):
        Signer([], "links")
