"""The demo page, with a scripted broker and a scripted Calendar API."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from broker.secret import Secret
from devstack.demo import words
from devstack.demo.app import create_app
from devstack.demo.config import DemoConfig, read_config
from tests.support.scopes import CALENDAR_READONLY

KEY = "tb_the-demo-s-own-key"
TOKEN = "ya29.a0AfTHE-REST-OF-A-TOKEN-MUST-NOT-BE-SHOWN"
CONTACTS = "https://www.googleapis.com/auth/contacts.readonly"
LINK = "http://127.0.0.1:8000/auth/google/authorize/alice?link=one-time"
VISIT = "http://127.0.0.1:8000/connections?link=one-time"
CONFIG = DemoConfig(
    port=8080,
    broker_url="http://broker.test",
    broker_key=Secret(KEY),
    scopes=(CALENDAR_READONLY, CONTACTS),
    api_url="http://google.test",
    consent_origins=("http://127.0.0.1:8000", "http://127.0.0.1:8085"),
)


def grant(**changes: Any) -> dict[str, Any]:
    return {
        "account": {"sub": "117", "email": "alice@example.com"},
        "scopes": ["openid", "email", CALENDAR_READONLY],
        "status": "active",
        "default": True,
        "connected_at": "2026-03-01T10:00:00Z",
        "updated_at": "2026-03-01T10:00:00Z",
        "last_used_at": None,
        **changes,
    }


def problem(status: int, code: str, title: str, detail: str) -> httpx2.Response:
    document = {"status": status, "code": code, "title": title, "detail": detail}
    return httpx2.Response(
        status, json=document, headers={"Content-Type": "application/problem+json"}
    )


@dataclass
class ScriptedBroker:
    """Answers by the contract; `answers` replaces single answers by method and path."""

    grants: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[tuple[str, str], httpx2.Response] = field(default_factory=dict)
    requests: list[httpx2.Request] = field(default_factory=list)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        scripted = self.answers.get((request.method, request.url.path))
        if scripted is not None:
            return scripted
        if request.method == "DELETE":
            return httpx2.Response(204)
        if request.url.path.endswith("/grants"):
            return httpx2.Response(200, json={"grants": self.grants})
        if request.url.path.endswith("/connections-links"):
            link = {"id": "vst", "url": VISIT, "expires_at": "2026-03-01T10:10:00Z"}
            return httpx2.Response(201, json=link)
        if request.url.path.endswith("/connect-links"):
            link = {"id": "lnk", "url": LINK, "expires_at": "2026-03-01T10:10:00Z"}
            return httpx2.Response(201, json=link)
        account = self.grants[0]["account"]
        token = {
            "access_token": TOKEN,
            "token_type": "Bearer",
            "expires_in": 3551,
            "expires_at": "2026-03-01T11:00:00Z",
            "scope": request.url.params.get("scope", f"openid email {CALENDAR_READONLY}"),
            "account": account,
        }
        return httpx2.Response(200, json=token)

    def was_called(self, method: str, path: str) -> bool:
        return any((r.method, r.url.path) == (method, path) for r in self.requests)

    def request_to(self, method: str, path: str) -> httpx2.Request:
        return next(r for r in self.requests if (r.method, r.url.path) == (method, path))


@dataclass
class ScriptedGoogle:
    """A Calendar API with one calendar."""

    status: int = 200
    events: list[dict[str, Any]] = field(default_factory=list)
    bearers: list[str] = field(default_factory=list)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.bearers.append(request.headers["Authorization"])
        if self.status != 200:
            return httpx2.Response(self.status, json={"error": {"message": "Not this time."}})
        if request.url.path.endswith("/calendarList"):
            return httpx2.Response(200, json={"items": [{"summary": "Alice at work"}]})
        return httpx2.Response(200, json={"items": self.events})


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def google() -> ScriptedGoogle:
    return ScriptedGoogle()


@pytest.fixture
def page(broker: ScriptedBroker, google: ScriptedGoogle) -> Iterator[TestClient]:
    app = create_app(
        CONFIG,
        broker_transport=httpx2.MockTransport(broker.answer),
        google_transport=httpx2.MockTransport(google.answer),
    )
    with TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=False) as client:
        yield client


def test_the_token_is_never_shown_in_full(page: TestClient, broker: ScriptedBroker) -> None:
    broker.grants = [grant()]

    text = page.get("/").text

    assert "ya29.a0A…" in text
    assert f"{len(TOKEN)} characters" in text
    assert TOKEN[8:] not in text
    assert KEY not in text


def test_the_facts_about_a_token_are_shown(page: TestClient, broker: ScriptedBroker) -> None:
    broker.grants = [grant()]

    text = page.get("/").text

    assert "59 min 11 s" in text
    assert "sign in, email address, read calendars" in text
    assert "alice@example.com" in text


def test_the_page_authenticates_with_its_key(page: TestClient, broker: ScriptedBroker) -> None:
    page.get("/")

    request = broker.request_to("GET", "/v1/users/alice/grants")
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_a_broken_grant_can_be_connected_again_and_requests_no_token(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.grants = [grant(status="reauthorization_required", reason="invalid_grant")]

    text = page.get("/").text

    assert "to be reconnected" in text
    assert "Reconnect" in text
    assert not any(request.url.path.endswith("/token") for request in broker.requests)


def test_connecting_creates_a_link_and_redirects_to_it(
    page: TestClient, broker: ScriptedBroker
) -> None:
    answer = page.post("/connect", data={"scope": [CALENDAR_READONLY, CONTACTS]})

    assert (answer.status_code, answer.headers["Location"]) == (303, LINK)
    body = json.loads(broker.request_to("POST", "/v1/users/alice/connect-links").content)
    assert body == {
        "scopes": [CALENDAR_READONLY, CONTACTS],
        "return_to": "http://127.0.0.1:8080/connected",
    }


def test_without_a_scope_no_link_is_created(page: TestClient, broker: ScriptedBroker) -> None:
    answer = page.post("/connect")

    assert answer.status_code == 303
    assert broker.requests == []
    assert "Tick at least one box." in page.get("/").text


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        ("connected", "Google is connected"),
        ("denied", "not allowed on Google&#39;s page"),
        ("failed", "Please try again"),
        ("<b>odd</b>", "Please try again"),
    ],
)
def test_the_return_shows_the_outcome_and_clears_the_address(
    page: TestClient, status: str, shown: str
) -> None:
    answer = page.get("/connected", params={"status": status, "link_id": "lnk"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert shown in page.get("/").text
    assert shown not in page.get("/").text, "a notice is shown once"


def test_a_problem_of_the_broker_is_shown(page: TestClient, broker: ScriptedBroker) -> None:
    broker.grants = [grant()]
    broker.answers["GET", "/v1/users/alice/token"] = problem(
        503, "google_unavailable", "Google does not answer", "Try again in a while."
    )

    answer = page.get("/")

    assert answer.status_code == 200
    assert "Google does not answer" in answer.text
    assert "Try again in a while." in answer.text
    assert "google_unavailable" in answer.text


def test_a_refused_link_is_shown_after_the_redirect(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.answers["POST", "/v1/users/alice/connect-links"] = problem(
        403, "scope_not_allowed", "Scope not allowed", "This caller may not ask for that."
    )

    assert page.post("/connect", data={"scope": CALENDAR_READONLY}).status_code == 303
    assert "This caller may not ask for that." in page.get("/").text


def test_an_unavailable_broker_is_named(broker: ScriptedBroker) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    app = create_app(CONFIG, broker_transport=httpx2.MockTransport(refuse))
    with TestClient(app) as page:
        answer = page.get("/")

    assert answer.status_code == 200
    assert "The broker does not answer" in answer.text
    assert "http://broker.test" in answer.text


def test_an_answer_that_is_no_problem_document_is_shown(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.answers["GET", "/v1/users/alice/grants"] = httpx2.Response(502, text="<html>Bad</html>")

    assert "The broker answered 502" in page.get("/").text


def test_withdrawing_revokes_the_grant_of_the_account(
    page: TestClient, broker: ScriptedBroker
) -> None:
    answer = page.post("/withdraw", data={"account": "117", "email": "alice@example.com"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert broker.was_called("DELETE", "/v1/users/alice/grants/117")
    assert "No service gets a token for alice@example.com any more." in page.get("/").text


def test_the_calendar_is_read_with_a_narrowed_token(
    page: TestClient, broker: ScriptedBroker, google: ScriptedGoogle
) -> None:
    broker.grants = [grant()]
    google.events = [
        {"summary": "Tea", "start": {"dateTime": "2026-03-02T15:30:00+00:00"}},
        {"summary": "Holiday", "start": {"date": "2026-03-03"}},
        {"start": {}},
    ]

    text = page.get("/calendar", params={"account": "117"}).text

    query = broker.request_to("GET", "/v1/users/alice/token").url.params
    assert dict(query) == {"account": "117", "scope": CALENDAR_READONLY}
    assert google.bearers == [f"Bearer {TOKEN}"] * 2
    assert "Alice at work" in text
    assert "Mon 2 Mar, 15:30</span> Tea" in text
    assert "Tue 3 Mar, all day</span> Holiday" in text
    assert "(no title)" in text


def test_a_refusal_of_the_calendar_api_is_quoted(
    page: TestClient, broker: ScriptedBroker, google: ScriptedGoogle
) -> None:
    broker.grants = [grant()]
    google.status = 403

    text = page.get("/calendar", params={"account": "117"}).text

    assert "403, Not this time." in text


def test_a_missing_scope_is_reported_by_the_broker(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.answers["GET", "/v1/users/alice/token"] = problem(
        409, "scope_not_granted", "Not granted", "Missing: calendar.readonly."
    )

    text = page.get("/calendar", params={"account": "117"}).text

    assert "Missing: calendar.readonly." in text


def test_the_chosen_user_is_requested(page: TestClient, broker: ScriptedBroker) -> None:
    assert page.post("/user", data={"user": "bob"}).status_code == 303

    page.get("/")

    assert broker.was_called("GET", "/v1/users/bob/grants")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "a\nb", "<b>"])
def test_an_odd_user_name_is_refused(page: TestClient, broker: ScriptedBroker, name: str) -> None:
    page.post("/user", data={"user": name})

    assert "That name won&#39;t do" in page.get("/").text
    assert broker.was_called("GET", "/v1/users/alice/grants")


def test_a_form_of_another_site_is_refused(page: TestClient, broker: ScriptedBroker) -> None:
    answer = page.post(
        "/withdraw", data={"account": "117"}, headers={"Sec-Fetch-Site": "cross-site"}
    )

    assert answer.status_code == 403
    assert broker.requests == []


def test_external_texts_are_escaped(page: TestClient, broker: ScriptedBroker) -> None:
    hostile = "<script>alert(1)</script>"
    broker.grants = [grant(account={"sub": hostile, "email": hostile}, scopes=[hostile])]

    assert "<script" not in page.get("/").text


def test_a_forged_notice_is_ignored(page: TestClient) -> None:
    page.cookies.set("demo_notice", "bm90IGpzb24=")

    assert page.get("/").status_code == 200


def test_the_page_has_no_script_and_loads_nothing_from_elsewhere(page: TestClient) -> None:
    answer = page.get("/")

    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|(?:src|href)=\"(?![/#])", answer.text)


def test_a_form_may_lead_to_google_through_the_broker(page: TestClient) -> None:
    policy = page.get("/").headers["Content-Security-Policy"]

    assert "form-action 'self' http://127.0.0.1:8000 http://127.0.0.1:8085" in policy


def test_the_style_sheet_is_served(page: TestClient) -> None:
    assert page.get("/assets/demo.css").headers["Content-Type"].startswith("text/css")


def test_durations_are_formatted() -> None:
    assert [words.span_words(s) for s in (0, 59, 61, 3600, 3661)] == [
        "0 s",
        "59 s",
        "1 min 1 s",
        "1 h 0 min",
        "1 h 1 min",
    ]


def test_identity_scopes_are_not_offered(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)

    config = read_config(
        {
            "DEMO_PORT": "8080",
            "DEMO_BROKER_URL": "http://127.0.0.1:8001",
            "DEMO_BROKER_KEY_FILE": str(key),
            "DEMO_SCOPES": f"openid email {CALENDAR_READONLY}",
            "DEMO_API_URL": "http://127.0.0.1:8085",
            "DEMO_CONSENT_ORIGINS": "http://127.0.0.1:8000",
        }
    )

    assert config.scopes == (CALENDAR_READONLY,)


def test_the_user_is_redirected_to_their_own_page_and_back(
    page: TestClient, broker: ScriptedBroker
) -> None:
    answer = page.post("/manage", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, VISIT)
    request = broker.request_to("POST", "/v1/users/alice/connections-links")
    assert json.loads(request.content) == {"return_to": CONFIG.return_to}
    back = page.get("/connected", follow_redirects=False)
    assert (back.status_code, back.headers["location"]) == (303, "/")
    assert "set-cookie" not in back.headers
