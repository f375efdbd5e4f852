"""The cookies of the connections page, and the tokens of its forms."""

import pytest
from starlette.responses import Response

from broker.connections.visitor_cookies import FormAction, Notice, VisitorCookies
from broker.crypto.signing import Signer
from broker.pages.browser_input import Cookies
from broker.secret import Secret

_KEYS = [Secret("a secret key for tests, of 32 bytes and more")]
COOKIES = VisitorCookies(
    visitors=Signer(_KEYS, "connections visitors"),
    forms=Signer(_KEYS, "connections forms"),
    notices=Signer(_KEYS, "connections notices"),
    is_https=True,
)


def sent_after(response: Response) -> Cookies:
    """Return the cookies of a browser that got this response."""
    lines = [value for name, value in response.headers.items() if name == "set-cookie"]
    pairs = [line.partition(";")[0].partition("=") for line in lines]
    return {name: [value] for name, _, value in pairs}


def test_a_visitor_is_identified_by_the_cookie() -> None:
    visitor, response = COOKIES.create(), Response()
    COOKIES.set_visitor(visitor, response)
    assert COOKIES.identify(sent_after(response)) == visitor


@pytest.mark.parametrize("name", ["broker_connections", "__host-broker_connections"])
def test_the_value_under_another_name_identifies_no_visitor(name: str) -> None:
    assert COOKIES.identify({name: [COOKIES.create().value]}) is None


def test_of_two_valid_cookies_neither_counts() -> None:
    values = [COOKIES.create().value, COOKIES.create().value]
    assert COOKIES.identify({"__Host-broker_connections": values}) is None


@pytest.mark.parametrize(
    ("is_own", "action", "grant_id", "is_valid"),
    [
        (True, FormAction.WITHDRAW, "1", True),
        (True, FormAction.WITHDRAW, "2", False),
        (True, FormAction.CONNECT, "1", False),
        (False, FormAction.WITHDRAW, "1", False),
    ],
    ids=["own", "another grant", "another action", "another visitor"],
)
def test_a_form_token_is_valid_for_visitor_action_and_grant(
    is_own: bool, action: FormAction, grant_id: str, is_valid: bool
) -> None:
    visitor = COOKIES.create()
    token = COOKIES.form_token(visitor, FormAction.WITHDRAW, "1")
    sent_by = visitor if is_own else COOKIES.create()
    assert COOKIES.is_form_token(token, sent_by, action, grant_id) is is_valid


@pytest.mark.parametrize("notice", Notice)
def test_a_notice_is_for_its_visitor_only(notice: Notice) -> None:
    visitor, response = COOKIES.create(), Response()
    COOKIES.set_notice(visitor, notice, "grant-1", response)
    assert COOKIES.read_notice(visitor, sent_after(response)) == (notice, "grant-1")
    assert COOKIES.read_notice(COOKIES.create(), sent_after(response)) is None


def test_a_changed_notice_cookie_shows_nothing() -> None:
    visitor, response = COOKIES.create(), Response()
    COOKIES.invalidate_kept_pages(response)
    assert COOKIES.read_notice(visitor, sent_after(response)) is None
