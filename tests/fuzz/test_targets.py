"""The targets of `make fuzz` work: each meets its good samples and a few hundred bad ones."""

import os
import random
from collections.abc import Iterator

import pytest

from devstack.postgres import EmbeddedPostgres
from fuzz.choices import BytesRandom, mangled
from fuzz.everything import opened, parsers, target_names
from fuzz.ground import DATABASE_URL
from fuzz.oracle import Answer, judge
from fuzz.places import Place
from fuzz.requests import Made
from fuzz.routes import route_target
from fuzz.target import Find
from fuzz.wire import WIRE_NAMES, wire_target

NOT_PARSERS = [name for name in target_names() if name not in parsers()]


@pytest.mark.parametrize("name", parsers())
def test_a_parser_stands_bad_input(name: str) -> None:
    with opened(name) as target:
        for sample in (b"", *target.samples):
            target.check(sample)
        for number in range(150):
            target.play(random.Random(number))


@pytest.fixture(scope="module")
def place(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[Place]:
    """One for all routes: opening one takes some seconds."""
    os.environ[DATABASE_URL] = postgres.create_database("fuzz", template=migrated_template)
    opened_place = Place()
    yield opened_place
    opened_place.close()
    del os.environ[DATABASE_URL]
    postgres.drop_database("fuzz")


@pytest.mark.parametrize("name", NOT_PARSERS)
def test_a_route_stands_bad_input(name: str, place: Place) -> None:
    target = wire_target(name, place) if name in WIRE_NAMES else route_target(name, place)
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
