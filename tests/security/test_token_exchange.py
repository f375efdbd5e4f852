"""Checks 23, 27, 29, 30 and 31 of `POST /oauth/token`, on a whole broker from outside."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
import pytest

from broker.callers.keys import hash_key
from devstack.google_standin import Fault
from tests.exchange.harness import (
    ASSERTION_TYPE,
    GRANT_TYPE,
    TYPE,
    assert_refused,
    basic,
    exchange,
    form,
)
from tests.support.probes import audited, everything_stored
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.workloads import USERS_AUDIENCE, WORKLOAD, IssuerWorld
from tests.support.world import stanza


async def test_check_30_the_answer_contains_the_issued_token_type(
    issuer_world: IssuerWorld,
) -> None:
    answer = await exchange(issuer_world)
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert body["issued_token_type"] == f"{TYPE}access_token"
    assert body["token_type"] == "Bearer"
    assert 0 < body["expires_in"] <= 3600
    assert CALENDAR_READONLY in body["scope"].split()
    assert answer.headers["cache-control"] == "no-store"
    assert body["access_token"] == (await issuer_world.world.token()).json()["access_token"]


async def test_an_exchanged_token_is_counted_and_audited(issuer_world: IssuerWorld) -> None:
    assert (await exchange(issuer_world)).status_code == 200
    (record,) = await audited(issuer_world.world, "token_handed_out", "ok")
    assert (record["caller"], record["user_id"]) == ("calendar-sync", "user-1")
    assert CALENDAR_READONLY in record["scopes"]
    count = await issuer_world.world.metric(
        "broker_token_requests_total", caller="calendar-sync", outcome="ok"
    )
    assert count == 1


async def test_the_user_is_that_of_the_jwt(issuer_world: IssuerWorld) -> None:
    answer = await exchange(
        issuer_world, subject_token=issuer_world.users_jwt("user-2"), user_id="user-1"
    )
    assert_refused(answer, 400, "invalid_grant", "grant_not_found")


async def test_scope_narrows_the_token(issuer_world: IssuerWorld) -> None:
    await issuer_world.world.connect("user-1", scopes=[CALENDAR, CALENDAR_READONLY])
    answer = await exchange(issuer_world, scope=CALENDAR_READONLY)
    assert answer.json()["scope"].split() == [CALENDAR_READONLY]


async def test_the_account_parameter_selects_the_google_account(issuer_world: IssuerWorld) -> None:
    await issuer_world.world.connect("user-1", "grace@example.com")
    by_name = await exchange(issuer_world, account="grace@example.com")
    default = await exchange(issuer_world)
    assert by_name.status_code == default.status_code == 200
    assert by_name.json()["access_token"] != default.json()["access_token"]
    unknown = await exchange(issuer_world, account="unknown@example.com")
    assert_refused(unknown, 400, "invalid_grant", "grant_not_found")


@pytest.mark.parametrize("kind", ["jwt", "id_token", "access_token"])
async def test_each_jwt_token_type_is_accepted_as_subject(
    issuer_world: IssuerWorld, kind: str
) -> None:
    answer = await exchange(issuer_world, subject_token_type=TYPE + kind)
    assert answer.status_code == 200


async def test_an_at_jwt_is_an_access_token_and_no_id_token(issuer_world: IssuerWorld) -> None:
    at_jwt = issuer_world.users_jwt(headers={"typ": "at+jwt"})
    as_access = await exchange(
        issuer_world, subject_token=at_jwt, subject_token_type=f"{TYPE}access_token"
    )
    assert as_access.status_code == 200
    as_id = await exchange(issuer_world, subject_token=at_jwt, subject_token_type=f"{TYPE}id_token")
    assert_refused(as_id, 400, "invalid_request", "subject_token_refused")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"employee": 1},
        {"employee": ""},
        {"employee": ["user-1"]},
        {"employee": "user-1\n"},
        {"employee": "u" * 256},
    ],
)
async def test_another_claim_may_contain_the_user_id(
    issuer_world: IssuerWorld, claims: dict[str, Any]
) -> None:
    rule = {"audience": USERS_AUDIENCE, "claim": "employee"}
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(users=rule)
    )
    good = issuer_world.users_jwt("employee-1", employee="user-1")
    assert (await exchange(issuer_world, subject_token=good)).status_code == 200
    answer = await exchange(issuer_world, subject_token=issuer_world.users_jwt("user-1", **claims))
    assert_refused(answer, 400, "invalid_request", "subject_token_refused")


@pytest.mark.parametrize(
    ("verified", "status"), [(True, 200), ("true", 200), (False, 400), ("no", 400), (None, 400)]
)
async def test_an_email_counts_only_if_the_issuer_has_verified_it(
    issuer_world: IssuerWorld, verified: object, status: int
) -> None:
    rule = {"audience": USERS_AUDIENCE, "claim": "email"}
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(users=rule)
    )
    token = issuer_world.users_jwt("x", email="user-1", email_verified=verified)
    answer = await exchange(issuer_world, subject_token=token)
    assert answer.status_code == status, verified


@pytest.mark.parametrize("missing", ["grant_type", "subject_token", "subject_token_type"])
@pytest.mark.parametrize("value", [None, ""])
async def test_check_30_a_missing_parameter_is_an_invalid_request(
    issuer_world: IssuerWorld, missing: str, value: str | None
) -> None:
    changes: dict[str, Any] = {missing: value}
    answer = await exchange(issuer_world, **changes)
    assert_refused(answer, 400, "invalid_request")
    assert missing in answer.json()["error_description"]


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
    ({"grant_type": "authorization_code"}, "unsupported_grant_type"),
    ({"subject_token_type": f"{TYPE}saml2"}, "invalid_request"),
    ({"subject_token_type": f"{TYPE}refresh_token"}, "invalid_request"),
    ({"subject_token_type": "jwt"}, "invalid_request"),
    ({"requested_token_type": f"{TYPE}refresh_token"}, "invalid_request"),
    ({"requested_token_type": f"{TYPE}jwt"}, "invalid_request"),
    ({"actor_token": "x", "actor_token_type": f"{TYPE}jwt"}, "invalid_request"),
    ({"actor_token_type": f"{TYPE}jwt"}, "invalid_request"),
    ({"audience": "https://api.example.com"}, "invalid_target"),
    ({"resource": "https://googleapis.com.example.com/"}, "invalid_target"),
    ({"resource": "http://www.googleapis.com/"}, "invalid_target"),
    ({"resource": "https://googleapis.com@example.com/"}, "invalid_target"),
    ({"resource": "https://www.googleapis.com/#x"}, "invalid_target"),
    ({"resource": "https://[::1"}, "invalid_target"),
    ({"audience": ["https://www.googleapis.com/", "https://x.example"]}, "invalid_target"),
    ({"scope": 'a"b'}, "invalid_scope"),
    ({"min_ttl": "-1"}, "invalid_request"),
    ({"account": "\n"}, "invalid_request"),
]


@pytest.mark.parametrize(("changes", "error"), UNSUPPORTED)
async def test_check_30_unsupported_parameters_are_refused(
    issuer_world: IssuerWorld, changes: dict[str, Any], error: str
) -> None:
    assert_refused(await exchange(issuer_world, **changes), 400, error)


SUPPORTED: list[dict[str, Any]] = [
    {"requested_token_type": f"{TYPE}access_token"},
    {"audience": "https://www.googleapis.com/"},
    {"resource": ["https://www.googleapis.com/calendar/v3/", "https://gmail.googleapis.com"]},
    {"unknown": "ignored"},
    {"scope": ""},
    {"actor_token": ""},
]


@pytest.mark.parametrize("changes", SUPPORTED)
async def test_check_30_supported_parameters_are_accepted(
    issuer_world: IssuerWorld, changes: dict[str, Any]
) -> None:
    assert (await exchange(issuer_world, **changes)).status_code == 200


FORM = "application/x-www-form-urlencoded"


async def _post(issuer_world: IssuerWorld, body: str, content_type: str) -> httpx2.Response:
    """Post a body, in which `FORM` stands for a good form."""
    return await issuer_world.world.internal.post(
        "/oauth/token",
        content=body.replace("FORM", urlencode(form(issuer_world))),
        headers={**issuer_world.world.authorization, "Content-Type": content_type},
    )


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("FORM&grant_type=" + quote(GRANT_TYPE), FORM, 400),
        ("FORM&scope=a&scope=a", FORM, 400),
        ("FORM&x=1&x=2", FORM, 400),
        ("FORM&subject_token=", FORM, 400),
        ("", FORM, 400),
        ("&&&", FORM, 400),
        ("grant_type", FORM, 400),
        ("FORM&a=%ff", FORM, 400),
        pytest.param("FORM&" + "&".join(f"p{n}=1" for n in range(100)), FORM, 400, id="many"),
        ("FORM", "application/json", 400),
        ("FORM", "multipart/form-data; boundary=x", 400),
        ("FORM", "text/plain", 400),
        pytest.param("FORM&pad=" + "x" * 70_000, FORM, 413, id="long"),
    ],
)
async def test_check_30_the_form_is_read_strictly(
    issuer_world: IssuerWorld, body: str, content_type: str, status: int
) -> None:
    assert_refused(await _post(issuer_world, body, content_type), status, "invalid_request")


async def test_check_30_the_form_may_name_its_charset(issuer_world: IssuerWorld) -> None:
    assert (await _post(issuer_world, "FORM", f"{FORM}; charset=UTF-8")).status_code == 200


@pytest.mark.parametrize("query", ["FORM", "access_token=KEY", "x"])
@pytest.mark.parametrize("has_body", [True, False])
async def test_check_29_parameters_in_the_url_are_refused(
    issuer_world: IssuerWorld, query: str, *, has_body: bool
) -> None:
    good = form(issuer_world)
    query = query.replace("FORM", urlencode(good)).replace("KEY", issuer_world.world.key)
    answer = await issuer_world.world.internal.post(
        f"/oauth/token?{query}",
        data=good if has_body else {},
        headers=issuer_world.world.authorization,
    )
    assert_refused(answer, 400, "invalid_request")


async def test_the_token_endpoint_serves_no_get(issuer_world: IssuerWorld) -> None:
    assert (await issuer_world.world.internal.get("/oauth/token")).status_code == 405


async def test_check_30_an_invalid_subject_token_is_an_invalid_request(
    issuer_world: IssuerWorld,
) -> None:
    now = int(issuer_world.world.clock.epoch())
    jwt, users_jwt = issuer_world.issuer.mint, issuer_world.users_jwt
    bad = [
        users_jwt(aud="token-broker"),
        users_jwt(aud=["a", "b"]),
        users_jwt(iss="https://accounts.google.com"),
        users_jwt(exp=now - 1),
        users_jwt(exp=None),
        users_jwt(nbf=now + 300),
        users_jwt(headers={"kid": "unknown"}),
        users_jwt(headers={"typ": "logout+jwt"}),
        users_jwt(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        users_jwt(sub=None),
        users_jwt() + "x",
        users_jwt()[:-10],
        users_jwt().rpartition(".")[0] + ".",
        users_jwt(filler="x" * 20_000),
        jwt(),
        # A service's own identity is no user, even with the right audience.
        jwt(aud=USERS_AUDIENCE),
        jwt(aud=[USERS_AUDIENCE, "token-broker"]),
        issuer_world.world.key,
        "ya29.an-opaque-token",
        "….…",
    ]
    for number, token in enumerate(bad):
        answer = await exchange(issuer_world, subject_token=token)
        assert_refused(answer, 400, "invalid_request", "subject_token_refused")
        assert token not in answer.text, number
    refusals = await audited(
        issuer_world.world, "token_refused", "subject_token_refused", count=len(bad)
    )
    assert {record["caller"] for record in refusals} == {"calendar-sync"}
    assert {record["user_id"] for record in refusals} == {None}
    assert issuer_world.world.refreshes_at_google() == 0


NAME, SUBJECT = "calendar-sync", "system:serviceaccount:prod:calendar-sync"


@pytest.mark.parametrize(
    ("credential", "may_act", "status"),
    [
        ("key", {"sub": NAME}, 200),
        ("workload", {"sub": WORKLOAD}, 200),
        ("workload", {"sub": SUBJECT}, 200),
        ("workload", {"sub": SUBJECT, "iss": "ISSUER"}, 200),
        ("key", {"sub": WORKLOAD}, 400),
        ("key", {"sub": SUBJECT}, 400),
        ("key", {"sub": NAME, "iss": "ISSUER"}, 400),
        ("workload", {"sub": NAME}, 400),
        ("workload", {"sub": SUBJECT, "iss": "https://elsewhere.example.com"}, 400),
        ("workload", {"iss": "ISSUER"}, 400),
        ("key", {}, 400),
        ("key", NAME, 400),
        ("key", [{"sub": NAME}], 400),
    ],
)
async def test_the_may_act_claim_is_enforced(
    issuer_world: IssuerWorld, credential: str, may_act: Any, status: int
) -> None:
    if isinstance(may_act, dict) and may_act.get("iss") == "ISSUER":
        may_act = {**may_act, "iss": issuer_world.issuer.url}
    as_workload = {"Authorization": f"Bearer {issuer_world.issuer.mint()}"}
    headers = as_workload if credential == "workload" else issuer_world.world.authorization
    answer = await exchange(
        issuer_world, headers, subject_token=issuer_world.users_jwt(may_act=may_act)
    )
    assert answer.status_code == status
    if status == 400:
        assert_refused(answer, 400, "invalid_request", "subject_token_refused")


async def test_refusals_of_the_token_endpoint_are_audited_with_the_caller(
    issuer_world: IssuerWorld,
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "unsupported_grant_type": {"grant_type": "client_credentials"},
        "invalid_target": {"audience": "https://api.example.com"},
        "invalid_request": {"requested_token_type": f"{TYPE}refresh_token"},
    }
    for outcome, change in changes.items():
        answer = await exchange(issuer_world, **change)
        (record,) = await audited(issuer_world.world, "token_refused", outcome)
        assert record["caller"] == "calendar-sync"
        assert record["request_id"] == answer.headers["x-request-id"]
    await exchange(issuer_world, scope='a"b')
    await audited(issuer_world.world, "token_refused", "invalid_request", count=2)


async def test_check_29_parameters_in_the_url_are_audited(issuer_world: IssuerWorld) -> None:
    secret = issuer_world.world.key
    for headers, caller in ((issuer_world.world.authorization, "calendar-sync"), ({}, None)):
        answer = await issuer_world.world.internal.post(
            f"/oauth/token?client_secret={secret}", data=form(issuer_world), headers=headers
        )
        assert_refused(answer, 400, "invalid_request")
        outcome = "invalid_request:parameters_in_url"
        *_, record = await audited(
            issuer_world.world, "request_refused", outcome, count=1 if caller else 2
        )
        assert record["caller"] == caller
    assert secret not in await everything_stored(issuer_world.world)


Credentials = tuple[dict[str, str], dict[str, str]]
"""Headers and form parameters that authenticate a client."""


def _assertion(jwt: str, **more: str) -> dict[str, str]:
    return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": jwt, **more}


AUTHENTICATIONS: list[Callable[[str, str], Credentials]] = [
    lambda key, _: ({"Authorization": f"Bearer {key}"}, {}),
    lambda key, _: ({"Authorization": f"bearer {key}"}, {"client_id": NAME}),
    lambda _, workload: ({"Authorization": f"Bearer {workload}"}, {}),
    lambda _, workload: ({"Authorization": f"Bearer {workload}"}, {"client_id": WORKLOAD}),
    lambda key, _: (basic(NAME, key), {}),
    lambda key, _: (basic(NAME, key), {"client_id": NAME}),
    lambda key, _: (basic(quote(NAME, safe=""), quote(key, safe="")), {}),
    lambda key, _: ({}, {"client_id": NAME, "client_secret": key}),
    lambda _, workload: ({}, _assertion(workload)),
    lambda _, workload: ({}, _assertion(workload, client_id=WORKLOAD)),
]


@pytest.mark.parametrize("authenticate", AUTHENTICATIONS)
async def test_check_23_each_standard_client_authentication_method_works(
    issuer_world: IssuerWorld, authenticate: Callable[[str, str], Credentials]
) -> None:
    headers, parameters = authenticate(issuer_world.world.key, issuer_world.issuer.mint())
    answer = await exchange(issuer_world, headers, **parameters)
    assert answer.status_code == 200, answer.text


UNKNOWN_CLIENTS: list[tuple[Callable[[str, str, str], Credentials], str]] = [
    (lambda _k, _w, _u: ({}, {}), "Bearer"),
    (lambda _k, _w, _u: ({"Authorization": "Bearer tb_unknown"}, {}), "Bearer"),
    (
        lambda _k, _w, unknown: ({"Authorization": f"Bearer {unknown}"}, {}),
        'Bearer error="invalid_token"',
    ),
    (
        lambda key, _w, _u: ({"Authorization": f"Bearer {key}"}, {"client_id": WORKLOAD}),
        "Bearer",
    ),
    (lambda key, _w, _u: ({"Authorization": f"Digest {key}"}, {}), "Bearer"),
    (lambda key, _w, _u: (basic(WORKLOAD, key), {}), "Basic"),
    (lambda key, _w, _u: (basic(NAME, key + "x"), {}), "Basic"),
    (lambda _k, _w, _u: (basic(NAME, ""), {}), "Basic"),
    (lambda key, _w, _u: (basic("", key), {}), "Basic"),
    (lambda key, _w, _u: (basic(NAME, key), {"client_id": WORKLOAD}), "Basic"),
    (lambda key, _w, _u: (basic(NAME, hash_key(key)), {}), "Basic"),
    (lambda _k, workload, _u: (basic(WORKLOAD, workload), {}), "Basic"),
    (lambda _k, _w, _u: ({"Authorization": "Basic !"}, {}), "Basic"),
    (lambda _k, _w, _u: ({"Authorization": "Basic " + "QQ" * 9000}, {}), "Basic"),
    (lambda _k, _w, _u: ({"Authorization": "Basic /////w=="}, {}), "Basic"),
    (lambda _k, _w, _u: ({}, {"client_id": NAME}), "Bearer"),
    (lambda key, _w, _u: ({}, {"client_id": WORKLOAD, "client_secret": key}), "Bearer"),
    (lambda key, _w, _u: ({}, {"client_secret": key}), "Bearer"),
    (lambda _k, _w, _u: ({}, {"client_id": NAME, "client_secret": "x"}), "Bearer"),
    (lambda _k, _w, unknown: ({}, _assertion(unknown)), "Bearer"),
    (lambda _k, workload, _u: ({}, _assertion(workload, client_id=NAME)), "Bearer"),
]
"""Functions of a key, a workload's JWT and an unknown JWT; and how the challenge begins."""


