"""`issuers:` of the callers file: its fields, and the messages about mistakes."""

import pytest

from broker.callers.callers_file import CallersFileError, parse_callers
from broker.issuers.model import ALGORITHMS, Issuer, UserRule
from tests.callers.stanzas import callers_file, stanza

WORKLOAD = "{issuer: https://a.b, audience: c, subject: d}"


def issuers_of(text: str, *stanzas: str) -> tuple[Issuer, ...]:
    return parse_callers(callers_file(*stanzas) + text).issuers()


def fault(text: str) -> str:
    with pytest.raises(CallersFileError) as caught:
        issuers_of(text)
    (problem,) = caught.value.problems
    return problem


def test_an_issuer_that_a_workload_names_needs_no_entry() -> None:
    assert issuers_of("", stanza(workload=WORKLOAD)) == (Issuer("https://a.b"),)
    assert issuers_of("issuers:\n", stanza(workload=WORKLOAD)) == (Issuer("https://a.b"),)
    assert issuers_of("issuers: {https://a.b: }", stanza(workload=WORKLOAD)) == (
        Issuer("https://a.b"),
    )


def test_every_field_of_an_issuer_is_read() -> None:
    text = """\
issuers:
  https://a.b:
    jwks_url: https://a.b/keys?x=1
    ca_file: /etc/ca.crt
    token_file: /run/token
    algorithms: [ES256, RS256, ES256]
    users: {audience: people, claim: employee}
"""
    assert issuers_of(text) == (
        Issuer(
            url="https://a.b",
            jwks_url="https://a.b/keys?x=1",
            ca_file="/etc/ca.crt",
            token_file="/run/token",
            algorithms=("ES256", "RS256"),
            users=UserRule("people", "employee"),
        ),
    )


def test_omitted_fields_have_their_defaults() -> None:
    (issuer,) = issuers_of("issuers: {https://a.b: {users: {audience: people}}}")
    assert issuer.users == UserRule("people", "sub")
    assert issuer.algorithms == ALGORITHMS
    assert "HS256" not in ALGORITHMS


def test_an_unused_issuer_is_not_trusted() -> None:
    assert issuers_of("issuers: {https://a.b: {ca_file: /etc/ca.crt}}") == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("issuers: []", "must be a mapping"),
        ("issuers: {http://a.b: }", "must be an absolute address, https"),
        ("issuers: {https://a.b?x=1: }", "must have no query"),
        ("issuers: {'https://a.b#x': }", "must have no query, no fragment"),
        ("issuers: {https://u:p@a.b: }", "no user name"),
        ("issuers: {https://a.b: {jwks_uri: https://a.b/k}}", "did you mean 'jwks_url'?"),
        ("issuers: {https://a.b: {jwks_url: http://a.b/k}}", "must be an absolute address"),
        ("issuers: {https://a.b: {ca_file: ca.crt}}", "must be the absolute path of a file"),
        ("issuers: {https://a.b: {token_file: 5}}", "write it in quotes"),
        ("issuers: {https://a.b: {algorithms: RS256}}", "must be a list"),
        ("issuers: {https://a.b: {algorithms: []}}", "must not be empty"),
        ("issuers: {https://a.b: {algorithms: [none]}}", "anyone who can verify it can forge it"),
        ("issuers: {https://a.b: {algorithms: [HS256]}}", "anyone who can verify it can forge it"),
        ("issuers: {https://a.b: {algorithms: [RS265]}}", "known are RS256"),
        ("issuers: {https://a.b: {users: {}}}", "`audience` is missing"),
        ("issuers: {https://a.b: {users: {audience: ''}}}", "not empty"),
        ("issuers: {https://a.b: {users: yes}}", "must be a mapping"),
        ("issuers: {https://a.b: , https://a.b: }", "is given twice"),
    ],
)
def test_a_mistake_is_reported_with_its_place(text: str, words: str) -> None:
    problem = fault(text)
    assert words in problem
    assert "line " in problem
