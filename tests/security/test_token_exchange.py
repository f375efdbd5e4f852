"""Checks 23, 27, 29, 30 and 31 of `POST /oauth/token`, made on a whole broker from outside."""

from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

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
from tests.security.probes import audited, everything_stored
from tests.support.workloads import USERS_AUDIENCE, WORKLOAD, Trusting
from tests.support.world import (
    CALENDAR,
    CALENDAR_READONLY,
    GMAIL_READONLY,
    stanza,
)


async def test_check_30_the_answer_says_which_type_was_issued(trusting: Trusting) -> None:
    answer = await exchange(trusting)
    assert answer.status_code == 200
    body = answer.json()
    assert body.keys() == {"access_token", "issued_token_type", "token_type", "expires_in", "scope"}
    assert body["issued_token_type"] == f"{TYPE}access_token"
    assert body["token_type"] == "Bearer"
    assert 0 < body["expires_in"] <= 3600
    assert CALENDAR_READONLY in body["scope"].split()
    assert answer.headers["cache-control"] == "no-store"
    assert body["access_token"] == (await trusting.world.token()).json()["access_token"]


async def test_the_hand_out_is_counted_and_on_record(trusting: Trusting) -> None:
    assert (await exchange(trusting)).status_code == 200
    (record,) = await audited(trusting.world, "token_handed_out", "ok")
    assert (record["caller"], record["user_id"]) == ("calendar-sync", "user-1")
    assert CALENDAR_READONLY in record["scopes"]
    count = await trusting.world.metric(
        "broker_token_requests_total", caller="calendar-sync", outcome="ok"
    )
    assert count == 1


async def test_the_user_is_the_one_of_the_jwt_and_nobody_else(trusting: Trusting) -> None:
    answer = await exchange(trusting, subject_token=trusting.users_jwt("user-2"), user_id="user-1")
    assert_refused(answer, 400, "invalid_grant", "grant_not_found")


async def test_scope_narrows_the_token(trusting: Trusting) -> None:
    await trusting.world.connect("user-1", scopes=[CALENDAR, CALENDAR_READONLY])
    answer = await exchange(trusting, scope=CALENDAR_READONLY)
    assert answer.json()["scope"].split() == [CALENDAR_READONLY]


async def test_account_names_the_google_account(trusting: Trusting) -> None:
    await trusting.world.connect("user-1", "grace@example.com")
    by_name = await exchange(trusting, account="grace@example.com")
    default = await exchange(trusting)
    assert by_name.status_code == default.status_code == 200
    assert by_name.json()["access_token"] != default.json()["access_token"]
    nobody = await exchange(trusting, account="nobody@example.com")
    assert_refused(nobody, 400, "invalid_grant", "grant_not_found")


async def test_each_type_of_jwt_may_be_the_subject(trusting: Trusting) -> None:
    for kind in ("jwt", "id_token", "access_token"):
        answer = await exchange(trusting, subject_token_type=TYPE + kind)
        assert answer.status_code == 200, kind
    at_jwt = trusting.users_jwt(headers={"typ": "at+jwt"})
    as_access = await exchange(
        trusting, subject_token=at_jwt, subject_token_type=f"{TYPE}access_token"
    )
    assert as_access.status_code == 200
    as_id = await exchange(trusting, subject_token=at_jwt, subject_token_type=f"{TYPE}id_token")
    assert_refused(as_id, 400, "invalid_request", "subject_token_refused")


async def test_another_claim_may_hold_the_user_id(trusting: Trusting) -> None:
    rule = {"audience": USERS_AUDIENCE, "claim": "employee"}
    await trusting.world.rewrite_callers(trusting.callers(), trusting.issuers(users=rule))
    good = trusting.users_jwt("somebody", employee="user-1")
    assert (await exchange(trusting, subject_token=good)).status_code == 200
    for claims in ({}, {"employee": 1}, {"employee": ""}, {"employee": ["user-1"]},
                   {"employee": "user-1\n"}, {"employee": "u" * 256}):  # fmt: skip
        answer = await exchange(trusting, subject_token=trusting.users_jwt("user-1", **claims))
        assert_refused(answer, 400, "invalid_request", "subject_token_refused")