@pytest.mark.parametrize(("authenticate", "challenge"), UNKNOWN_CLIENTS)
async def test_check_23_an_unknown_client_is_an_invalid_client(
    issuer_world: IssuerWorld, authenticate: Callable[[str, str, str], Credentials], challenge: str
) -> None:
    unknown = issuer_world.issuer.mint(sub="another")
    headers, parameters = authenticate(issuer_world.world.key, issuer_world.issuer.mint(), unknown)
    answer = await exchange(issuer_world, headers, **parameters)
    assert_refused(answer, 401, "invalid_client", "unauthenticated")
    assert answer.headers["www-authenticate"].startswith(challenge)


TWO_METHODS: list[Callable[[str, str], Credentials]] = [
    lambda key, _: (basic(NAME, key), {"client_id": NAME, "client_secret": key}),
    lambda key, _: (
        {"Authorization": f"Bearer {key}"},
        {"client_secret": key, "client_id": NAME},
    ),
    lambda key, workload: ({"Authorization": f"Bearer {key}"}, _assertion(workload)),
    lambda key, workload: ({}, _assertion(workload, client_id=NAME, client_secret=key)),
    lambda _k, _w: ({}, {"client_assertion_type": "saml", "client_assertion": "x"}),
    lambda _k, _w: ({}, {"client_assertion": "x"}),
    lambda _k, _w: ({}, {"client_assertion_type": ASSERTION_TYPE}),
]


