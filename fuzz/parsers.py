"""Parsers of what browsers and callers send: links, state, cookies, queries, forms, bodies."""

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from starlette.requests import Request, cookie_parser

from broker.callers.registry import bearer_of
from broker.connections.visitor_cookies import FormAction, VisitorCookies
from broker.connections.visits import Visit, VisitTokens
from broker.consent.authorization_requests import StateTokens
from broker.consent.browser_cookies import BrowserCookies
from broker.consent.callback import read_callback
from broker.consent.links import ConnectLink, LinkTokens
from broker.crypto.signing import Signer
from broker.exchange.errors import OAuthError
from broker.exchange.form import is_google
from broker.exchange.form import read_form as read_token_form
from broker.issuers.model import JwtRefused
from broker.issuers.unverified_jwt import read_unverified
from broker.pages.browser_input import read_form
from broker.scopes import is_scope_name, parse_scopes
from broker.secret import Secret
from broker.strict_json import read_object
from broker.tokens.token_request import (
    ItemSplitter,
    TokenRequest,
    checked_account,
    checked_min_ttl,
    checked_scopes,
    read_item,
    read_items,
)
from broker.web.bodies import read_json_object
from broker.web.parameters import is_user_id, path_parameter, query_parameters, read_query
from broker.web.problems import Problem, problem_response
from broker.wording.catalogue import preferred_language
from fuzz.target import Target, must, of_bytes, run_sync

_KEYS = [
    Secret("a key that signs, of 32 bytes or more"),
    Secret("an old key of 32 bytes or more.."),
]
_NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
_ID = UUID("0123456789abcdef0123456789abcdef")
_FORM = b"application/x-www-form-urlencoded"


def parser_targets() -> list[Target]:
    """Return the targets that need only their input."""
    return [
        _link_tokens(),
        _visit_links(),
        _states(),
        _browser_cookies(),
        _visitor_cookies(),
        of_bytes("callback query", _check_callback, _CALLBACKS),
        of_bytes("authorization header", _check_authorization, _AUTHORIZATIONS),
        of_bytes("unverified JWT", _check_unverified_jwt, _JWTS),
        of_bytes("strict JSON", _check_strict_json, _DOCUMENTS),
        of_bytes("JSON body", _check_json_body, _DOCUMENTS),
        of_bytes("batch body", _check_batch, _BATCHES),
        of_bytes("page form", _check_page_form, _FORMS),
        of_bytes("token exchange form", _check_token_form, _FORMS),
        of_bytes("user id in a path", _check_user_id, [b"user-1", b"%C3%A9", b"a%2Fb", b"%00"]),
        of_bytes("token query", _check_token_query, _QUERIES),
        of_bytes("exchange target", _check_exchange_target, _TARGETS),
        of_bytes("Accept-Language", _check_language, _LANGUAGES),
    ]


def _signed(check: Callable[[str], object], good: str) -> Callable[[bytes], None]:
    """Only the exact bytes that were issued are accepted."""

    def only_what_was_issued(data: bytes) -> None:
        text = data.decode("utf-8", "surrogateescape")
        must(not check(text) or text == good, "accepted what was never issued")

    must(check(good), "the sample is invalid")
    return only_what_was_issued


def _link_tokens() -> Target:
    tokens = LinkTokens(Signer(_KEYS, "links"))
    link = ConnectLink(
        id=_ID,
        caller="calendar-sync",
        user_id="user-1",
        scopes=("openid",),
        redirect_uri="http://127.0.0.1:8000/auth/google/callback",
        return_to=None,
        login_hint=None,
        force_consent=False,
        expires_at=_NOW + timedelta(minutes=10),
        completed_at=None,
    )
    good = tokens.issue(link)

    def check(text: str) -> bool:
        must(
            not isinstance(tokens.verify(text, user_id="user-2", now=_NOW), UUID),
            "valid for another",
        )
        return isinstance(tokens.verify(text, user_id="user-1", now=_NOW), UUID)

    return of_bytes("connect link", _signed(check, good), [good.encode()], longest=256)


def _visit_links() -> Target:
    links = VisitTokens(Signer(_KEYS, "connections links"), "http://127.0.0.1:8000")
    visit = Visit(
        id=_ID,
        caller="calendar-sync",
        user_id="user-1",
        return_to=None,
        link_expires_at=_NOW + timedelta(minutes=10),
        is_opened=False,
        ends_at=_NOW + timedelta(minutes=10),
    )
    good = links.url(visit).partition("link=")[2]
    check = _signed(lambda text: isinstance(links.verify(text, now=_NOW), UUID), good)
    return of_bytes("connections link", check, [good.encode()], longest=256)


