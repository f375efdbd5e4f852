"""A user's visit to the page of connections, as a browser makes it."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from tests.support.world import World

LINKS = "/v1/users/{user_id}/connections-links"


async def ask_for_visit(world: World, user_id: str = "user-1", **body: Any) -> httpx2.Response:
    """The API's answer to a request for a link to the page."""
    return await world.internal.post(
        LINKS.format(user_id=quote(user_id, safe="")), json=body, headers=world.authorization
    )


async def visit_url(world: World, user_id: str = "user-1", **body: Any) -> str:
    """A link to the page."""
    answer = await ask_for_visit(world, user_id, **body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


async def enter(
    world: World, browser: httpx2.AsyncClient, user_id: str = "user-1", **body: Any
) -> httpx2.Response:
    """Open the page by a fresh link; gives the page."""
    answer = await browser.get(await visit_url(world, user_id, **body))
    assert (answer.status_code, answer.headers["location"]) == (303, "/connections")
    return await browser.get("/connections")


def forms(page: httpx2.Response, action: str) -> list[dict[str, str]]:
    """The fields of each of the page's forms that lead there by POST."""
    found = re.findall(rf'<form method="post" action="{action}">(.*?)</form>', page.text, re.DOTALL)
    return [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)) for form in found]


async def ask_to_withdraw(browser: httpx2.AsyncClient, grant_id: str) -> httpx2.Response:
    """The page that asks for a confirmation."""
    return await browser.get(f"/connections/withdraw?grant={grant_id}")


async def send(
    browser: httpx2.AsyncClient, path: str, form: Mapping[str, str], **headers: str
) -> httpx2.Response:
    """Send a form as browsers do under `Referrer-Policy: no-referrer`."""
    sent = {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await browser.post(path, data=dict(form), headers=sent)
