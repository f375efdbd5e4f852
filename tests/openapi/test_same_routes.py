"""The paths that the broker serves and the paths that `openapi.yaml` describes are the same."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from broker import __version__
from broker.callers.model import Permission
from broker.consent.browser_routes import CALLBACK_PATH
from tests.openapi import description
from tests.support.world import World

LISTENERS = ("public", "internal", "ops")


def served_operations(app: Any) -> Iterator[tuple[str, str]]:
    """Path and method of every route below what is wrapped around it."""
    while not isinstance(app, Starlette):
        app = getattr(app, "_long_way", None) or app._app
    for route in app.routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            yield route.path, method


@pytest.mark.parametrize("listener", LISTENERS)
async def test_each_listener_serves_what_is_described_and_nothing_else(
    world: World, listener: str
) -> None:
    described = {
        (path, method)
        for path, method, _ in description.operations()
        if description.listener_of(path) == listener
    }
    assert set(served_operations(getattr(world.broker, listener))) == described


@pytest.mark.parametrize("listener", LISTENERS)
async def test_a_path_of_another_listener_is_not_found(world: World, listener: str) -> None:
    client = getattr(world, listener)
    for path, method, _ in description.operations():
        if description.listener_of(path) != listener:
            address = path.format(**description.PLACES, name="style.css")
            answer = await client.request(method, address, headers=world.authorization)
            assert answer.status_code == 404, f"{method} {path}"


def test_the_version_is_that_of_the_release() -> None:
    assert description.DOCUMENT["info"]["version"] == __version__


def test_each_operation_of_callers_names_the_permission_that_it_needs() -> None:
    needed = {
        permission
        for path, _, operation in description.operations()
        if description.listener_of(path) == "internal"
        for permission in Permission
        if f"`{permission}`" in operation["description"]
    }
    assert needed == set(Permission)


def test_the_callback_is_where_redirect_uris_must_point() -> None:
    assert CALLBACK_PATH in description.DOCUMENT["paths"]