async def test_an_email_counts_only_if_the_issuer_has_verified_it(trusting: Trusting) -> None:
    rule = {"audience": USERS_AUDIENCE, "claim": "email"}
    await trusting.world.rewrite_callers(trusting.callers(), trusting.issuers(users=rule))
    for verified, status in ((True, 200), ("true", 200), (False, 400), ("no", 400), (None, 400)):
        token = trusting.users_jwt("x", email="user-1", email_verified=verified)
        answer = await exchange(trusting, subject_token=token)
        assert answer.status_code == status, verified


@pytest.mark.parametrize("missing", ["grant_type", "subject_token", "subject_token_type"])
@pytest.mark.parametrize("value", [None, ""])
async def test_check_30_a_missing_parameter_is_an_invalid_request(
    trusting: Trusting, missing: str, value: str | None
) -> None:
    changes: dict[str, Any] = {missing: value}
    answer = await exchange(trusting, **changes)
    assert_refused(answer, 400, "invalid_request")
    assert missing in answer.json()["error_description"]


async def test_check_30_what_is_not_offered_is_refused_clearly(trusting: Trusting) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
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
    for changes, error in refused:
        assert_refused(await exchange(trusting, **changes), 400, error)
    accepted: list[dict[str, Any]] = [
        {"requested_token_type": f"{TYPE}access_token"},
        {"audience": "https://www.googleapis.com/"},
        {"resource": ["https://www.googleapis.com/calendar/v3/", "https://gmail.googleapis.com"]},
        {"unknown": "ignored"},
        {"scope": ""},
        {"actor_token": ""},
    ]
    for changes in accepted:
        assert (await exchange(trusting, **changes)).status_code == 200, changes


async def test_check_30_the_form_is_read_strictly(trusting: Trusting) -> None:
    good = urlencode(form(trusting))
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    bodies: list[tuple[str, dict[str, str], int]] = [
        (good + "&grant_type=" + quote(GRANT_TYPE), kind, 400),
        (good + "&scope=a&scope=a", kind, 400),
        (good + "&x=1&x=2", kind, 400),
        (good + "&subject_token=", kind, 400),
        ("", kind, 400),
        ("&&&", kind, 400),
        ("grant_type", kind, 400),
        (good + "&a=%ff", kind, 400),
        (good + "&" + "&".join(f"p{number}=1" for number in range(100)), kind, 400),
        (good, {"Content-Type": "application/json"}, 400),
        (good, {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        (good, {"Content-Type": "text/plain"}, 400),
        (good + "&pad=" + "x" * 70_000, kind, 413),
    ]
    for body, headers, status in bodies:
        answer = await trusting.world.internal.post(
            "/oauth/token", content=body, headers={**trusting.world.authorization, **headers}
        )
        assert_refused(answer, status, "invalid_request")
    charset = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}
    answer = await trusting.world.internal.post(
        "/oauth/token", content=good, headers={**trusting.world.authorization, **charset}
    )
    assert answer.status_code == 200


async def test_check_29_nothing_is_taken_from_the_url(trusting: Trusting) -> None:
    good = form(trusting)
    for query in (urlencode(good), f"access_token={trusting.world.key}", "x"):
        for body in (good, {}):
            answer = await trusting.world.internal.post(
                f"/oauth/token?{query}", data=body, headers=trusting.world.authorization
            )
            assert_refused(answer, 400, "invalid_request")
    assert (await trusting.world.internal.get("/oauth/token")).status_code == 405


async def test_check_30_a_subject_token_that_proves_nobody_is_an_invalid_request(
    trusting: Trusting,
) -> None:
    now = int(trusting.world.clock.epoch())
    jwt, users_jwt = trusting.issuer.mint, trusting.users_jwt
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
        # A service's own identity is no user, though it had one of the right audience made.
        jwt(aud=USERS_AUDIENCE),
        jwt(aud=[USERS_AUDIENCE, "token-broker"]),
        trusting.world.key,
        "ya29.an-opaque-token",
        "….…",
    ]
    for number, token in enumerate(bad):
        answer = await exchange(trusting, subject_token=token)
        assert_refused(answer, 400, "invalid_request", "subject_token_refused")
        assert token not in answer.text, number
    refusals = await audited(
        trusting.world, "token_refused", "subject_token_refused", count=len(bad)
    )
    assert {record["caller"] for record in refusals} == {"calendar-sync"}
    assert {record["user_id"] for record in refusals} == {None}
    assert trusting.world.refreshes_at_google() == 0


