"""Finds secrets, in any encoding, in the files and texts that a broker leaves behind."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_RUNS = re.compile(rb"[A-Za-z0-9+/_=%.@~:$-]{12,}")
"""The characters of a secret, plain or encoded; the rest of a binary file can't contain one."""

_SHORTEST = 12
"""Characters; shorter texts are found by chance."""

_VERIFIER = re.compile(rb"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")


@dataclass(frozen=True)
class Leak:
    """The kind, place and encoding of a secret that was found; never the secret itself."""

    kind: str
    place: str
    encoding: str


def find_leaks(secrets: Mapping[str, Iterable[str]], places: Mapping[str, bytes]) -> list[Leak]:
    """Find every secret, by kind, in every place. A place may be a whole file."""
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
    """Find the places with a PKCE verifier of which only the fingerprint is known.

    The fingerprints are from the stand-in's request log.
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
    """Yield the encodings of a secret that might look harmless."""
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
        # The characters at the edges depend on the neighbours.
        core = encoded[4 if offset else 0 : len(encoded) // 4 * 4 - 4]
        yield "base64", core
        if core.translate(None, b"+/") != core:
            yield "base64url", core.replace(b"+", b"-").replace(b"/", b"_")


def files_below(folder: Path) -> bytes:
    """Return each run of characters of a secret in the files of a folder, once, in lines."""
    return b"\n".join(
        {
            run
            for path in folder.rglob("*")
            if path.is_file()
            for run in _RUNS.findall(path.read_bytes())
        }
    )
