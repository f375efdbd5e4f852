"""How current policies apply to existing links: tables, without a database."""

from dataclasses import replace
from typing import Any

import pytest

from broker.callers.model import Caller
from broker.consent.link_policies import LinkPolicies
from tests.consent.samples import IDENTITY, a_caller, a_link
from tests.support.scopes import CALENDAR_READONLY, DRIVE_READONLY, TASKS_READONLY

LISTED = "https://product.example.com/settings"
OWN_PAGE = "https://app.example.com/connections"


def policies(caller: Caller | None, *allowed: str) -> LinkPolicies:
    """Policies with one caller, and `GOOGLE_SCOPES` of calendar and tasks unless given."""
    callers = {} if caller is None else {caller.name: caller}
    return LinkPolicies(
        callers.get, (*IDENTITY, *(allowed or (CALENDAR_READONLY, TASKS_READONLY))), [OWN_PAGE]
    )


@pytest.mark.parametrize(
    "caller",
    [
        None,
        a_caller(name="another"),
        a_caller(permissions=frozenset()),
        a_caller(users=("bob",)),
        a_caller(scopes=(TASKS_READONLY,)),
        a_caller(require_confirmation=True),
    ],
    ids=["unknown", "another", "permission", "user", "scope", "no address for the code"],
)
def test_a_link_that_its_caller_could_not_create_now_is_refused(caller: Caller | None) -> None:
    assert policies(caller).apply(a_link(CALENDAR_READONLY)) is None


def test_a_link_for_a_scope_that_the_broker_no_longer_requests_is_refused() -> None:
    assert (
        policies(a_caller(scopes=(CALENDAR_READONLY, DRIVE_READONLY))).apply(a_link(DRIVE_READONLY))
        is None
    )


def test_identity_scopes_are_always_allowed() -> None:
    link = a_link()
    assert policies(a_caller(scopes=())).apply(link) == link


@pytest.mark.parametrize(
    ("link", "caller", "expected"),
    [
        ({}, {}, {}),
        ({"return_to": LISTED}, {}, {}),
        ({"return_to": LISTED}, {"return_to": ()}, {"return_to": None}),
        ({"return_to": OWN_PAGE}, {}, {}),
        ({"return_to": LISTED}, {"require_confirmation": True}, {"confirm": True}),
        ({"return_to": LISTED, "confirm": True}, {}, {}),
    ],
    ids=[
        "no return_to",
        "listed",
        "no longer listed",
        "own page",
        "confirmation is demanded now",
        "confirmation was demanded before",
    ],
)
def test_a_link_under_its_current_policy(
    link: dict[str, Any], caller: dict[str, Any], expected: dict[str, Any]
) -> None:
    stored = a_link(CALENDAR_READONLY, **link)
    assert policies(a_caller(**caller)).apply(stored) == replace(stored, **expected)


@pytest.mark.parametrize(
    ("link", "caller"),
    [
        ({"return_to": LISTED, "confirm": True}, {"return_to": ()}),
        ({"return_to": OWN_PAGE}, {"require_confirmation": True}),
        ({"return_to": OWN_PAGE, "confirm": True}, {}),
    ],
)
def test_a_confirmation_code_goes_to_the_callers_own_address_only(
    link: dict[str, Any], caller: dict[str, Any]
) -> None:
    assert policies(a_caller(**caller)).apply(a_link(CALENDAR_READONLY, **link)) is None


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([], []),
        ([CALENDAR_READONLY, TASKS_READONLY], [CALENDAR_READONLY]),
        ([DRIVE_READONLY], []),
        ([CALENDAR_READONLY, DRIVE_READONLY], [CALENDAR_READONLY]),
    ],
)
def test_the_scopes_that_links_of_a_caller_may_request(
    scopes: list[str], allowed: list[str]
) -> None:
    caller = a_caller(scopes=(CALENDAR_READONLY, DRIVE_READONLY))
    assert policies(caller).allowed_of(scopes, caller) == tuple(allowed)


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        (a_caller(display_name="Acme Calendar"), "Acme Calendar"),
        (a_caller(), "calendar-sync"),
        (None, "calendar-sync"),
    ],
)
def test_the_shown_name_of_a_caller(caller: Caller | None, name: str) -> None:
    assert policies(caller).shown_name("calendar-sync") == name
