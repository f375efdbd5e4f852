"""Turns bytes into choices, so that one generator of requests serves every engine.

Each generator takes a `random.Random`: a seeded one, Hypothesis's own, which it can shrink, or
`BytesRandom`, whose choices are the input of a coverage-guided fuzzer.
"""

import random
from collections.abc import Sequence

_NASTY = (
    b"\x00", b"\n", b"\r\n", b"%", b"%0", b"%00", b"%ff", b"%ed%a0%80", b"%2f", b"%25", b"..", b"/",
    b"//", b"?", b"&", b"=", b";", b",", b".", b" ", b"+", b"'", b'"', b"<b>", b"{{1}}", b"{0}",
    b"\xc3\xa9", b"\xff", b"\xed\xa0\x80", b"\xe2\x80\xae", b"\xef\xbb\xbf", b"[", b"]", b"{", b"}",
    b"null", b"true", b"-1", b"1e400", b"NaN", b"0", b"9" * 30, b"9" * 5000, b"\\u0000", b"\\ud800",
    b"[" * 2000, b"a" * 300, b"A", b"-", b"_", b"~", b"*", b"&a", b"*a", b"!!", b"<<", b"\t", b":",
)  # fmt: skip


class BytesRandom(random.Random):
    """Takes its choices from bytes; after the last byte every choice is the first option."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0

    def getrandbits(self, k: int, /) -> int:
        """Return `k` bits of the remaining input."""
        size = (k + 7) // 8
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "little") & ((1 << k) - 1)

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return self.getrandbits(16) / 65536


def mangled(rng: random.Random, samples: Sequence[bytes]) -> bytes:
    """Return a mutated sample, two samples spliced together, or unrelated text."""
    text = rng.choice(samples) if samples else b""
    kind = rng.randrange(8)
    if kind == 0:
        return text
    if kind == 1:
        return bytes(rng.getrandbits(8) for _ in range(rng.randrange(24)))
    if kind == 2 and samples:
        other = rng.choice(samples)
        return text[: rng.randint(0, len(text))] + other[rng.randint(0, len(other)) :]
    for _ in range(rng.randint(1, 3)):
        text = _slipped(rng, text)
    return text


def _slipped(rng: random.Random, text: bytes) -> bytes:
    at = rng.randint(0, len(text))
    match rng.randrange(6):
        case 0:
            return text[:at] + rng.choice(_NASTY) + text[at:]
        case 1:
            return text[:at] + text[at + rng.randint(1, 8) :]
        case 2:
            return text[:at] + bytes([rng.getrandbits(8)]) + text[at + 1 :]
        case 3:
            end = min(len(text), at + rng.randint(1, 40))
            return text[:end] + text[at:]
        case 4:
            return text[:at]
        case _:
            return text[:at] + rng.choice(_NASTY) + text[at + rng.randint(0, 4) :]
