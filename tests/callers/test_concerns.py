"""What an operator is told about callers that are valid."""

from broker.callers.clients_file import parse_clients
from broker.callers.concerns import find_concerns
from tests.callers.stanzas import SCOPE, clients_file, stanza

WORKLOAD = "{issuer: https://a.b, audience: c, subject: d}"


def concerns_about(text: str, *allowed_scopes: str) -> list[str]:
    return find_concerns(parse_clients(text).callers, allowed_scopes)


def test_nothing_is_said_about_an_ordinary_caller() -> None:
    assert concerns_about(clients_file(), "openid", SCOPE) == []


def test_a_scope_beyond_the_brokers_own_is_pointed_out_with_what_may_be_meant() -> None:
    misspelt = SCOPE.replace("calendar", "calender")

    (concern,) = concerns_about(clients_file(stanza(scopes=f"[{misspelt}]")), "openid", SCOPE)
    assert concern.startswith(f"clients.calendar-sync: '{misspelt}' is not in GOOGLE_SCOPES")
    assert concern.endswith(f"did you mean '{SCOPE}'?")


def test_a_scopes_other_name_is_the_same_scope() -> None:
    userinfo = "https://www.googleapis.com/auth/userinfo.email"

    assert concerns_about(clients_file(stanza(scopes=f"[{userinfo}]")), "openid", "email") == []


def test_scopes_are_left_alone_where_the_brokers_own_are_unknown() -> None:
    assert concerns_about(clients_file()) == []


def test_an_empty_list_of_callers_is_pointed_out() -> None:
    assert concerns_about("clients: {}") == ["no caller is listed: every request will be refused"]


def test_what_this_release_does_not_do_is_pointed_out() -> None:
    text = clients_file(
        stanza("a", workload=WORKLOAD),
        stanza("b", keys=None, workload=WORKLOAD.replace("d}", "e}")),
    )

    with_both, without_keys = concerns_about(text, SCOPE)
    assert with_both.startswith("clients.a: this release does not read `workload`; its keys still")
    assert without_keys.endswith("nobody can call as it")


def test_a_caller_whose_links_nobody_could_confirm_is_pointed_out() -> None:
    makes = {"can": "[links:create]", "require_confirmation": "true"}
    (concern,) = concerns_about(clients_file(stanza(**makes)), SCOPE)
    assert "no `return_to` is listed" in concern
    listed = stanza(**makes, return_to="[https://app.example.com/x]")
    assert concerns_about(clients_file(listed), SCOPE) == []
