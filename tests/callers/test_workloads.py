"""Workloads' JWTs on a whole broker: remembered, and forgotten in time."""

from datetime import timedelta
from typing import Any

from broker.callers.model import Caller
from broker.callers.registry import VerifiedJwts
from broker.issuers.trusted import KEYS_AGE, UNKNOWN_KEY_FETCHES
from broker.issuers.verification_keys import VerificationKey, read_keys
from tests.support.clock import ManualClock
from tests.support.issuer import OidcIssuer
from tests.support.waiting import eventually
from tests.support.workloads import WORKLOAD, IssuerWorld


async def test_a_remembered_jwt_needs_neither_issuer_nor_signature(
    issuer_world: IssuerWorld,
) -> None:
    token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 200
    issuer_world.issuer.break_down()
    issuer_world.issuer.keys = []
    asked = list(issuer_world.issuer.requests)
    for _ in range(5):
        assert await issuer_world.status_for(token) == 200
    assert issuer_world.issuer.requests == asked


async def test_a_remembered_jwt_ends_with_its_expiry(issuer_world: IssuerWorld) -> None:
    token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 200
    issuer_world.world.clock.advance(timedelta(seconds=599))
    assert await issuer_world.status_for(token) == 200
    issuer_world.world.clock.advance(timedelta(seconds=1))
    assert await issuer_world.status_for(token) == 401


async def test_a_remembered_jwt_ends_with_its_stanza(issuer_world: IssuerWorld) -> None:
    token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 200
    callers = issuer_world.callers()
    del callers[WORKLOAD]
    await issuer_world.world.rewrite_callers(callers, issuer_world.issuers())
    assert await issuer_world.status_for(token) == 401


async def test_a_remembered_jwt_ends_when_its_workload_is_another(
    issuer_world: IssuerWorld,
) -> None:
    token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 200
    workload = {**issuer_world.callers()[WORKLOAD]["workload"], "subject": "another"}
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(workload=workload), issuer_world.issuers()
    )
    assert await issuer_world.status_for(token) == 401
    assert await issuer_world.status_for(issuer_world.issuer.mint(sub="another")) == 200


async def test_a_remembered_jwt_ends_when_its_issuer_is_trusted_with_less(
    issuer_world: IssuerWorld,
) -> None:
    token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 200
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(algorithms=["ES256"])
    )
    assert await issuer_world.status_for(token) == 401


async def test_a_remembered_jwt_ends_with_its_key_within_a_minute(
    issuer_world: IssuerWorld,
) -> None:
    token = issuer_world.issuer.mint()
    assert await issuer_world.status_for(token) == 200
    issuer_world.issuer.rotate()
    issuer_world.world.clock.advance(KEYS_AGE)

    async def is_refused() -> bool:
        return await issuer_world.status_for(token) == 401

    await eventually(is_refused)


async def test_while_the_keys_are_unavailable_a_jwt_gets_503(issuer_world: IssuerWorld) -> None:
    issuer_world.issuer.break_down()
    # As after a change of the issuer's stanza, there are no keys at first.
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(algorithms=["RS256"])
    )
    answer = await issuer_world.token_as(issuer_world.issuer.mint())
    assert (answer.status_code, answer.json()["code"]) == (503, "issuer_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    # A JWT that is no caller's is still refused, and keys still work.
    assert await issuer_world.status_for(issuer_world.issuer.mint(sub="another")) == 401
    assert await issuer_world.status_for(issuer_world.world.key) == 200
    ready = (await issuer_world.world.ops.get("/readyz")).json()
    assert (ready["status"], ready["parts"]["issuers"]["status"]) == ("degraded", "down")
    assert issuer_world.issuer.url in ready["parts"]["issuers"]["reason"]
    assert await issuer_world.world.metric("broker_issuer_up", issuer=issuer_world.issuer.url) == 0
    issuer_world.issuer.answers.clear()
    issuer_world.world.clock.advance(timedelta(seconds=2))

    async def is_admitted() -> bool:
        return await issuer_world.status_for(issuer_world.issuer.mint()) == 200

    await eventually(is_admitted)
    assert await issuer_world.world.metric("broker_issuer_up", issuer=issuer_world.issuer.url) == 1


async def test_a_flood_of_invalid_jwts_causes_a_bounded_number_of_fetches(
    issuer_world: IssuerWorld,
) -> None:
    assert await issuer_world.status_for(issuer_world.issuer.mint()) == 200
    asked = len(issuer_world.issuer.requests)
    floods = [
        issuer_world.issuer.mint(**claims, headers={"kid": f"random-{number}"})
        for number in range(50)
        for claims in _changes(number)
    ]
    assert {await issuer_world.status_for(token) for token in floods} == {401}
    each_fetch = 2  # Discovery and the key set.
    assert len(issuer_world.issuer.requests) - asked == UNKNOWN_KEY_FETCHES * each_fetch
    refused = issuer_world.world.metric
    assert await refused("broker_jwts_refused_total", use="caller", reason="unknown_key") == 50
    assert await refused("broker_jwts_refused_total", use="caller", reason="issuer") == 0
    assert (
        await refused("broker_jwts_refused_total", use="caller", reason="no_such_workload") == 100
    )


def _changes(number: int) -> list[dict[str, Any]]:
    return [{}, {"sub": f"unknown-{number}"}, {"iss": f"https://{number}.example"}]


def _caller(name: str) -> Caller:
    return Caller(name, frozenset(), frozenset(), (), ())


def _key(issuer: OidcIssuer) -> VerificationKey:
    (key,) = read_keys({"keys": [issuer.keys[0].jwk()]})
    return key


def test_the_memory_is_bounded_and_the_oldest_jwt_is_evicted(
    clock: ManualClock, issuer: OidcIssuer
) -> None:
    memory, key = VerifiedJwts(clock, at_most=3), _key(issuer)
    for number in range(5):
        memory.remember(
            bytes([number]), _caller(str(number)), expires_at=clock.epoch() + 60, key=key
        )
    found = [memory.find(bytes([number])) for number in range(5)]
    assert [caller.name if caller else None for caller in found] == [None, None, "2", "3", "4"]


def test_a_jwt_of_a_key_that_is_no_longer_in_force_is_forgotten(
    clock: ManualClock, issuer: OidcIssuer
) -> None:
    memory, key = VerifiedJwts(clock), _key(issuer)
    memory.remember(b"digest", _caller("a"), expires_at=clock.epoch() + 60, key=key)
    assert memory.find(b"digest") is not None
    key.in_force = False
    assert memory.find(b"digest") is None
