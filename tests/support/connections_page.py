"""Requests to the connections page, as a browser sends them."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from tests.support.world import World

LINKS = "/v1/users/{user_id}/connections-links"


async def request_connections_link(
    world: World, user_id: str = "user-1", **body: Any
) -> httpx2.Response:
    """Request a link to the page; return the API's response."""
    return await world.internal.post(
        LINKS.format(user_id=quote(user_id, safe="")), json=body, headers=world.authorization
    )


async def connections_link(world: World, user_id: str = "user-1", **body: Any) -> str:
    """Return the URL of a new link to the page."""
    answer = await request_connections_link(world, user_id, **body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


async def open_connections(
    world: World, browser: httpx2.AsyncClient, user_id: str = "user-1", **body: Any
) -> httpx2.Response:
    """Open a new link to the page; return the page."""
    answer = await browser.get(await connections_link(world, user_id, **body))
    assert (answer.status_code, answer.headers["location"]) == (303, "/connections")
    return await browser.get("/connections")


def forms(page: httpx2.Response, action: str) -> list[dict[str, str]]:
    """Return the fields of each form of the page that posts to `action`."""
    found = re.findall(rf'<form method="post" action="{action}">(.*?)</form>', page.text, re.DOTALL)
    return [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)) for form in found]


async def open_withdrawal(browser: httpx2.AsyncClient, grant_id: str) -> httpx2.Response:
    """Return the page that asks to confirm a withdrawal."""
    return await browser.get(f"/connections/withdraw?grant={grant_id}")


async def send_form(
    browser: httpx2.AsyncClient, path: str, form: Mapping[str, str], **headers: str
) -> httpx2.Response:
    """Send a form as browsers do under `Referrer-Policy: no-referrer`."""
    sent = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await browser.post(path, data=dict(form), headers=sent)