@pytest.mark.parametrize("authenticate", TWO_METHODS)
async def test_two_client_authentication_methods_in_one_request_are_refused(
    issuer_world: IssuerWorld, authenticate: Callable[[str, str], Credentials]
) -> None:
    headers, parameters = authenticate(issuer_world.world.key, issuer_world.issuer.mint())
    answer = await exchange(issuer_world, headers, **parameters)
    assert_refused(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    "pair", [("good", "good"), ("good", "other"), ("other", "good"), ("good", "bearer")]
)
async def test_check_23_two_authorization_headers_are_refused(
    issuer_world: IssuerWorld, pair: tuple[str, str]
) -> None:
    credentials = {
        "good": basic(NAME, issuer_world.world.key),
        "other": basic(WORKLOAD, "x"),
        "bearer": issuer_world.world.authorization,
    }
    headers = [("Authorization", credentials[each]["Authorization"]) for each in pair]
    answer = await issuer_world.world.internal.post(
        "/oauth/token", data=form(issuer_world), headers=headers
    )
    assert_refused(answer, 401, "invalid_client")


SPECIAL_KEY = "aZ9-._~+/+/+/0123456789=="


@pytest.mark.parametrize("sent", [SPECIAL_KEY, quote(SPECIAL_KEY, safe="")])
async def test_a_key_with_special_characters_may_be_encoded_or_not(
    issuer_world: IssuerWorld, sent: str
) -> None:
    await issuer_world.world.rewrite_callers(
        {**issuer_world.callers(), "special": stanza(SPECIAL_KEY)}, issuer_world.issuers()
    )
    assert (await exchange(issuer_world, basic("special", sent))).status_code == 200


