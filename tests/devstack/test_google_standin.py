"""The Google stand-in: every other test relies on it, so these tests pin Google's behaviour."""

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from google.oauth2 import credentials
from googleapiclient import discovery
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from devstack.google_standin import (
    Client,
    Fault,
    GoogleStandin,
    ShownError,
    StateFileError,
    fingerprint,
)
from tests.support.clock import ManualClock

CLIENT_ID = "421-broker.apps.googleusercontent.com"
SECRET = "GOCSPX-planted"
REDIRECT_URI = "http://127.0.0.1:8000/auth/google/callback"
SIBLING = Client("421-sibling.apps.googleusercontent.com", "GOCSPX-sibling", [REDIRECT_URI])
ADA = "ada@example.com"
PREFIX = "https://www.googleapis.com/auth/"
EMAIL, CALENDAR, READONLY = PREFIX + "userinfo.email", PREFIX + "calendar", PREFIX + "drive.file"
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)


class App:
    """Sends what a broker sends."""

    def __init__(self, standin: GoogleStandin, http: httpx2.Client) -> None:
        self.standin = standin
        self.http = http
        http.base_url = standin.base_url

    def authorization_url(self, **changes: str | None) -> str:
        parameters: dict[str, str | None] = {
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": f"openid email {CALENDAR}",
            "state": "the-state",
            "nonce": "the-nonce",
            "access_type": "offline",
            "include_granted_scopes": "true",
            "prompt": "consent",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        parameters |= changes
        query = urlencode({n: v for n, v in parameters.items() if v is not None})
        return f"{self.standin.base_url}/o/oauth2/v2/auth?{query}"

    def code(self, account: str = ADA, **changes: str | None) -> str:
        return callback(self.standin.consent(self.authorization_url(**changes), account))["code"]

    def token(self, **form: str | None) -> httpx2.Response:
        complete: dict[str, str | None] = {"client_id": CLIENT_ID, "client_secret": SECRET}
        complete |= form
        return self.http.post("/token", data={n: v for n, v in complete.items() if v is not None})

    def exchange(self, code: str, **form: str | None) -> httpx2.Response:
        usual: dict[str, str | None] = {"redirect_uri": REDIRECT_URI, "code_verifier": VERIFIER}
        return self.token(grant_type="authorization_code", code=code, **usual | form)

    def refresh(self, refresh_token: str, **form: str | None) -> httpx2.Response:
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)

    def connect(self, account: str = ADA, **changes: str | None) -> dict[str, Any]:
        answer = self.exchange(self.code(account, **changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def calendar(self, access_token: str) -> httpx2.Response:
        bearer = {"Authorization": f"Bearer {access_token}"}
        return self.http.get("/calendar/v3/users/me/calendarList", headers=bearer)

    def claims(self, id_token: str) -> dict[str, Any]:
        """Verify with another implementation than the one that signed."""
        keys = KeySet.import_key_set(self.http.get("/oauth2/v3/certs").json())
        return dict(jwt.decode(id_token, keys, algorithms=["RS256"]).claims)


def callback(address: str) -> dict[str, str]:
    assert address.startswith(REDIRECT_URI + "?")
    return dict(parse_qsl(urlsplit(address).query))


def unverified_claims(id_token: str) -> dict[str, Any]:
    payload = id_token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


@pytest.fixture(scope="module")
def running() -> Iterator[GoogleStandin]:
    standin = GoogleStandin([Client(CLIENT_ID, SECRET, [REDIRECT_URI]), SIBLING])
    standin.start()
    yield standin
    standin.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def standin(running: GoogleStandin, clock: ManualClock) -> GoogleStandin:
    running.reset(clock=clock)
    return running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=5) as http:
        yield http


@pytest.fixture
def app(standin: GoogleStandin, http: httpx2.Client) -> App:
    return App(standin, http)


# Discovery and the authorization request


def test_discovery_contains_the_stand_ins_own_endpoints(app: App) -> None:
    document = app.http.get(app.standin.discovery_url).json()
    assert document["issuer"] == app.standin.base_url
    for name in ("authorization", "token", "revocation", "userinfo"):
        assert document[f"{name}_endpoint"].startswith(app.standin.base_url)


def test_the_callback_contains_code_state_and_googles_scope_names(app: App) -> None:
    answer = callback(app.standin.consent(app.authorization_url(), ADA))
    assert answer["state"] == "the-state"
    assert answer["code"].startswith("4/")
    assert answer["scope"].split() == ["openid", EMAIL, CALENDAR]
    assert "iss" not in answer


def test_iss_is_sent_and_announced_if_configured(app: App) -> None:
    app.standin.behave(send_iss=True)
    document = app.http.get(app.standin.discovery_url).json()
    assert document["authorization_response_iss_parameter_supported"] is True
    answer = callback(app.standin.consent(app.authorization_url(), ADA))
    assert answer["iss"] == document["issuer"]


@pytest.mark.parametrize(
    ("changes", "error", "status"),
    [
        ({"redirect_uri": "https://evil.example/"}, "redirect_uri_mismatch", 400),
        ({"client_id": "421-unknown"}, "invalid_client", 401),
        ({"scope": "nonsense"}, "invalid_scope", 400),
        ({"scope": None}, "invalid_request", 400),
        ({"response_type": "token"}, "invalid_request", 400),
        ({"code_challenge_method": "S512"}, "invalid_request", 400),
        ({"prompt": "none consent"}, "invalid_request", 400),
    ],
)
def test_request_errors_are_shown_and_never_redirected(
    app: App, changes: dict[str, str | None], error: str, status: int
) -> None:
    page = app.http.get(app.authorization_url(**changes))
    assert page.status_code == status
    assert f'data-error="{error}"' in page.text


def test_a_deleted_client_is_shown_as_deleted(app: App) -> None:
    app.standin.delete_client(CLIENT_ID)
    assert 'data-error="deleted_client"' in app.http.get(app.authorization_url()).text
    assert app.refresh("1//x").json()["error"] == "deleted_client"


def test_prompt_none_needs_a_session_and_then_a_consent(app: App) -> None:
    silent = app.authorization_url(prompt="none")
    answer = callback(app.http.get(silent).headers["location"])
    assert answer["error"] == "login_required"
    session = {"Cookie": f"standin_session={app.standin.account(ADA).sub}"}
    answer = callback(app.http.get(silent, headers=session).headers["location"])
    assert answer["error"] == "consent_required"
    app.connect()
    assert "code" in callback(app.http.get(silent, headers=session).headers["location"])


# The pages, driven as by a browser


class Page(HTMLParser):
    """The forms of a page."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__()
        self.actions: list[str] = []
        self.accounts: dict[str, str] = {}
        self.boxes: list[str] = []
        self.scripts = 0
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.actions.append(found["action"])
        if "data-account" in found:
            self.accounts[found["data-account"]] = found["value"]
        if found.get("type") == "checkbox":
            self.boxes.append(found["value"])
        self.scripts += tag == "script"


def consent_page(app: App, **changes: str | None) -> Page:
    chooser = Page(app.http.get(app.authorization_url(**changes)))
    chosen = app.http.post(chooser.actions[0], data={"account": chooser.accounts[ADA]})
    assert chosen.status_code == 303
    return Page(app.http.get(chosen.headers["location"]))


def test_allowing_in_the_browser_sends_it_back_with_a_code(app: App) -> None:
    page = consent_page(app)
    form = {"scope": page.boxes, "decision": "allow"}
    answer = app.http.post(page.actions[0], data=form)
    assert answer.status_code == 303
    code = callback(answer.headers["location"])["code"]
    assert app.exchange(code).status_code == 200


def test_cancelling_sends_the_browser_back_with_access_denied(app: App) -> None:
    page = consent_page(app)
    answer = app.http.post(page.actions[0], data={"scope": page.boxes, "decision": "cancel"})
    expected = {"error": "access_denied", "state": "the-state"}
    assert callback(answer.headers["location"]) == expected


def test_an_unticked_scope_is_not_granted(app: App) -> None:
    page = consent_page(app, scope=f"openid email {CALENDAR} {READONLY}")
    assert page.boxes == [CALENDAR, READONLY]
    answer = app.http.post(page.actions[0], data={"scope": [READONLY], "decision": "allow"})
    tokens = app.exchange(callback(answer.headers["location"])["code"]).json()
    assert tokens["scope"].split() == ["openid", EMAIL, READONLY]


def test_a_scope_granted_before_has_no_box(app: App) -> None:
    app.connect()
    assert consent_page(app, scope=f"openid email {CALENDAR} {READONLY}").boxes == [READONLY]


def test_a_hinted_account_skips_the_chooser_unless_it_is_requested(app: App) -> None:
    hinted = app.http.get(app.authorization_url(login_hint=ADA))
    assert hinted.status_code == 302
    assert Page(app.http.get(hinted.headers["location"])).boxes == [CALENDAR]
    both = app.authorization_url(login_hint=ADA, prompt="select_account consent")
    assert ADA in Page(app.http.get(both)).accounts


def test_without_a_prompt_a_known_consent_needs_no_page(app: App) -> None:
    app.connect()
    hinted = app.http.get(app.authorization_url(login_hint=ADA, prompt=None))
    answer = app.http.get(hinted.headers["location"])
    assert "code" in callback(answer.headers["location"])


def test_the_chooser_can_create_an_account(app: App) -> None:
    chooser = Page(app.http.get(app.authorization_url()))
    app.http.post(chooser.actions[1], data={"email": "new@example.net"})
    assert app.standin.account("new@example.net").name == "New"


def test_pages_have_no_script_and_forbid_framing(app: App) -> None:
    page = app.http.get(app.authorization_url())
    assert Page(page).scripts == 0
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]


def test_a_hostile_hint_is_escaped(app: App) -> None:
    assert "<b>" not in app.http.get(app.authorization_url(login_hint="<b>x")).text


# The code exchange


def test_a_code_exchange_returns_tokens_in_googles_form(app: App) -> None:
    tokens = app.connect()
    assert tokens["access_token"].startswith("ya29.")
    assert tokens["refresh_token"].startswith("1//")
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 3599


def test_the_id_token_verifies_and_names_the_account(app: App) -> None:
    tokens = app.connect("katherine@example.org")
    claims = app.claims(tokens["id_token"])
    digest = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
    assert claims["iss"] == app.standin.base_url
    assert claims["aud"] == CLIENT_ID
    assert claims["nonce"] == "the-nonce"
    assert claims["email"] == "katherine@example.org"
    assert claims["email_verified"] is True
    assert claims["hd"] == "example.org"
    assert claims["at_hash"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_without_openid_there_is_no_id_token(app: App) -> None:
    assert "id_token" not in app.connect(scope=CALENDAR)


def test_a_code_works_once(app: App) -> None:
    code = app.code()
    assert app.exchange(code).status_code == 200
    again = app.exchange(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")


def test_a_code_expires_after_ten_minutes(app: App, clock: ManualClock) -> None:
    code = app.code()
    clock.advance(timedelta(minutes=10))
    assert app.exchange(code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"code_verifier": "w" * 43}, 400, "invalid_grant"),
        ({"code_verifier": None}, 400, "invalid_grant"),
        ({"redirect_uri": "https://other.example/"}, 400, "redirect_uri_mismatch"),
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "421-unknown"}, 401, "invalid_client"),
        ({"client_secret": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"code": "4/never-issued"}, 400, "invalid_grant"),
    ],
)
def test_a_code_exchange_is_refused_in_googles_words(
    app: App, form: dict[str, str | None], status: int, error: str
) -> None:
    usual: dict[str, str | None] = {
        "grant_type": "authorization_code",
        "code": app.code(),
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER,
    }
    answer = app.token(**usual | form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_another_clients_code_is_refused(app: App) -> None:
    answer = app.exchange(
        app.code(), client_id=SIBLING.client_id, client_secret=SIBLING.client_secret
    )
    assert answer.status_code == 401


def test_the_client_may_authenticate_with_basic(app: App) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": app.connect()["refresh_token"]}
    answer = app.http.post("/token", data=form, auth=(CLIENT_ID, SECRET))
    assert answer.status_code == 200
    assert app.standin.requests.to("token")[-1].client_auth == "client_secret_basic"


# Refresh tokens


def test_a_second_consent_returns_a_refresh_token_only_if_prompted(app: App) -> None:
    assert "refresh_token" in app.connect(prompt=None)
    assert "refresh_token" not in app.connect(prompt=None)
    assert "refresh_token" in app.connect(prompt="consent")


def test_online_access_returns_no_refresh_token(app: App) -> None:
    assert "refresh_token" not in app.connect(access_type=None)


def test_scopes_of_all_the_projects_clients_are_combined(app: App) -> None:
    app.connect()
    code = app.code(client_id=SIBLING.client_id, scope=READONLY)
    answer = app.exchange(code, client_id=SIBLING.client_id, client_secret=SIBLING.client_secret)
    assert set(answer.json()["scope"].split()) == {"openid", EMAIL, CALENDAR, READONLY}


def test_scopes_are_not_combined_unless_requested(app: App) -> None:
    app.connect()
    tokens = app.connect(scope=READONLY, include_granted_scopes=None)
    assert tokens["scope"] == READONLY


def test_a_refresh_returns_a_new_access_token_and_no_refresh_token(app: App) -> None:
    first = app.connect()
    second = app.refresh(first["refresh_token"]).json()
    assert second["access_token"] != first["access_token"]
    assert second["scope"] == first["scope"]
    assert "refresh_token" not in second


def test_a_narrower_scope_narrows_the_token(app: App) -> None:
    refresh_token = app.connect()["refresh_token"]
    narrow = app.refresh(refresh_token, scope="email").json()
    assert narrow["scope"] == EMAIL
    assert app.calendar(narrow["access_token"]).status_code == 403
    assert app.refresh(refresh_token).json()["scope"].split() == ["openid", EMAIL, CALENDAR]


def test_a_wider_scope_is_refused(app: App) -> None:
    answer = app.refresh(app.connect()["refresh_token"], scope=f"{CALENDAR} {READONLY}")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


def test_over_the_cap_the_oldest_refresh_token_is_revoked_silently(app: App) -> None:
    app.standin.behave(refresh_token_cap=2)
    oldest, *kept = [app.connect()["refresh_token"] for _ in range(3)]
    assert app.refresh(oldest).json()["error"] == "invalid_grant"
    assert [app.refresh(token).status_code for token in kept] == [200, 200]


def test_the_token_lifetime_is_configurable_and_kept(app: App, clock: ManualClock) -> None:
    app.standin.behave(token_lifetime=5)
    tokens = app.connect()
    assert tokens["expires_in"] == 5
    assert app.calendar(tokens["access_token"]).status_code == 200
    clock.advance(timedelta(seconds=5))
    assert app.calendar(tokens["access_token"]).status_code == 401


def test_a_changed_client_secret_applies_immediately(app: App) -> None:
    refresh_token = app.connect()["refresh_token"]
    app.standin.change_client_secret(CLIENT_ID, "GOCSPX-new")
    assert app.refresh(refresh_token).json()["error"] == "invalid_client"
    assert app.refresh(refresh_token, client_secret="GOCSPX-new").status_code == 200


# Revocation and the account's own events


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revoking_any_token_revokes_the_whole_authorization(app: App, kind: str) -> None:
    first, second = app.connect(), app.connect(scope=READONLY)
    assert app.http.post("/revoke", data={"token": first[kind]}).status_code == 200
    assert app.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"
    assert app.calendar(second["access_token"]).status_code == 401
    assert app.connect(prompt=None)["scope"].split() == ["openid", EMAIL, CALENDAR]


def test_revoking_a_revoked_token_is_invalid_token(app: App) -> None:
    token = {"token": app.connect()["refresh_token"]}
    app.http.post("/revoke", data=token)
    answer = app.http.post("/revoke", data=token)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_token")


def test_revoking_one_account_leaves_the_others(app: App) -> None:
    ada, grace = app.connect(), app.connect("grace@example.com")
    app.standin.revoke_account(ADA)
    assert app.refresh(ada["refresh_token"]).status_code == 400
    assert app.refresh(grace["refresh_token"]).status_code == 200


def test_a_password_change_revokes_only_refresh_tokens_with_mail_scopes(app: App) -> None:
    plain = app.connect()
    mail = app.connect(scope=PREFIX + "gmail.readonly")
    assert app.standin.change_password(ADA) == 1
    assert app.refresh(plain["refresh_token"]).status_code == 200
    assert app.refresh(mail["refresh_token"]).json()["error"] == "invalid_grant"


def test_an_email_change_keeps_the_sub(app: App) -> None:
    refresh_token = app.connect()["refresh_token"]
    sub = app.standin.account(ADA).sub
    app.standin.change_email(ADA, "countess@example.com")
    claims = app.claims(app.refresh(refresh_token).json()["id_token"])
    assert (claims["sub"], claims["email"]) == (sub, "countess@example.com")


# APIs


def test_googles_python_client_lists_and_adds_events(app: App) -> None:
    calendar = discovery.build(
        "calendar",
        "v3",
        credentials=credentials.Credentials(  # type: ignore[no-untyped-call]  # Google's
            app.connect()["access_token"]
        ),
        client_options={"api_endpoint": app.standin.calendar_endpoint},
        static_discovery=True,
    )
    span = {"start": {"date": "2026-01-02"}, "end": {"date": "2026-01-03"}}
    event = {"summary": "Tea", **span}
    added = calendar.events().insert(calendarId="primary", body=event).execute()
    listed = calendar.events().list(calendarId="primary").execute()
    assert calendar.calendarList().list().execute()["items"][0]["id"] == ADA
    assert added["id"] in [item["id"] for item in listed["items"]]
    calendar.close()


def test_an_invalid_token_is_refused_in_googles_form(app: App) -> None:
    answer = app.calendar("ya29.never-issued")
    assert answer.status_code == 401
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_token_without_the_scope_is_refused_in_googles_form(app: App) -> None:
    answer = app.calendar(app.connect(scope=READONLY)["access_token"])
    assert answer.status_code == 403
    assert answer.json()["error"]["errors"][0]["reason"] == "insufficientPermissions"


def test_userinfo_and_tokeninfo_identify_the_account(app: App) -> None:
    token = app.connect()["access_token"]
    sub = app.standin.account(ADA).sub
    userinfo = app.http.get("/v1/userinfo", headers={"Authorization": f"Bearer {token}"})
    assert userinfo.json() == {"sub": sub, "email": ADA, "email_verified": True}
    tokeninfo = app.http.get("/tokeninfo", params={"access_token": token}).json()
    assert (tokeninfo["sub"], tokeninfo["aud"]) == (sub, CLIENT_ID)


# Faults


@pytest.mark.parametrize("fault", [Fault.drop(), Fault.silence(0.05), Fault.half()])
def test_a_connection_can_break(app: App, fault: Fault) -> None:
    refresh_token = app.connect()["refresh_token"]
    app.standin.faults.next("token", fault)
    with pytest.raises(httpx2.RemoteProtocolError):
        app.refresh(refresh_token)
    assert app.refresh(refresh_token).status_code == 200


def test_a_silent_request_times_out_in_the_client(app: App) -> None:
    app.standin.faults.next("token", Fault.silence(30))
    with pytest.raises(httpx2.ReadTimeout):
        app.http.post("/token", timeout=0.05)


@pytest.mark.parametrize(
    ("fault", "status", "body"),
    [
        (Fault.http(503), 503, ""),
        (Fault.rate_limited(7), 429, "rate_limit_exceeded"),
        (Fault.html_403(), 403, "<html>"),
        (Fault.not_json(), 200, '{"access_token": "ya29.cut'),
        (Fault.invalid_grant(), 400, '"error":"invalid_grant"'),
        (Fault.invalid_grant("invalid_rapt"), 400, '"error_subtype":"invalid_rapt"'),
        (Fault.invalid_client(), 401, '"error":"invalid_client"'),
        (Fault.unauthorized_client(), 401, '"error":"unauthorized_client"'),
        (Fault.deleted_client(), 401, '"error":"deleted_client"'),
        (Fault.internal_failure(), 400, '"error":"internal_failure"'),
        (Fault.replacing(expires_in=-5), 200, '"expires_in":-5'),
        (Fault.replacing(scope="wider"), 200, '"scope":"wider"'),
    ],
)
def test_an_answer_can_be_bad(app: App, fault: Fault, status: int, body: str) -> None:
    refresh_token = app.connect()["refresh_token"]
    app.standin.faults.next("token", fault)
    answer = app.refresh(refresh_token)
    assert answer.status_code == status
    assert body in answer.text


def test_rate_limiting_sends_retry_after(app: App) -> None:
    app.standin.faults.next("token", Fault.rate_limited(7))
    assert app.http.post("/token").headers["retry-after"] == "7"


@pytest.mark.parametrize("member", ["access_token", "expires_in", "scope", "refresh_token"])
def test_a_member_can_be_missing(app: App, member: str) -> None:
    app.standin.faults.next("token", Fault.without(member))
    assert member not in app.connect()


def test_a_refresh_token_can_be_rotated(app: App) -> None:
    old = app.connect()["refresh_token"]
    app.standin.faults.next("token", Fault.rotate_refresh_token())
    new = app.refresh(old).json()["refresh_token"]
    assert app.refresh(old).json()["error"] == "invalid_grant"
    assert app.refresh(new).status_code == 200


@pytest.mark.parametrize("defect", ["alg_none", "hs256", "unknown_kid", "bad_signature"])
def test_an_id_token_can_be_forged(app: App, defect: str) -> None:
    app.standin.faults.next("token", Fault.id_token(defect))
    id_token = app.connect()["id_token"]
    with pytest.raises((JoseError, ValueError)):
        app.claims(id_token)


@pytest.mark.parametrize(
    ("defect", "claim", "wrong"),
    [
        ("nonce", "nonce", "another-nonce"),
        ("missing_nonce", "nonce", "absent"),
        ("aud", "aud", "someone-else.apps.googleusercontent.com"),
        ("iss", "iss", "https://accounts.attacker.example"),
        ("missing_sub", "sub", "absent"),
        ("empty_sub", "sub", ""),
        ("null_sub", "sub", None),
    ],
)
def test_an_id_token_can_have_wrong_claims(
    app: App, defect: str, claim: str, wrong: str | None
) -> None:
    app.standin.faults.next("token", Fault.id_token(defect))
    assert unverified_claims(app.connect()["id_token"]).get(claim, "absent") == wrong


def test_an_id_token_can_be_expired(app: App, clock: ManualClock) -> None:
    app.standin.faults.next("token", Fault.id_token("expired"))
    assert app.claims(app.connect()["id_token"])["exp"] < clock.epoch()


def test_a_fault_applies_as_often_as_planned(app: App) -> None:
    planned = app.standin.faults.next("discovery", Fault.http(500), times=2)
    answers = [app.http.get(app.standin.discovery_url).status_code for _ in range(3)]
    assert answers == [500, 500, 200]
    assert planned.met == 2


def test_a_permanent_fault_ends_when_cleared(app: App) -> None:
    app.standin.faults.always("jwks", Fault.http(502))
    assert [app.http.get("/oauth2/v3/certs").status_code for _ in range(3)] == [502] * 3
    app.standin.faults.clear("jwks")
    assert app.http.get("/oauth2/v3/certs").status_code == 200


def test_a_fault_can_apply_to_one_account(app: App) -> None:
    ada, grace = app.connect(), app.connect("grace@example.com")
    app.standin.faults.always("token", Fault.http(503), account=ADA)
    assert app.refresh(grace["refresh_token"]).status_code == 200
    assert app.refresh(ada["refresh_token"]).status_code == 503


def test_a_fault_can_apply_to_one_grant_type(app: App) -> None:
    app.standin.faults.always("token", Fault.http(503), grant_type="refresh_token")
    assert app.refresh(app.connect()["refresh_token"]).status_code == 503


def test_a_planned_error_is_shown_at_authorize(app: App) -> None:
    app.standin.faults.next("authorize", Fault.error("admin_policy_enforced"))
    with pytest.raises(ShownError, match="admin_policy_enforced"):
        app.standin.consent(app.authorization_url(), ADA)


def test_the_callback_can_carry_an_error_instead_of_a_code(app: App) -> None:
    app.standin.faults.next("callback", Fault.error("org_internal"))
    answer = callback(app.standin.consent(app.authorization_url(), ADA))
    assert answer == {"state": "the-state", "error": "org_internal"}


def test_the_callback_can_be_tampered_with(app: App) -> None:
    app.standin.faults.next("callback", Fault.replacing(iss="https://evil.example", state=None))
    answer = callback(app.standin.consent(app.authorization_url(), ADA))
    assert answer["iss"] == "https://evil.example"
    assert "state" not in answer


def test_a_held_request_continues_when_released(app: App) -> None:
    refresh_token = app.connect()["refresh_token"]
    app.standin.faults.next("token", Fault.hold())
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(app.refresh, refresh_token)
        app.standin.holds.wait_until_held()
        app.standin.revoke_account(ADA)
        assert app.standin.holds.release() == 1
        assert answer.result().json()["error"] == "invalid_grant"


def test_an_answer_can_be_late(app: App) -> None:
    refresh_token = app.connect()["refresh_token"]
    app.standin.faults.next("token", Fault.delay(0.05, after=True))
    assert app.refresh(refresh_token).status_code == 200
    # The log's entry is completed after the answer was sent, in the stand-in's thread.
    app.standin.requests.wait_until("token", lambda entries: entries[-1].finished is not None)
    request = app.standin.requests.to("token")[-1]
    assert request.finished is not None
    # A timer may fire a clock tick early.
    assert request.finished - request.started >= 0.045


def test_a_rotated_key_signs_and_the_old_one_stays_published(app: App) -> None:
    before = app.connect()["id_token"]
    kid = app.standin.rotate_keys()
    after = app.connect()["id_token"]
    assert kid in [key["kid"] for key in app.http.get("/oauth2/v3/certs").json()["keys"]]
    assert app.claims(before)["sub"] == app.claims(after)["sub"]


# The log, the control API, restarts


def test_the_request_log_contains_no_secret_but_fingerprints(app: App) -> None:
    tokens = app.connect()
    app.refresh(tokens["refresh_token"])
    app.http.post("/revoke", data={"token": tokens["refresh_token"]})
    seen = json.dumps(app.standin.requests.as_json())
    assert not [s for s in (SECRET, VERIFIER, *app.standin.issued.all()) if s in seen]
    revoked = app.standin.requests.to("revoke")[0]
    assert revoked.parameters["token"] == fingerprint(tokens["refresh_token"])
    assert app.standin.requests.count("token", grant_type="refresh_token") == 1


def test_issued_secrets_are_kept(app: App) -> None:
    tokens = app.connect()
    names = ("access_token", "refresh_token", "id_token")
    assert {tokens[name] for name in names} <= set(app.standin.issued.all())
    assert len(app.standin.issued.codes) == 1


def test_the_control_api_controls_the_stand_in(app: App) -> None:
    def control(method: str, path: str, **body: Any) -> Any:
        answer = app.http.request(method, f"/_control{path}", json=body or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    location = control("POST", "/consent", url=app.authorization_url(), account=ADA)["location"]
    tokens = app.exchange(callback(location)["code"]).json()
    assert tokens["refresh_token"] in control("GET", "/issued")["refresh_tokens"]
    control("POST", "/faults", endpoint="token", fault="html_403", times=1)
    assert app.refresh(tokens["refresh_token"]).status_code == 403
    fault = {"kind": "http", "status": 502}
    control("POST", "/faults", endpoint="token", fault=fault, times=None)
    assert app.refresh(tokens["refresh_token"]).status_code == 502
    control("DELETE", "/faults")
    control("PATCH", "/manners", token_lifetime=9)
    assert app.refresh(tokens["refresh_token"]).json()["expires_in"] == 9
    control("PATCH", f"/clients/{CLIENT_ID}", client_secret="GOCSPX-new")
    assert app.refresh(tokens["refresh_token"]).status_code == 401
    control("POST", f"/accounts/{ADA}/revoke")
    assert control("GET", "/state")["live_refresh_tokens"] == 0
    assert control("GET", "/requests?endpoint=token")["counts"]["token"] == 5


def test_the_control_api_refuses_other_web_pages(app: App) -> None:
    form = app.http.post("/_control/reset", data={"a": "b"})
    assert form.status_code == 415
    foreign = app.http.post("/_control/reset", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403


def test_the_control_api_explains_an_invalid_fault(app: App) -> None:
    answer = app.http.post("/_control/faults", json={"endpoint": "token", "fault": {"kind": "x"}})
    assert answer.status_code == 400
    assert "kind must be one of" in answer.json()["error"]


def test_a_stopped_stand_in_refuses_connections_and_restarts_on_its_port() -> None:
    standin = GoogleStandin()
    address = standin.start()
    standin.stop()
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(standin.discovery_url)
    assert standin.start() == address
    standin.stop()


def test_stopping_closes_a_silent_request() -> None:
    standin = GoogleStandin()
    standin.start()
    standin.faults.always("discovery", Fault.silence(30))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx2.get, standin.discovery_url, timeout=20)
        standin.requests.wait_until("discovery", lambda entries: len(entries) == 1)
        standin.stop()
        with pytest.raises(httpx2.TransportError):
            answer.result()


def test_the_state_survives_a_restart(tmp_path: Path, http: httpx2.Client) -> None:
    state_file = tmp_path / "google.json"
    client = Client(CLIENT_ID, SECRET, [REDIRECT_URI])
    first = GoogleStandin([client], state_file=state_file)
    first.start()
    tokens = App(first, http).connect()
    first.stop()
    second = GoogleStandin([client], state_file=state_file)
    second.start()
    app = App(second, http)
    assert app.refresh(tokens["refresh_token"]).status_code == 200
    assert app.calendar(tokens["access_token"]).status_code == 200
    assert unverified_claims(tokens["id_token"])["sub"] == app.claims(tokens["id_token"])["sub"]
    second.stop()


def test_a_broken_state_file_is_refused_and_named(tmp_path: Path) -> None:
    state_file = tmp_path / "google.json"
    state_file.write_text("{")
    with pytest.raises(StateFileError, match=r"google\.json"):
        GoogleStandin(state_file=state_file)


@pytest.mark.process
def test_it_runs_as_a_process_until_interrupted() -> None:
    command = [sys.executable, "-m", "devstack.google_standin", "--client-id", CLIENT_ID]
    command += ["--client-secret", SECRET, "--redirect-uri", REDIRECT_URI]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[2]
        discovery = httpx2.get(f"{address}/.well-known/openid-configuration")
        process.terminate()
        assert process.wait(60) == 0
    assert discovery.json()["issuer"] == address
