"""Warnings about a valid callers file."""

from broker.callers.callers_file import parse_callers
from broker.callers.file_warnings import find_warnings
from tests.callers.stanzas import SCOPE, callers_file, stanza

WORKLOAD = "{issuer: https://a.b, audience: c, subject: d}"


def concerns_about(text: str, *allowed_scopes: str) -> list[str]:
    return find_warnings(parse_callers(text), allowed_scopes)


def test_an_ordinary_caller_causes_no_warning() -> None:
    assert concerns_about(callers_file(), "openid", SCOPE) == []


def test_a_scope_beyond_the_brokers_own_causes_a_warning_with_a_suggestion() -> None:
    misspelt = SCOPE.replace("calendar", "calender")

    (concern,) = concerns_about(callers_file(stanza(scopes=f"[{misspelt}]")), "openid", SCOPE)
    assert concern.startswith(f"callers.calendar-sync: '{misspelt}' is not in GOOGLE_SCOPES")
    assert concern.endswith(f"did you mean '{SCOPE}'?")


def test_the_alias_of_a_scope_is_the_same_scope() -> None:
    userinfo = "https://www.googleapis.com/auth/userinfo.email"

    assert concerns_about(callers_file(stanza(scopes=f"[{userinfo}]")), "openid", "email") == []


def test_scopes_are_not_checked_if_the_brokers_own_are_unknown() -> None:
    assert concerns_about(callers_file()) == []


def test_an_empty_list_of_callers_causes_a_warning() -> None:
    assert concerns_about("callers: {}") == ["no caller is listed: every request will be refused"]


def test_a_workload_causes_no_warning() -> None:
    text = callers_file(
        stanza("a", workload=WORKLOAD),
        stanza("b", keys=None, workload=WORKLOAD.replace("d}", "e}")),
    )
    assert concerns_about(text, SCOPE) == []


def test_required_confirmation_without_return_to_causes_a_warning() -> None:
    makes = {"can": "[links:create]", "require_confirmation": "true"}
    (concern,) = concerns_about(callers_file(stanza(**makes)), SCOPE)
    assert "no `return_to` is listed" in concern
    listed = stanza(**makes, return_to="[https://app.example.com/x]")
    assert concerns_about(callers_file(listed), SCOPE) == []


def test_an_unused_issuer_causes_a_warning() -> None:
    (concern,) = concerns_about(callers_file() + "issuers: {https://a.b: }\n")
    assert concern.startswith("issuers.https://a.b is unused")


def test_users_of_several_issuers_cause_a_warning() -> None:
    issuers = "issuers: {https://a.b: {users: {audience: x}}, https://c.d: {users: {audience: x}}}"
    (concern,) = concerns_about(callers_file() + issuers)
    assert "several have `users`" in concern


def test_an_audience_of_users_and_workloads_causes_a_warning() -> None:
    text = (
        callers_file(stanza(workload=WORKLOAD)) + "issuers: {https://a.b: {users: {audience: c}}}"
    )
    (concern,) = concerns_about(text)
    assert "share the audience 'c'" in concern


def test_a_required_subject_without_an_issuer_of_users_causes_a_warning() -> None:
    text = callers_file(stanza(subject_required="true"))
    (concern,) = concerns_about(text)
    assert "gets no token at all" in concern
    assert concerns_about(text + "issuers: {https://a.b: {users: {audience: c}}}") == []
