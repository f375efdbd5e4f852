"""Who only looks, and so opens nothing."""

import pytest
from starlette.requests import Request

from broker.pages.visitors import is_only_looking

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def _request(method: str = "GET", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    return Request({"type": "http", "method": method, "headers": raw})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"user_agent": FIREFOX, "sec_fetch_dest": "document", "sec_fetch_mode": "navigate"},
        {"user_agent": "Mozilla/5.0 (Linux; Android 13; CUBOT KINGKONG) Chrome/140.0 Mobile"},
        {"user_agent": "Mozilla/5.0 (iPhone) AppleWebKit/605 KAKAOTALK/25.1 (INAPP)"},
    ],
)
def test_a_persons_browser_does_not_only_look(headers: dict[str, str]) -> None:
    assert not is_only_looking(_request(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_purpose": "prefetch;prerender"},
        {"purpose": "preview"},
        {"x_moz": "prefetch"},
        {"sec_fetch_dest": "image"},
        {"sec_fetch_dest": "iframe"},
        {"sec_fetch_dest": "empty"},
        {"user_agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"},
        {"user_agent": "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)"},
        {"user_agent": "TelegramBot (like TwitterBot)"},
        {"user_agent": "facebookexternalhit/1.1;kakaotalk-scrap/1.0;"},
        {"user_agent": "WhatsApp/2.23.20.0"},
        {"user_agent": "Mozilla/5.0 Windows Preview SkypeUriPreview/0.5"},
        {"user_agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"},
        {"user_agent": "Mozilla/5.0 (compatible; Yeti/1.1; +https://naver.me/spd)"},
        {"user_agent": "Mozilla/5.0 (compatible; vkShare; +http://vk.com/dev/Share)"},
        {"user_agent": "Iframely/1.3.1 (+https://iframely.com/docs/about)"},
    ],
)
def test_what_follows_links_on_its_own_only_looks(headers: dict[str, str]) -> None:
    assert is_only_looking(_request(**headers))


def test_head_only_looks() -> None:
    assert is_only_looking(_request("HEAD", user_agent=FIREFOX))
