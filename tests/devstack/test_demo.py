"""The demo page, in front of a broker and a Google that answer from a script."""

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

KEY = "tb_the-demo-s-own-key"
TOKEN = "ya29.a0AfTHE-REST-OF-A-TOKEN-IS-NOBODY-S-BUSINESS"
CALENDAR = "https://www.googleapis.com/auth/calendar.readonly"
CONTACTS = "https://www.googleapis.com/auth/contacts.readonly"
LINK = "http://127.0.0.1:8000/auth/google/authorize/alice?link=one-time"
VISIT = "http://127.0.0.1:8000/connections?link=one-time"
CONFIG = DemoConfig(
    port=8080,
    broker_url="http://broker.test",
    broker_key=Secret(KEY),
    scopes=(CALENDAR, CONTACTS),
    api_url="http://google.test",
    consent_origins=("http://127.0.0.1:8000", "http://127.0.0.1:8085"),
)


def grant(**changes: Any) -> dict[str, Any]:
    return {
        "account": {"sub": "117", "email": "alice@example.com"},
        "scopes": ["openid", "email", CALENDAR],
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
    """Answers as the contract says; `answers` replaces single answers by method and path."""

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
            "scope": request.url.params.get("scope", f"openid email {CALENDAR}"),
            "account": account,
        }
        return httpx2.Response(200, json=token)

    def was_asked(self, method: str, path: str) -> bool:
        return any((r.method, r.url.path) == (method, path) for r in self.requests)

    def sent(self, method: str, path: str) -> httpx2.Request:
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


def test_a_token_s_facts_are_shown(page: TestClient, broker: ScriptedBroker) -> None:
    broker.grants = [grant()]

    text = page.get("/").text

    assert "59 min 11 s" in text
    assert "sign in, email address, read calendars" in text
    assert "alice@example.com" in text


def test_the_broker_knows_the_page_by_its_key(page: TestClient, broker: ScriptedBroker) -> None:
    page.get("/")

    sent = broker.sent("GET", "/v1/users/alice/grants")
    assert sent.headers["Authorization"] == f"Bearer {KEY}"