async def test_check_27_the_policy_applies_to_token_exchange(issuer_world: IssuerWorld) -> None:
    changed = {
        "calendar-sync": stanza(issuer_world.world.key, users=["another-user"]),
        "blind": stanza("a-key-that-may-not-read-tokens", can=["links:create"]),
    }
    await issuer_world.world.rewrite_callers(changed, issuer_world.issuers())
    before = issuer_world.world.refreshes_at_google()
    assert_refused(await exchange(issuer_world), 400, "invalid_request", "forbidden")
    blind = await exchange(issuer_world, basic("blind", "a-key-that-may-not-read-tokens"))
    assert_refused(blind, 400, "unauthorized_client", "forbidden")
    records = await audited(issuer_world.world, "request_refused", "forbidden", count=2)
    assert [record["caller"] for record in records] == ["calendar-sync", "blind"]
    assert issuer_world.world.refreshes_at_google() == before


async def test_check_31_an_exchanged_token_never_exceeds_requested_granted_and_allowed_scopes(
    issuer_world: IssuerWorld,
) -> None:
    before = issuer_world.world.refreshes_at_google()
    beyond = await exchange(issuer_world, scope=GMAIL_READONLY)
    assert_refused(beyond, 400, "invalid_scope", "scope_not_allowed")
    lacking = await exchange(issuer_world, scope=CALENDAR)
    assert_refused(lacking, 400, "invalid_scope", "scope_not_granted")
    assert lacking.json()["missing"] == [CALENDAR]
    for malformed in (" ", 'a"b', "a\x00"):
        assert_refused(
            await exchange(issuer_world, scope=malformed), 400, "invalid_scope", "invalid_request"
        )
    assert issuer_world.world.refreshes_at_google() == before
    everything = (await exchange(issuer_world)).json()["scope"].split()
    assert CALENDAR_READONLY in everything
    assert not {CALENDAR, GMAIL_READONLY} & set(everything)