async def test_a_user_who_says_who_may_act_is_heeded(trusting: Trusting) -> None:
    name, issuer = "calendar-sync", trusting.issuer.url
    subject = trusting.issuer.claims()["sub"]
    as_workload = {"Authorization": f"Bearer {trusting.issuer.mint()}"}
    as_key = trusting.world.authorization
    cases: list[tuple[dict[str, str], object, int]] = [
        (as_key, {"sub": name}, 200),
        (as_workload, {"sub": WORKLOAD}, 200),
        (as_workload, {"sub": subject}, 200),
        (as_workload, {"sub": subject, "iss": issuer}, 200),
        (as_key, {"sub": WORKLOAD}, 400),
        (as_key, {"sub": subject}, 400),
        (as_key, {"sub": name, "iss": issuer}, 400),
        (as_workload, {"sub": name}, 400),
        (as_workload, {"sub": subject, "iss": "https://elsewhere.example.com"}, 400),
        (as_workload, {"iss": issuer}, 400),
        (as_key, {}, 400),
        (as_key, name, 400),
        (as_key, [{"sub": name}], 400),
    ]
    for headers, may_act, status in cases:
        token = trusting.users_jwt(may_act=may_act)
        answer = await exchange(trusting, headers, subject_token=token)
        assert answer.status_code == status, may_act
        if status == 400:
            assert_refused(answer, 400, "invalid_request", "subject_token_refused")


async def test_what_the_token_endpoint_refuses_is_on_record_by_its_caller(
    trusting: Trusting,
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "unsupported_grant_type": {"grant_type": "client_credentials"},
        "invalid_target": {"audience": "https://api.example.com"},
        "invalid_request": {"requested_token_type": f"{TYPE}refresh_token"},
    }
    for outcome, change in changes.items():
        answer = await exchange(trusting, **change)
        (record,) = await audited(trusting.world, "token_refused", outcome)
        assert record["caller"] == "calendar-sync"
        assert record["request_id"] == answer.headers["x-request-id"]
    await exchange(trusting, scope='a"b')
    await audited(trusting.world, "token_refused", "invalid_request", count=2)


async def test_check_29_parameters_in_the_url_are_on_record(trusting: Trusting) -> None:
    secret = trusting.world.key
    for headers, caller in ((trusting.world.authorization, "calendar-sync"), ({}, None)):
        answer = await trusting.world.internal.post(
            f"/oauth/token?client_secret={secret}", data=form(trusting), headers=headers
        )
        assert_refused(answer, 400, "invalid_request")
        outcome = "invalid_request:parameters_in_url"
        *_, record = await audited(
            trusting.world, "request_refused", outcome, count=1 if caller else 2
        )
        assert record["caller"] == caller
    assert secret not in await everything_stored(trusting.world)


async def test_check_23_each_standard_way_of_client_authentication_works(
    trusting: Trusting,
) -> None:
    key, name = trusting.world.key, "calendar-sync"
    workload = trusting.issuer.mint()
    assertion = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": workload}
    ways: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"Authorization": f"Bearer {key}"}, {}),
        ({"Authorization": f"bearer {key}"}, {"client_id": name}),
        ({"Authorization": f"Bearer {workload}"}, {}),
        ({"Authorization": f"Bearer {workload}"}, {"client_id": WORKLOAD}),
        (basic(name, key), {}),
        (basic(name, key), {"client_id": name}),
        (basic(quote(name, safe=""), quote(key, safe="")), {}),
        ({}, {"client_id": name, "client_secret": key}),
        ({}, assertion),
        ({}, {**assertion, "client_id": WORKLOAD}),
    ]
    for headers, parameters in ways:
        answer = await exchange(trusting, headers, **parameters)
        assert answer.status_code == 200, (headers.keys(), parameters.keys(), answer.text)


