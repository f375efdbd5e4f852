"""Workloads' JWTs on a whole broker: known the second time, and forgotten when they must be."""

from datetime import timedelta
from typing import Any

from broker.callers.model import Caller
from broker.callers.verified import VerifiedJwts
from broker.issuers.issuer_keys import KEYS_AGE, UNKNOWN_KEY_LOOKS
from broker.issuers.key_set import VerificationKey, read_keys
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer
from tests.support.waiting import eventually
from tests.support.workloads import WORKLOAD, Trusting


async def test_the_second_time_neither_issuer_nor_signature_is_needed(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 200
    trusting.issuer.break_down()
    trusting.issuer.keys = []
    asked = list(trusting.issuer.requests)
    for _ in range(5):
        assert await trusting.status_for(token) == 200
    assert trusting.issuer.requests == asked


async def test_a_remembered_jwt_ends_with_its_expiry(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 200
    trusting.world.clock.advance(timedelta(seconds=599))
    assert await trusting.status_for(token) == 200
    trusting.world.clock.advance(timedelta(seconds=1))
    assert await trusting.status_for(token) == 401


async def test_a_remembered_jwt_ends_with_its_stanza(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 200
    callers = trusting.callers()
    del callers[WORKLOAD]
    await trusting.world.rewrite_callers(callers, trusting.issuers())
    assert await trusting.status_for(token) == 401


async def test_a_remembered_jwt_ends_when_its_workload_is_another(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 200
    workload = {**trusting.callers()[WORKLOAD]["workload"], "subject": "another"}
    await trusting.world.rewrite_callers(trusting.callers(workload=workload), trusting.issuers())
    assert await trusting.status_for(token) == 401
    assert await trusting.status_for(trusting.issuer.mint(sub="another")) == 200


async def test_a_remembered_jwt_ends_when_its_issuer_is_trusted_with_less(
    trusting: Trusting,
) -> None:
    token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 200
    await trusting.world.rewrite_callers(trusting.callers(), trusting.issuers(algorithms=["ES256"]))
    assert await trusting.status_for(token) == 401


async def test_a_remembered_jwt_ends_with_its_key_within_a_minute(trusting: Trusting) -> None:
    token = trusting.issuer.mint()
    assert await trusting.status_for(token) == 200
    trusting.issuer.rotate()
    trusting.world.clock.advance(KEYS_AGE)

    async def is_refused() -> bool:
        return await trusting.status_for(token) == 401

    await eventually(is_refused)


async def test_while_no_key_can_be_had_nobody_is_refused_for_good(trusting: Trusting) -> None:
    trusting.issuer.break_down()
    # As after a change of the issuer's stanza, there are no keys at first.
    await trusting.world.rewrite_callers(trusting.callers(), trusting.issuers(algorithms=["RS256"]))
    answer = await trusting.token_as(trusting.issuer.mint())
    assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    # What could be nobody's is refused all the same, and keys work as ever.
    assert await trusting.status_for(trusting.issuer.mint(sub="another")) == 401
    assert await trusting.status_for(trusting.world.key) == 200
    ready = (await trusting.world.ops.get("/readyz")).json()
    assert (ready["status"], ready["parts"]["issuers"]["status"]) == ("degraded", "down")
    assert trusting.issuer.url in ready["parts"]["issuers"]["reason"]
    assert await trusting.world.metric("broker_issuer_up", issuer=trusting.issuer.url) == 0
    trusting.issuer.answers.clear()
    trusting.world.clock.advance(timedelta(seconds=2))

    async def is_admitted() -> bool:
        return await trusting.status_for(trusting.issuer.mint()) == 200

    await eventually(is_admitted)
    assert await trusting.world.metric("broker_issuer_up", issuer=trusting.issuer.url) == 1


async def test_of_a_flood_of_garbage_the_issuer_hears_next_to_nothing(trusting: Trusting) -> None:
    assert await trusting.status_for(trusting.issuer.mint()) == 200
    asked = len(trusting.issuer.requests)
    floods = [
        trusting.issuer.mint(**claims, headers={"kid": f"random-{number}"})
        for number in range(50)
        for claims in _changes(number)
    ]
    assert {await trusting.status_for(token) for token in floods} == {401}
    each_look = 2  # Discovery and the key set.
    assert len(trusting.issuer.requests) - asked == UNKNOWN_KEY_LOOKS * each_look
    refused = trusting.world.metric
    assert await refused("broker_jwts_refused_total", use="caller", reason="unknown_key") == 50
    assert await refused("broker_jwts_refused_total", use="caller", reason="issuer") == 0
    assert (
        await refused("broker_jwts_refused_total", use="caller", reason="no_such_workload") == 100
    )


def _changes(number: int) -> list[dict[str, Any]]:
    return [{}, {"sub": f"nobody-{number}"}, {"iss": f"https://{number}.example"}]


def _caller(name: str) -> Caller:
    return Caller(name, frozenset(), frozenset(), (), ())


def _key(issuer: OidcIssuer) -> VerificationKey:
    (key,) = read_keys({"keys": [issuer.keys[0].jwk()]})
    return key


def test_the_memory_is_bounded_and_the_oldest_goes(clock: ManualClock, issuer: OidcIssuer) -> None:
    memory, key = VerifiedJwts(clock, at_most=3), _key(issuer)
    for number in range(5):
        memory.remember(
            bytes([number]), _caller(str(number)), good_until=clock.epoch() + 60, key=key
        )
    found = [memory.find(bytes([number])) for number in range(5)]
    assert [caller.name if caller else None for caller in found] == [None, None, "2", "3", "4"]


def test_a_key_that_is_no_longer_in_force_takes_its_jwts_along(
    clock: ManualClock, issuer: OidcIssuer
) -> None:
    memory, key = VerifiedJwts(clock), _key(issuer)
    memory.remember(b"digest", _caller("a"), good_until=clock.epoch() + 60, key=key)
    assert memory.find(b"digest") is not None
    key.in_force = False
    assert memory.find(b"digest") is None