async def test_what_the_user_must_fix_is_an_invalid_grant(issuer_world: IssuerWorld) -> None:
    await issuer_world.world.revoke("user-1")
    assert_refused(await exchange(issuer_world), 400, "invalid_grant", "grant_not_found")


async def test_an_unavailable_google_is_temporary(issuer_world: IssuerWorld) -> None:
    issuer_world.world.clock.advance(timedelta(hours=2))
    issuer_world.world.standin.faults.next("token", Fault.http(503))
    answer = await exchange(issuer_world, subject_token=issuer_world.users_jwt())
    assert_refused(answer, 503, "temporarily_unavailable", "google_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_unavailable_issuer_is_temporary(issuer_world: IssuerWorld) -> None:
    issuer_world.issuer.break_down()
    await issuer_world.world.rewrite_callers(
        issuer_world.callers(), issuer_world.issuers(algorithms=["RS256"])
    )
    answer = await exchange(issuer_world)
    assert_refused(answer, 503, "temporarily_unavailable", "issuer_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_a_caller_with_subject_required_gets_tokens_only_by_exchange(
    issuer_world: IssuerWorld,
) -> None:
    world = issuer_world.world
    warm = await world.token()
    assert warm.status_code == (await world.token()).status_code == 200
    await world.rewrite_callers(
        {"calendar-sync": stanza(world.key, subject_required=True)}, issuer_world.issuers()
    )
    single = await world.token()
    batch = await world.internal.post(
        "/v1/tokens", json={"requests": [{"user_id": "user-1"}]}, headers=world.authorization
    )
    for answer in (single, batch):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "access_token" not in answer.text
    await audited(world, "request_refused", "forbidden", count=2)
    assert (await exchange(issuer_world)).status_code == 200
    # Its other permissions are unchanged, and an exchange grants no other access.
    assert len(await world.grants()) == 1
    assert (await world.token()).status_code == 403
