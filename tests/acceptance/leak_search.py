"""Finds secrets in whatever a broker leaves behind, however they may be written down."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_RUNS = re.compile(rb"[A-Za-z0-9+/_=%.@~:$-]{12,}")
"""What a secret, plain or encoded, consists of; the rest of a binary file can't hold one."""

_SHORTEST = 12
"""Characters; what is shorter is found anywhere by chance."""

_VERIFIER = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")


@dataclass(frozen=True)
class Leak:
    """Which kind of secret stands where, and written how; never the secret itself."""

    kind: str
    place: str
    encoding: str


def find_leaks(secrets: Mapping[str, Iterable[str]], places: Mapping[str, bytes]) -> list[Leak]:
    """Every secret, by kind, in every place. Whole files may be given as they are."""
    needles = {
        value: [one for one in encodings(value) if len(one[1]) >= _SHORTEST]
        for values in secrets.values()
        for value in values
    }
    return sorted(
        {
            Leak(kind, place, encoding)
            for place, content in places.items()
            for kind, values in secrets.items()
            for value in values
            for encoding, needle in needles[value]
            if needle in content
        },
        key=str,
    )


def find_fingerprinted(fingerprints: Iterable[str], places: Mapping[str, bytes]) -> list[str]:
    """Places with a PKCE verifier, or the like, of which only the stand-in's fingerprint is known.

    A `fingerprint` is that of the stand-in's request log.
    """
    known = set(fingerprints)
    return [
        place
        for place, content in places.items()
        if any(_fingerprint(found) in known for found in _VERIFIER.findall(content))
    ]


def _fingerprint(value: bytes) -> str:
    return "sha256:" + hashlib.sha256(value).hexdigest()[:16]


def encodings(secret: str) -> Iterator[tuple[str, bytes]]:
    """The ways to write a secret down that one might think harmless."""
    plain = secret.encode()
    yield "plain", plain
    yield "reversed", plain[::-1]
    yield "hex", plain.hex().encode()
    yield "upper-case hex", plain.hex().upper().encode()
    once = quote(secret, safe="")
    if once != secret:
        yield "url-encoded", once.encode()
        yield "url-encoded twice", quote(once, safe="").encode()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + plain)
        # What stands at the edges depends on the neighbours.
        core = encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
        yield "base64", core
        if core.translate(None, b"+/") != core:
            yield "base64url", core.replace(b"+", b"-").replace(b"/", b"_")


def files_below(folder: Path) -> bytes:
    """All that might be a secret in the files of a folder, each run of letters on a line."""
    return b"\n".join(
        run
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for run in _RUNS.findall(path.read_bytes())
    )
