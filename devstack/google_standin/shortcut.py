"""Consent in one call, for tests that are about something else than the pages."""

from collections.abc import Collection
from urllib.parse import parse_qsl, urlsplit

from devstack.google_standin import authorization
from devstack.google_standin.authorization import AuthorizationRequest, ShownError
from devstack.google_standin.recording import RecordedRequest, monotonic, without_secrets
from devstack.google_standin.world import World


def consent_without_a_browser(
    world: World,
    url: str,
    *,
    account: str,
    untick: Collection[str] = (),
    deny: bool = False,
) -> str:
    """Where the browser goes once `account` has decided on the authorization URL.

    Rules, faults and the request log are those of the pages. Raises `ShownError` where Google would
    show an error, and `KeyError` for an unknown account.
    """
    with world.state.lock:
        parameters = dict(parse_qsl(urlsplit(url).query))
        person = world.state.account(account)
        _record(world, parameters, person.sub)
        fault = world.faults.take("authorize", account=person, kinds=("error",))
        if fault is not None:
            raise ShownError(fault.details["code"], fault.details["description"])
        request = AuthorizationRequest.read(world, parameters)
        if deny:
            return authorization.deny(world, request, person)
        address = authorization.approve(world, request, person, untick)
        world.state.save()
        return address


def _record(world: World, parameters: dict[str, str], sub: str) -> None:
    now = monotonic()
    world.requests.add(
        RecordedRequest(
            endpoint="authorize",
            method="GET",
            parameters=without_secrets(parameters),
            client_id=parameters.get("client_id"),
            client_auth=None,
            account=sub,
            grant_type=None,
            started=now,
            finished=now,
            status=303,
        )
    )
