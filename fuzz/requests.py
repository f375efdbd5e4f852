"""Generates requests as the HTTP server passes them on.

All of them are valid HTTP/1.1; `fuzz.http_protocol` fuzzes the protocol itself.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fuzz.choices import mangled

_METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "get", "*")
_MEDIA_TYPES = (
    b"application/json", b"application/x-www-form-urlencoded", b"application/secevent+jwt",
    b"multipart/form-data; boundary=x", b"text/plain", b"application/json; charset=utf-16", b"",
    b"application/problem+json", b"application/json;;;=", b"\xff/\xff",
)  # fmt: skip
_HEADERS = (
    (b"accept-language", (b"ko-KR,ko;q=0.9", b"*", b"en;q=0,ko;q=0.001", b"\xff")),
    (b"accept", (b"text/html", b"*/*;q=x", b"application/json", b"application/openmetrics-text")),
    (b"x-request-id", (b"abc-1", b"a b", b"\xe9", b"x" * 65, b"")),
    (b"origin", (b"null", b"http://127.0.0.1:8000", b"https://evil.example", b"\xff")),
    (b"sec-fetch-site", (b"same-origin", b"cross-site", b"none", b"")),
    (b"sec-fetch-dest", (b"document", b"image", b"iframe", b"empty")),
    (b"sec-fetch-mode", (b"navigate", b"cors", b"")),
    (b"sec-purpose", (b"prefetch", b"prefetch;prerender", b"other")),
    (b"user-agent", (b"Mozilla/5.0", b"Slackbot 1.0", b"\xff", b"")),
    (b"host", (b"127.0.0.1:8000", b"evil.example", b"[::1", b"")),
    (b"forwarded", (b"for=1.2.3.4;proto=https;host=evil.example", b'for="_\xff"')),
    (b"x-forwarded-for", (b"1.2.3.4, 5.6.7.8", b"\xff", b"")),
    (b"x-forwarded-host", (b"evil.example",)),
    (b"x-http-method-override", (b"DELETE",)),
    (b"content-length", (b"0", b"-1", b"9" * 20, b"abc", b"\xb2", b"65537")),
    (b"content-encoding", (b"gzip", b"br")),
    (b"expect", (b"100-continue",)),
    (b"if-none-match", (b"*", b'"abc"')),
    (b"range", (b"bytes=0-1",)),
    (b"cookie", (b"a=b; a=c", b"broker_browser=x.y", b'"\xff=;;', b"__Host-broker_browser=a.b")),
)
_HIDDEN = bytes.maketrans(b"\r\n\x00", b"   ")
"""Characters that no parser accepts in a header value."""


@dataclass
class Made:
    """A request."""

    method: str
    path: bytes
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: Sequence[bytes] = (b"",)

    def __str__(self) -> str:
        lines = [f"{self.method} {self.path!r} ? {self.query!r}"]
        lines += [f"  {name!r}: {value!r}" for name, value in self.headers]
        return "\n".join([*lines, f"  {self.body!r}"])[:6000]


@dataclass(frozen=True)
class Shape:
    """The template of a route's requests."""

    name: str
    listener: str
    method: str
    path: str
    """With `{parameters}`."""
    path_parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    body: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    media_type: bytes = b"application/json"
    raw_bodies: Sequence[bytes] = ()
    """Valid bodies to mutate."""
    authorizations: Sequence[bytes] = ()
    cookies: Sequence[bytes] = ()


def make(rng: random.Random, shape: Shape) -> Made:
    """Return a request to this route with any number of faults."""
    made = Made(
        method=shape.method if rng.randrange(10) else rng.choice(_METHODS),
        path=_path(rng, shape),
        query=_query(rng, shape.query),
    )
    if shape.authorizations and rng.randrange(12):
        made.headers.append((b"authorization", _value(rng, shape.authorizations)))
    if shape.cookies and rng.randrange(4):
        made.headers.append((b"cookie", _value(rng, shape.cookies)))
    _add_body(rng, shape, made)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        name, values = rng.choice(_HEADERS)
        made.headers.append((name, _value(rng, values)))
    if rng.randrange(30) == 0:
        made.headers = [*made.headers, *made.headers]
    return made


def _value(rng: random.Random, values: Sequence[bytes]) -> bytes:
    """Return a header value, usually the sample itself."""
    value = rng.choice(values) if rng.randrange(4) else mangled(rng, values)
    return value.translate(_HIDDEN).strip()


def _path(rng: random.Random, shape: Shape) -> bytes:
    path = shape.path
    for name, samples in shape.path_parameters.items():
        good = quote(rng.choice(samples), safe="").encode()
        text = good if rng.randrange(3) else quote(mangled(rng, [good]), safe="%").encode()
        path = path.replace(f"{{{name}}}", text.decode())
    raw = path.encode()
    if rng.randrange(15) == 0:
        raw = mangled(rng, [raw])
    # As `Listener` gets it: printable ASCII that begins with a slash, without the query.
    return b"/" + bytes(b for b in raw if 0x21 <= b <= 0x7E and b not in b"?#").lstrip(b"/")


def _query(rng: random.Random, samples: Mapping[str, Sequence[str]]) -> bytes:
    pairs = []
    for name, values in samples.items():
        if rng.randrange(3):
            value = rng.choice(values).encode()
            value = value if rng.randrange(3) else mangled(rng, [value])
            pairs.append(f"{name}={quote(value)}".encode())
    query = b"&".join(pairs)
    if rng.randrange(8) == 0:
        query = mangled(rng, [query, b"a=b", b"link=x", b"%ff=%00"])
    return bytes(b for b in query if b > 0x20 and b not in b"#\x7f")


def _add_body(rng: random.Random, shape: Shape, made: Made) -> None:
    if not (shape.body or shape.raw_bodies) and rng.randrange(10):
        return
    is_form = b"form" in shape.media_type
    if shape.raw_bodies and rng.randrange(3):
        body = mangled(rng, shape.raw_bodies)
    elif is_form:
        body = _query(rng, {name: list(map(str, values)) for name, values in shape.body.items()})
    else:
        body = _json(rng, shape.body)
    if rng.randrange(6) == 0:
        body = mangled(rng, [body])
    if rng.randrange(400) == 0:
        body += b" " * 1_100_000
    media_type = shape.media_type if rng.randrange(10) else _value(rng, _MEDIA_TYPES)
    made.headers.append((b"content-type", media_type))
    if rng.randrange(4):
        made.headers.append((b"content-length", b"%d" % len(body)))
    at = rng.randint(0, len(body)) if rng.randrange(5) == 0 else len(body)
    made.body = (body[:at], body[at:])


def _json(rng: random.Random, members: Mapping[str, Sequence[Any]]) -> bytes:
    document: Any = {
        name: rng.choice(values) if rng.randrange(4) else odd(rng)
        for name, values in members.items()
        if rng.randrange(3)
    }
    if rng.randrange(10) == 0:
        document[rng.choice(("extra", "a\ud800", "", "é" * 40))] = odd(rng)
    if rng.randrange(20) == 0:
        document = odd(rng)
    return json.dumps(document, ensure_ascii=bool(rng.randrange(2))).encode("utf-8", "replace")


_ODD: Sequence[Any] = (
    None, True, False, 0, -1, 2**70, 1.5, 1e308, float("nan"), "", "\x00", "\ud800", "é" * 300,
    [], {}, [[]], {"a": [1, {"b": None}]}, ["openid", 5], "%s%s{0}", "a" * 5000, "\u202eabc", [""],
)  # fmt: skip


def odd(rng: random.Random) -> Any:
    """Return an arbitrary JSON value."""
    return rng.choice(_ODD)