def test_a_dead_grant_offers_to_connect_again_and_asks_for_no_token(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.grants = [grant(status="reauthorization_required", reason="invalid_grant")]

    text = page.get("/").text

    assert "to be connected again" in text
    assert "Connect again" in text
    assert not any(request.url.path.endswith("/token") for request in broker.requests)


def test_connecting_asks_for_a_link_and_goes_there(
    page: TestClient, broker: ScriptedBroker
) -> None:
    answer = page.post("/connect", data={"scope": [CALENDAR, CONTACTS]})

    assert (answer.status_code, answer.headers["Location"]) == (303, LINK)
    asked = json.loads(broker.sent("POST", "/v1/users/alice/connect-links").content)
    assert asked == {
        "scopes": [CALENDAR, CONTACTS],
        "return_to": "http://127.0.0.1:8080/connected",
    }


def test_nothing_ticked_asks_for_no_link(page: TestClient, broker: ScriptedBroker) -> None:
    answer = page.post("/connect")

    assert answer.status_code == 303
    assert broker.requests == []
    assert "Tick at least one box." in page.get("/").text


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("connected", "Google is connected"),
        ("denied", "not allowed on Google&#39;s page"),
        ("failed", "Please try again"),
        ("<b>odd</b>", "Please try again"),
    ],
)
def test_coming_back_says_how_it_went_and_clears_the_address(
    page: TestClient, status: str, said: str
) -> None:
    answer = page.get("/connected", params={"status": status, "link_id": "lnk"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert said in page.get("/").text
    assert said not in page.get("/").text, "a notice is shown once"


def test_the_broker_s_problem_is_put_in_words(page: TestClient, broker: ScriptedBroker) -> None:
    broker.grants = [grant()]
    broker.answers["GET", "/v1/users/alice/token"] = problem(
        503, "google_unavailable", "Google does not answer", "Try again in a while."
    )

    answer = page.get("/")

    assert answer.status_code == 200
    assert "Google does not answer" in answer.text
    assert "Try again in a while." in answer.text
    assert "google_unavailable" in answer.text


def test_a_refused_link_is_told_after_the_redirect(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.answers["POST", "/v1/users/alice/connect-links"] = problem(
        403, "scope_not_allowed", "Scope not allowed", "This caller may not ask for that."
    )

    assert page.post("/connect", data={"scope": CALENDAR}).status_code == 303
    assert "This caller may not ask for that." in page.get("/").text


def test_a_broker_that_is_away_is_named(broker: ScriptedBroker) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    app = create_app(CONFIG, broker_transport=httpx2.MockTransport(refuse))
    with TestClient(app) as page:
        answer = page.get("/")

    assert answer.status_code == 200
    assert "The broker does not answer" in answer.text
    assert "http://broker.test" in answer.text


def test_an_answer_that_is_no_problem_document_still_reads_well(
    page: TestClient, broker: ScriptedBroker
) -> None:
    broker.answers["GET", "/v1/users/alice/grants"] = httpx2.Response(502, text="<html>Bad</html>")

    assert "The broker answered 502" in page.get("/").text


def test_withdrawing_ends_that_account_s_grant(page: TestClient, broker: ScriptedBroker) -> None:
    answer = page.post("/withdraw", data={"account": "117", "email": "alice@example.com"})

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert broker.was_asked("DELETE", "/v1/users/alice/grants/117")
    assert "Nobody gets a token for alice@example.com any more." in page.get("/").text


def test_the_calendar_is_read_with_a_token_for_nothing_else(
    page: TestClient, broker: ScriptedBroker, google: ScriptedGoogle
) -> None:
    broker.grants = [grant()]
    google.events = [
        {"summary": "Tea", "start": {"dateTime": "2026-03-02T15:30:00+00:00"}},
        {"summary": "Holiday", "start": {"date": "2026-03-03"}},
        {"start": {}},
    ]

    text = page.get("/calendar", params={"account": "117"}).text

    asked = broker.sent("GET", "/v1/users/alice/token").url.params
    assert dict(asked) == {"account": "117", "scope": CALENDAR}
    assert google.bearers == [f"Bearer {TOKEN}"] * 2
    assert "Alice at work" in text
    assert "Mon 2 Mar, 15:30</span> Tea" in text
    assert "Tue 3 Mar, all day</span> Holiday" in text
    assert "(no title)" in text


def test_a_calendar_that_refuses_is_quoted(
    page: TestClient, broker: ScriptedBroker, google: ScriptedGoogle
) -> None:
    broker.grants = [grant()]
    google.status = 403

    text = page.get("/calendar", params={"account": "117"}).text

    assert "403, Not this time." in text


def test_a_missing_scope_is_the_broker_s_to_say(page: TestClient, broker: ScriptedBroker) -> None:
    broker.answers["GET", "/v1/users/alice/token"] = problem(
        409, "scope_not_granted", "Not granted", "Missing: calendar.readonly."
    )

    text = page.get("/calendar", params={"account": "117"}).text

    assert "Missing: calendar.readonly." in text


def test_each_user_is_asked_for_by_name(page: TestClient, broker: ScriptedBroker) -> None:
    assert page.post("/user", data={"user": "bob"}).status_code == 303

    page.get("/")

    assert broker.was_asked("GET", "/v1/users/bob/grants")


@pytest.mark.parametrize("name", ["", "a/b", "x" * 65, "a\nb", "<b>"])
def test_an_odd_user_name_is_refused(page: TestClient, broker: ScriptedBroker, name: str) -> None:
    page.post("/user", data={"user": name})

    assert "That name won&#39;t do" in page.get("/").text
    assert broker.was_asked("GET", "/v1/users/alice/grants")


def test_another_site_s_form_is_refused(page: TestClient, broker: ScriptedBroker) -> None:
    answer = page.post(
        "/withdraw", data={"account": "117"}, headers={"Sec-Fetch-Site": "cross-site"}
    )

    assert answer.status_code == 403
    assert broker.requests == []


def test_what_comes_from_outside_is_escaped(page: TestClient, broker: ScriptedBroker) -> None:
    hostile = "<script>alert(1)</script>"
    broker.grants = [grant(account={"sub": hostile, "email": hostile}, scopes=[hostile])]

    assert "<script" not in page.get("/").text


def test_a_forged_notice_is_ignored(page: TestClient) -> None:
    page.cookies.set("demo_notice", "bm90IGpzb24=")

    assert page.get("/").status_code == 200


def test_the_page_runs_nothing_and_loads_nothing_foreign(page: TestClient) -> None:
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


def test_its_stylesheet_is_there(page: TestClient) -> None:
    assert page.get("/assets/demo.css").headers["Content-Type"].startswith("text/css")


def test_spans_of_time_are_put_in_words() -> None:
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
            "DEMO_SCOPES": f"openid email {CALENDAR}",
            "DEMO_API_URL": "http://127.0.0.1:8085",
            "DEMO_CONSENT_ORIGINS": "http://127.0.0.1:8000",
        }
    )

    assert config.scopes == (CALENDAR,)


def test_the_user_is_sent_to_their_own_page_and_comes_back(
    page: TestClient, broker: ScriptedBroker
) -> None:
    sent = page.post("/manage", follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, VISIT)
    asked = broker.sent("POST", "/v1/users/alice/connections-links")
    assert json.loads(asked.content) == {"return_to": CONFIG.return_to}
    back = page.get("/connected", follow_redirects=False)
    assert (back.status_code, back.headers["location"]) == (303, "/")
    assert "set-cookie" not in back.headers
