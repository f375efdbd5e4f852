"""Sealing: which ciphertexts open, which do not, and what they reveal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.crypto.keys import derive_key
from broker.crypto.sealing import Sealed, Sealer, UnsealingError, local_sealing_keys
from broker.secret import Secret

PLACE = ("grants", "refresh_token", "row-1")
OLD, NEW = Secret("old-key-" + "x" * 32), Secret("new-key-" + "y" * 32)


def sealer(*keys: Secret) -> Sealer:
    return Sealer(local_sealing_keys(keys))


@given(st.text())
def test_a_sealed_secret_opens_in_its_place(secret: str) -> None:
    box = sealer(NEW)
    sealed = box.seal(Secret(secret), place=PLACE)
    assert box.open(sealed, place=PLACE).reveal() == secret


@given(st.lists(st.text(), min_size=1), st.lists(st.text(), min_size=1))
def test_it_opens_in_no_other_place(place: list[str], other: list[str]) -> None:
    box = sealer(NEW)
    sealed = box.seal(Secret("1//refresh"), place=place)
    if place != other:
        with pytest.raises(UnsealingError):
            box.open(sealed, place=other)


def test_places_with_the_same_concatenation_differ() -> None:
    box = sealer(NEW)
    sealed = box.seal(Secret("token"), place=("ab", "c"))
    with pytest.raises(UnsealingError):
        box.open(sealed, place=("a", "bc"))


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_an_altered_ciphertext_does_not_open(position: int, change: int) -> None:
    box = sealer(NEW)
    sealed = box.seal(Secret("1//refresh"), place=PLACE)
    altered = bytearray(sealed.ciphertext)
    altered[position % len(altered)] ^= change
    with pytest.raises(UnsealingError):
        box.open(Sealed(sealed.key_id, bytes(altered)), place=PLACE)


@given(st.binary(max_size=40))
def test_arbitrary_bytes_raise_unsealing_error(ciphertext: bytes) -> None:
    box = sealer(NEW)
    with pytest.raises(UnsealingError):
        box.open(Sealed(box.current_key_id, ciphertext), place=PLACE)


def test_the_first_key_seals_and_all_open() -> None:
    before = sealer(OLD).seal(Secret("token"), place=PLACE)
    both = sealer(NEW, OLD)
    assert both.open(before, place=PLACE).reveal() == "token"
    assert both.seal(Secret("token"), place=PLACE).key_id == sealer(NEW).current_key_id


def test_a_secret_does_not_open_without_its_key() -> None:
    sealed = sealer(OLD).seal(Secret("token"), place=PLACE)
    with pytest.raises(UnsealingError):
        sealer(NEW).open(sealed, place=PLACE)


def test_a_ciphertext_with_another_key_id_does_not_open() -> None:
    sealed = sealer(OLD).seal(Secret("token"), place=PLACE)
    both = sealer(NEW, OLD)
    with pytest.raises(UnsealingError):
        both.open(Sealed(both.current_key_id, sealed.ciphertext), place=PLACE)


def test_sealing_twice_gives_different_ciphertexts() -> None:
    box = sealer(NEW)
    assert box.seal(Secret("token"), place=PLACE) != box.seal(Secret("token"), place=PLACE)


def test_the_key_id_does_not_reveal_the_secret_key() -> None:
    key = local_sealing_keys([OLD])[0]
    assert OLD.reveal() not in key.id
    assert OLD.reveal().encode().hex()[:16] not in key.id


def test_keys_of_different_purposes_differ() -> None:
    assert derive_key(OLD, "links") != derive_key(OLD, "state")


def test_a_sealer_needs_a_key() -> None:
    with pytest.raises(ValueError, match="no key"):
        Sealer([])