def _states() -> Target:
    states = StateTokens(Signer(_KEYS, "state"))
    good = states.issue()
    return of_bytes("state", _signed(states.has_issued, good), [good.encode()], longest=256)


class _Jar:
    """Stands in for a response and keeps its cookies."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    def set_cookie(self, name: str, value: str, **_: object) -> None:
        self.cookies[name] = value


def _browser_cookies() -> Target:
    cookies = BrowserCookies(Signer(_KEYS, "browser cookie"))
    jar: Any = _Jar()
    cookies.identify_or_create({}, is_https=False).set_cookie(jar)
    cookies.identify_or_create({}, is_https=True).set_cookie(jar)

    def check(data: bytes) -> None:
        sent = cookie_parser(data.decode("latin-1"))
        for browser in cookies.identify(sent):
            must(
                sent.get(browser.cookie_name) == jar.cookies[browser.cookie_name],
                "an invented cookie is accepted",
            )

    return of_bytes("browser cookies", check, _cookie_headers(jar))


def _visitor_cookies() -> Target:
    cookies = VisitorCookies(
        visitors=Signer(_KEYS, "connections visitors"),
        forms=Signer(_KEYS, "connections forms"),
        notices=Signer(_KEYS, "connections notices"),
        is_https=False,
    )
    jar: Any = _Jar()
    visitor = cookies.create()
    cookies.set_visitor(visitor, jar)
    token = cookies.form_token(visitor, FormAction.LEAVE)

    def check(data: bytes) -> None:
        text = data.decode("latin-1")
        sent = cookie_parser(text)
        known = cookies.identify(sent)
        must(known is None or known == visitor, "an invented visitor is accepted")
        must(cookies.read_notice(visitor, sent) is None, "an invented notice is shown")
        about = text.partition(";")[2]
        must(
            not cookies.is_form_token(text, visitor, FormAction.WITHDRAW, about),
            "another visitor's form is accepted",
        )

    return of_bytes("visitor cookies", check, [*_cookie_headers(jar), token.encode()])


def _cookie_headers(jar: _Jar) -> list[bytes]:
    pairs = [f"{name}={value}" for name, value in jar.cookies.items()]
    return [text.encode() for text in (*pairs, "; ".join(pairs), 'a="b"; c', "broker_browser=")]


_CALLBACKS = [
    b"state=abc&code=4/0Ab&scope=openid%20email",
    b"state=abc&error=access_denied&iss=https%3A%2F%2Faccounts.google.com",
    b"state=%ED%A0%80&code=%ff",
]


def _check_callback(data: bytes) -> None:
    query = read_query(data)
    callback = read_callback(data)
    must(callback is None or query is not None, "a callback without a readable query")
    if callback is not None and callback.code is not None:
        # Other parameters with the same text may be shown.
        must("4/0Ab" not in repr(callback.code), "a code is shown")


_AUTHORIZATIONS = [b"Bearer tb_abc", b"bearer a.b.c", b"Basic YTpi", b"Bearer  a"]


def _check_authorization(data: bytes) -> None:
    credential = bearer_of(data)
    if credential is not None:
        must(data.endswith(credential) and b" " not in credential, "not what was sent")


def _segment(document: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")


_HEADER = {"alg": "RS256", "kid": "key-1", "typ": "JWT"}
_CLAIMS = {"iss": "https://issuer.example", "aud": ["a"], "sub": "s", "exp": 1, "nbf": 1.5}
_JWTS = [
    b".".join((_segment(_HEADER), _segment(_CLAIMS), b"c2ln")),
    b".".join((_segment({"alg": "none"}), _segment({}), b"")),
    b".".join((_segment(_HEADER | {"crit": ["b64"], "b64": False}), _segment([]), b"AA")),
]


def _check_unverified_jwt(data: bytes) -> None:
    try:
        jwt = read_unverified(data, at_most=4096)
    except JwtRefused as refusal:
        must(refusal.__cause__ is None and refusal.reason.isidentifier(), "a refusal quotes")
        return
    again = jwt.signed + b"." + base64.urlsafe_b64encode(jwt.signature).rstrip(b"=")
    must(again == data, "one token has two spellings")
    must(jwt.algorithm.lower() != "none", "an unsigned token is read")


_DOCUMENTS = [
    b'{"scopes": ["openid"], "return_to": "https://app.example.com", "confirm": true}',
    b'{"code": "abc"}',
    b'{"a": {"b": [1, 2.5, null, "\\u00e9"]}, "n": 1e3}',
    b"[]",
]


def _check_strict_json(data: bytes) -> None:
    try:
        document = read_object(data)
    except ValueError as error:
        must(str(error) in ("not strict JSON", "not a JSON object"), "a refusal quotes")
        return
    must(json.loads(data) == document, "read differently than by json")


def _request(
    body: bytes = b"", media_type: bytes = b"application/json", **scope: object
) -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", media_type)]
    usual = {"type": "http", "method": "POST", "headers": headers, "query_string": b""}
    return Request(usual | scope, receive)


def _refused(reading: Callable[[], object]) -> Problem | None:
    """Return the refusal, if any, after checking that its response can be encoded."""
    try:
        reading()
    except Problem as problem:
        must(400 <= problem.status < 500, f"answered {problem.status}")
        problem_response(problem, "some-id")
        return problem
    return None


def _check_json_body(data: bytes) -> None:
    def read() -> None:
        document = run_sync(read_json_object(_request(data)))
        json.dumps(document, ensure_ascii=False).encode()

    _refused(read)


_BATCHES = [
    b'{"requests": [{"user_id": "user-1"}, {"user_id": "u", "scope": "openid", "min_ttl": 60}]}',
    b'{"requests": [{"account": "ada@example.com", "user_id": "u"}, {"user_id": 7}, 5, {}, []]}',
    b'{"requests": [{"user_id": {"a": 1}, "min_ttl": -1.5e9}]}',
]


def _check_batch(data: bytes) -> None:
    def read() -> None:
        items, questions = read_items(data), ItemSplitter()
        for place, item in enumerate(items):
            asked = read_item(item, place)
            if isinstance(asked, Problem):
                problem_response(asked, "some-id")
            else:
                must(is_user_id(asked.user_id), "no user id")
                # None if the item must be read in detail, as it was above.
                split = questions.split(item)
                must(split is None or TokenRequest(split[0], *split[1]) == asked, "read otherwise")
        try:
            list(ItemSplitter().split_all(items))
        except TypeError:
            # As in `BatchRoute`.
            return

    _refused(read)


_FORMS = [
    b"token=abc.def&grant=0123&proof=x",
    (
        b"grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token=a.b.c"
        b"&subject_token_type=urn:ietf:params:oauth:token-type:jwt&audience=https://googleapis.com"
        b"&resource=a&resource=b&client_id=x&client_secret=y"
    ),
    b"a=%C3%A9+b&c=&d",
]


def _check_page_form(data: bytes) -> None:
    fields: Mapping[str, str] | None = run_sync(read_form(_request(data, _FORM)))
    for value in (fields or {}).values():
        value.encode()


def _check_token_form(data: bytes) -> None:
    try:
        form = _awaited(read_token_form(_request(data, _FORM)))
    except OAuthError as error:
        must(400 <= error.status < 500, f"answered {error.status}")
        return
    except Problem as problem:
        must(problem.status == 413, f"answered {problem.status}")
        return
    for value in (*form.parameters.values(), *form.targets):
        value.encode()
        is_google(value)


def _awaited(reading: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await reading

    return run_sync(wait())


def _check_user_id(data: bytes) -> None:
    request = _request(path_params={"user_id": data.decode("latin-1")})

    def read() -> None:
        text = path_parameter(request, "user_id")
        if is_user_id(text):
            must("\x00" not in text and text.encode(), "no user id")

    _refused(read)


_QUERIES = [
    b"scope=openid+email&account=ada%40example.com&min_ttl=60",
    b"scope=https://www.googleapis.com/auth/calendar",
    b"min_ttl=0060&account=%F0%9F%98%80",
]


def _check_token_query(data: bytes) -> None:
    request = _request(query_string=data)

    def read() -> None:
        found = query_parameters(request, {"scope", "account", "min_ttl"})
        scopes = checked_scopes(found.get("scope"))
        checked_account(found.get("account"))
        must(0 <= checked_min_ttl(found.get("min_ttl")) <= 86_400, "no min_ttl")
        must(all(map(is_scope_name, scopes or ())), "no scope")
        parse_scopes(found.get("scope", ""))

    _refused(read)


_TARGETS = [
    b"https://www.googleapis.com/auth/calendar",
    b"https://google.com@evil.example/",
    b"calendar-json.googleapis.com:443",
    b"https://evil.example#.google.com",
    b"https://[::1]/google.com",
]


def _check_exchange_target(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    if is_google(text):
        host = urlsplit(text if "//" in text else f"https://{text}").netloc.partition(":")[0]
        must(host.lower().endswith(("googleapis.com", "google.com")), "not Google's")


_LANGUAGES = [b"ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", b"*;q=0.5, en;q=0", b"zh-Hant-TW", b"ko;q=2"]


def _check_language(data: bytes) -> None:
    must(
        preferred_language(data.decode("latin-1"), ("en", "ko")) in ("en", "ko"),
        "not a supported language",
    )