async def test_check_23_who_is_not_known_is_an_invalid_client(trusting: Trusting) -> None:
    key, name = trusting.world.key, "calendar-sync"
    unknown = trusting.issuer.mint(sub="another")
    ways: list[tuple[dict[str, str], dict[str, str], str]] = [
        ({}, {}, "Bearer"),
        ({"Authorization": "Bearer tb_unknown"}, {}, "Bearer"),
        ({"Authorization": f"Bearer {unknown}"}, {}, 'Bearer error="invalid_token"'),
        ({"Authorization": f"Bearer {key}"}, {"client_id": WORKLOAD}, "Bearer"),
        ({"Authorization": f"Digest {key}"}, {}, "Bearer"),
        (basic(WORKLOAD, key), {}, "Basic"),
        (basic(name, key + "x"), {}, "Basic"),
        (basic(name, ""), {}, "Basic"),
        (basic("", key), {}, "Basic"),
        (basic(name, key), {"client_id": WORKLOAD}, "Basic"),
        (basic(name, hash_key(key)), {}, "Basic"),
        (basic(WORKLOAD, trusting.issuer.mint()), {}, "Basic"),
        ({"Authorization": "Basic !"}, {}, "Basic"),
        ({"Authorization": "Basic " + "QQ" * 9000}, {}, "Basic"),
        ({"Authorization": "Basic /////w=="}, {}, "Basic"),
        ({}, {"client_id": name}, "Bearer"),
        ({}, {"client_id": WORKLOAD, "client_secret": key}, "Bearer"),
        ({}, {"client_secret": key}, "Bearer"),
        ({}, {"client_id": name, "client_secret": "x"}, "Bearer"),
        ({}, {"client_assertion_type": ASSERTION_TYPE, "client_assertion": unknown}, "Bearer"),
        (
            {},
            {
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": trusting.issuer.mint(),
                "client_id": name,
            },
            "Bearer",
        ),
    ]
    for headers, parameters, challenge in ways:
        answer = await exchange(trusting, headers, **parameters)
        assert_refused(answer, 401, "invalid_client", "unauthenticated")
        assert answer.headers["www-authenticate"].startswith(challenge), (headers, parameters)


async def test_two_ways_of_client_authentication_are_one_too_many(trusting: Trusting) -> None:
    key, name = trusting.world.key, "calendar-sync"
    assertion = {
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": trusting.issuer.mint(),
    }
    for headers, parameters in (
        (basic(name, key), {"client_id": name, "client_secret": key}),
        (trusting.world.authorization, {"client_secret": key, "client_id": name}),
        (trusting.world.authorization, assertion),
        ({}, {**assertion, "client_id": name, "client_secret": key}),
        ({}, {"client_assertion_type": "saml", "client_assertion": "x"}),
        ({}, {"client_assertion": "x"}),
        ({}, {"client_assertion_type": ASSERTION_TYPE}),
    ):
        answer = await exchange(trusting, headers, **parameters)
        assert_refused(answer, 400, "invalid_request")


async def test_check_23_two_authorization_headers_are_none(trusting: Trusting) -> None:
    good, other = basic("calendar-sync", trusting.world.key), basic(WORKLOAD, "x")
    for pair in ((good, good), (good, other), (other, good), (good, trusting.world.authorization)):
        headers = [("Authorization", each["Authorization"]) for each in pair]
        answer = await trusting.world.internal.post(
            "/oauth/token", data=form(trusting), headers=headers
        )
        assert_refused(answer, 401, "invalid_client")


