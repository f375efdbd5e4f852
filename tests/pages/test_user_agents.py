"""Previews, which use nothing up, and browsers, which see the interstitial."""

import pytest
from starlette.requests import Request

from broker.pages.user_agents import is_browser, is_preview

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
def test_a_users_browser_is_no_preview(headers: dict[str, str]) -> None:
    assert not is_preview(_request(**headers))


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
def test_a_program_that_follows_links_is_a_preview(headers: dict[str, str]) -> None:
    assert is_preview(_request(**headers))


def test_a_head_request_is_a_preview() -> None:
    assert is_preview(_request("HEAD", user_agent=FIREFOX))


@pytest.mark.parametrize(
    "headers",
    [
        {"accept": "text/html,application/xhtml+xml"},
        {"accept": "TEXT/HTML"},
        {"sec_fetch_mode": "navigate"},
        {"user_agent": FIREFOX, "accept": "*/*"},
    ],
)
def test_a_client_that_looks_like_a_browser_is_one(headers: dict[str, str]) -> None:
    assert is_browser(_request(**headers))


@pytest.mark.parametrize(
    "headers", [{}, {"accept": "*/*"}, {"user_agent": "curl/8.5.0"}, {"accept": "application/json"}]
)
def test_a_program_is_no_browser(headers: dict[str, str]) -> None:
    assert not is_browser(_request(**headers))
