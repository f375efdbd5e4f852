"""The targets of `make fuzz` work: each meets its good samples and a few hundred bad ones."""

import random

import pytest

from broker.devstack.postgres import EmbeddedPostgres
from fuzz.choices import BytesRandom, mangled
from fuzz.everything import opened, parsers, target_names
from fuzz.ground import DATABASE_URL
from fuzz.oracle import Answer, judge
from fuzz.requests import Made
from fuzz.target import Find

NOT_PARSERS = [name for name in target_names() if name not in parsers()]


@pytest.mark.parametrize("name", parsers())
def test_a_parser_stands_bad_input(name: str) -> None:
    with opened(name) as target:
        for sample in (b"", *target.samples):
            target.check(sample)
        for number in range(150):
            target.play(random.Random(number))


@pytest.mark.parametrize("name", NOT_PARSERS)
def test_a_route_stands_bad_input(
    name: str, database_url: str, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DATABASE_URL, database_url)
    with opened(name) as target:
        target.check(b"")
        for number in range(40):
            target.play(random.Random(number))


def test_choices_from_bytes_are_the_same_again() -> None:
    data = random.Random(1).randbytes(200)
    samples = [b"abc", b"defghi"]
    made = [mangled(BytesRandom(data), samples) for _ in range(2)]
    assert made[0] == made[1]
    assert mangled(BytesRandom(b""), samples) == b"abc"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(500, {"x-request-id": "a", "cache-control": "no-store"}, b"{}"),
        Answer(400, {"x-request-id": "a", "cache-control": "no-store"}, b"Bad Request"),
        Answer(200, {"x-request-id": "a"}, b"{}"),
        Answer(200, {"cache-control": "no-store"}, b"{}"),
    ],
)
def test_what_should_not_be_answered_is_found(answer: Answer) -> None:
    with pytest.raises(Find):
        judge("internal", Made("GET", b"/v1/users/user-1/grants"), answer)