async def test_a_key_with_odd_characters_may_be_encoded_or_not(trusting: Trusting) -> None:
    key = "aZ9-._~+/+/+/0123456789=="
    await trusting.world.rewrite_callers(
        {**trusting.callers(), "odd": stanza(key)}, trusting.issuers()
    )
    for headers in (basic("odd", key), basic("odd", quote(key, safe=""))):
        assert (await exchange(trusting, headers)).status_code == 200


async def test_check_27_the_policy_holds_for_exchange_too(trusting: Trusting) -> None:
    changed = {
        "calendar-sync": stanza(trusting.world.key, users=["somebody-else"]),
        "blind": stanza("a-key-that-may-not-read-tokens", can=["links:create"]),
    }
    await trusting.world.rewrite_callers(changed, trusting.issuers())
    before = trusting.world.refreshes_at_google()
    assert_refused(await exchange(trusting), 400, "invalid_request", "forbidden")
    blind = await exchange(trusting, basic("blind", "a-key-that-may-not-read-tokens"))
    assert_refused(blind, 400, "unauthorized_client", "forbidden")
    records = await audited(trusting.world, "request_refused", "forbidden", count=2)
    assert [record["caller"] for record in records] == ["calendar-sync", "blind"]
    assert trusting.world.refreshes_at_google() == before


async def test_check_31_never_more_than_requested_granted_and_allowed(trusting: Trusting) -> None:
    before = trusting.world.refreshes_at_google()
    beyond = await exchange(trusting, scope=GMAIL_READONLY)
    assert_refused(beyond, 400, "invalid_scope", "scope_not_allowed")
    lacking = await exchange(trusting, scope=CALENDAR)
    assert_refused(lacking, 400, "invalid_scope", "scope_not_granted")
    assert lacking.json()["missing"] == [CALENDAR]
    for malformed in (" ", 'a"b', "a\x00"):
        assert_refused(
            await exchange(trusting, scope=malformed), 400, "invalid_scope", "invalid_request"
        )
    assert trusting.world.refreshes_at_google() == before
    everything = (await exchange(trusting)).json()["scope"].split()
    assert CALENDAR_READONLY in everything
    assert not {CALENDAR, GMAIL_READONLY} & set(everything)


async def test_what_the_user_must_mend_is_an_invalid_grant(trusting: Trusting) -> None:
    await trusting.world.revoke("user-1")
    assert_refused(await exchange(trusting), 400, "invalid_grant", "grant_not_found")


async def test_google_away_is_temporary(trusting: Trusting) -> None:
    trusting.world.clock.advance(timedelta(hours=2))
    trusting.world.standin.faults.next("token", Fault.http(503))
    answer = await exchange(trusting, subject_token=trusting.users_jwt())
    assert_refused(answer, 503, "temporarily_unavailable", "google_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_users_issuer_away_is_temporary(trusting: Trusting) -> None:
    trusting.issuer.break_down()
    await trusting.world.rewrite_callers(trusting.callers(), trusting.issuers(algorithms=["RS256"]))
    answer = await exchange(trusting)
    assert_refused(answer, 503, "temporarily_unavailable", "issuer_unavailable")
    assert int(answer.headers["retry-after"]) >= 1


async def test_who_must_bring_the_user_gets_tokens_in_no_other_way(trusting: Trusting) -> None:
    world = trusting.world
    warm = await world.token()
    assert warm.status_code == (await world.token()).status_code == 200
    await world.rewrite_callers(
        {"calendar-sync": stanza(world.key, subject_required=True)}, trusting.issuers()
    )
    single = await world.token()
    batch = await world.internal.post(
        "/v1/tokens", json={"requests": [{"user_id": "user-1"}]}, headers=world.authorization
    )
    for answer in (single, batch):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "access_token" not in answer.text
    await audited(world, "request_refused", "forbidden", count=2)
    assert (await exchange(trusting)).status_code == 200
    # What else it may do is untouched, and an exchange opens no door beside it.
    assert len(await world.grants()) == 1
    assert (await world.token()).status_code == 403
