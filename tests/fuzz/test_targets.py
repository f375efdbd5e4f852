"""The targets of `make fuzz`: each gets its valid samples and a few hundred bad inputs."""

import os
import random
from collections.abc import Iterator

import pytest

from devstack.postgres import EmbeddedPostgres
from fuzz.all_targets import opened, parsers, target_names
from fuzz.choices import BytesRandom, mangled
from fuzz.fuzzed_broker import FuzzedBroker
from fuzz.http_protocol import WIRE_NAMES, wire_target
from fuzz.oracle import Answer, judge
from fuzz.postgres import DATABASE_URL
from fuzz.requests import Made
from fuzz.routes import route_target
from fuzz.target import Find

NOT_PARSERS = [name for name in target_names() if name not in parsers()]


@pytest.mark.parametrize("name", parsers())
def test_a_parser_withstands_bad_input(name: str) -> None:
    with opened(name) as target:
        for sample in (b"", *target.samples):
            target.check(sample)
        for number in range(150):
            target.play(random.Random(number))


@pytest.fixture(scope="module")
def broker(postgres: EmbeddedPostgres, migrated_template: str) -> Iterator[FuzzedBroker]:
    """One broker for all routes: it takes some seconds to start."""
    os.environ[DATABASE_URL] = postgres.create_database("fuzz", template=migrated_template)
    opened = FuzzedBroker()
    yield opened
    opened.close()
    del os.environ[DATABASE_URL]
    postgres.drop_database("fuzz")


@pytest.mark.parametrize("name", NOT_PARSERS)
def test_a_route_withstands_bad_input(name: str, broker: FuzzedBroker) -> None:
    target = wire_target(name, broker) if name in WIRE_NAMES else route_target(name, broker)
    target.check(b"")
    for number in range(40):
        target.play(random.Random(number))


def test_choices_from_bytes_are_deterministic() -> None:
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
def test_the_oracle_finds_an_invalid_response(answer: Answer) -> None:
    with pytest.raises(Find):
        judge("internal", Made("GET", b"/v1/users/user-1/grants"), answer)
