"""All targets by name; a broker is started only for targets that need one."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from fuzz.files import file_targets
from fuzz.fuzzed_broker import FuzzedBroker
from fuzz.http_protocol import WIRE_NAMES, wire_target
from fuzz.parsers import parser_targets
from fuzz.routes import ROUTE_NAMES, route_target
from fuzz.signed_tokens import signed_targets
from fuzz.target import Target


@cache
def parsers() -> dict[str, Target]:
    """Return the targets that need only their input; made once, since some have keys."""
    made = (*parser_targets(), *file_targets(), *signed_targets())
    return {target.name: target for target in made}


def target_names() -> list[str]:
    """Return all names, parsers first."""
    return [*parsers(), *WIRE_NAMES, *ROUTE_NAMES]


@contextmanager
def opened(name: str) -> Iterator[Target]:
    """Yield the target of this name."""
    known = parsers()
    if name in known:
        yield known[name]
        return
    broker = FuzzedBroker()
    try:
        yield wire_target(name, broker) if name in WIRE_NAMES else route_target(name, broker)
    finally:
        broker.close()
