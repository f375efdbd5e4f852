"""Every route of the three listeners as a target."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fuzz.files import PLANTED
from fuzz.fuzzed_broker import FuzzedBroker
from fuzz.requests import Made, Shape, make
from fuzz.target import Target, of_choices
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import REDIRECT_URI, RETURN_TO

_TYPE = "urn:ietf:params:oauth:token-type:"
_USERS = {"user_id": ("fuzz-1", "user-1", "nobody-1", "é", ".", "a/b", "x" * 255)}
_SCOPES = (CALENDAR_READONLY, GMAIL_READONLY, "openid", f"{CALENDAR} {CALENDAR_READONLY}", "")

_Samples = Mapping[str, Any]


def _token(samples: _Samples) -> Shape:
    return Shape(
        "GET token", "internal", "GET", "/v1/users/{user_id}/token", _USERS,
        query={
            "scope": _SCOPES,
            "account": (samples["sub"], "ada@example.com", "nobody"),
            "min_ttl": ("0", "60", "86400", "86401", "-1", "1e3"),
        },
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _batch(samples: _Samples) -> Shape:
    item = {"user_id": "fuzz-1", "scope": CALENDAR_READONLY, "account": "nobody", "min_ttl": 60}
    return Shape(
        "POST tokens", "internal", "POST", "/v1/tokens",
        body={
            "requests": (
                [item], [{"user_id": "fuzz-1"}] * 5, [item, {"user_id": "user-1"}, 5], [],
                [{"user_id": 5, "scope": [], "account": {}, "min_ttl": 1.5}],
                [{"user_id": "a\x00"}],
            )
        },
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _link(samples: _Samples) -> Shape:
    return Shape(
        "POST connect-links", "internal", "POST", "/v1/users/{user_id}/connect-links", _USERS,
        body={
            "scopes": ([CALENDAR_READONLY], CALENDAR_READONLY, [GMAIL_READONLY], ["a b"], []),
            "return_to": (RETURN_TO, RETURN_TO + "/", "javascript:alert(1)"),
            "login_hint": ("ada@example.com", "a\nb", ""),
            "redirect_uri": (REDIRECT_URI, "https://evil.example/"),
            "confirm": (True, False, "true"),
        },
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _visit(samples: _Samples) -> Shape:
    return Shape(
        "POST connections-links", "internal", "POST", "/v1/users/{user_id}/connections-links",
        _USERS,
        body={"return_to": (RETURN_TO, "https://evil.example/", None)},
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _grants(samples: _Samples) -> Shape:
    return Shape(
        "GET grants", "internal", "GET", "/v1/users/{user_id}/grants", _USERS,
        query={"x": ("",)},
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _revoke_all(samples: _Samples) -> Shape:
    return Shape(
        "DELETE grants", "internal", "DELETE", "/v1/users/{user_id}/grants", _USERS,
        query={"confirm": ("1",)},
        body={"confirm": (True,)},
        authorizations=samples["authorizations"][1:],
    )  # fmt: skip


def _revoke_one(samples: _Samples) -> Shape:
    return Shape(
        "DELETE grant", "internal", "DELETE", "/v1/users/{user_id}/grants/{sub}",
        {**_USERS, "user_id": ("user-1", "nobody-1"), "sub": (samples["sub"], "1", "é", "a/b")},
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _confirm(samples: _Samples) -> Shape:
    return Shape(
        "POST confirm", "internal", "POST", "/v1/connect-links/{id}/confirm",
        {"id": (samples["link_id"], "00000000-0000-0000-0000-000000000000", "x")},
        body={"code": (PLANTED, "", "a" * 256)},
        authorizations=samples["authorizations"],
    )  # fmt: skip


def _exchange(samples: _Samples) -> Shape:
    return Shape(
        "POST oauth/token", "internal", "POST", "/oauth/token",
        body={
            "grant_type": ("urn:ietf:params:oauth:grant-type:token-exchange", "refresh_token"),
            "subject_token": (samples["subject"], samples["bad_subject"], PLANTED),
            "subject_token_type": (f"{_TYPE}jwt", f"{_TYPE}id_token", f"{_TYPE}saml2"),
            "requested_token_type": (f"{_TYPE}access_token", f"{_TYPE}refresh_token"),
            "resource": ("https://www.googleapis.com/calendar", "https://evil.example"),
            "scope": _SCOPES,
            "account": (samples["sub"], "nobody"),
            "min_ttl": ("60", "-1"),
            "client_id": ("weak", "other"),
            "client_secret": (PLANTED, ""),
            "client_assertion": (samples["assertion"], PLANTED),
            "client_assertion_type": (
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "x",
            ),
        },
        media_type=b"application/x-www-form-urlencoded",
        authorizations=[*samples["authorizations"], samples["basic"], b"Basic \xff", b"Basic Og=="],
    )  # fmt: skip


def _authorize(method: str) -> Callable[[_Samples], Shape]:
    """A link that another browser has opened, and a valid one with another user id."""

    def shape(samples: _Samples) -> Shape:
        return Shape(
            f"{method} authorize", "public", method, "/auth/google/authorize/{user_id}",
            {"user_id": ("user-3", "user-2", "é", "x" * 300)},
            query={"link": (samples["opened"], samples["link"], "x")},
            body={"proof": ("x.y", PLANTED), "token": ("a",)} if method == "POST" else {},
            media_type=b"application/x-www-form-urlencoded",
            cookies=[samples["guest"], b"broker_browser=a.b"],
        )  # fmt: skip

    return shape


def _callback(samples: _Samples) -> Shape:
    """A valid state without its browser's cookie, or the cookie without a valid state."""
    return Shape(
        "GET callback", "public", "GET", "/auth/google/callback",
        query={
            "state": (samples["state"], samples["state"][:-1] + "!", "x.y"),
            "code": ("4/0" + PLANTED, ""),
            "iss": (samples["api_origin"], "https://accounts.google.com"),
            "error": ("access_denied", "<script>", ""),
            "scope": ("openid email",),
        },
        cookies=[samples["guest"], b"broker_browser=" + PLANTED.encode() + b".x"],
    )  # fmt: skip


def _events(samples: _Samples) -> Shape:
    return Shape(
        "POST risc", "public", "POST", "/auth/google/risc",
        raw_bodies=[token.encode() for token in samples["bad_events"]],
        media_type=b"application/secevent+jwt",
    )  # fmt: skip


def _page(samples: _Samples) -> Shape:
    return Shape(
        "GET connections", "public", "GET", "/connections",
        query={"link": (samples["link"], "x.1.y"), "link_id": (samples["link_id"], "x")},
        cookies=[samples["guest"], samples["browser"], b"connections_visitor=a.b"],
    )  # fmt: skip


def _deed(method: str, name: str) -> Callable[[_Samples], Shape]:
    """A visitor with a form of another site."""

    def shape(samples: _Samples) -> Shape:
        return Shape(
            f"{method} connections/{name}", "public", method, f"/connections/{name}",
            query={"grant": (samples["grant"], "x")} if method == "GET" else {},
            body={"token": ("leave.abc", PLANTED), "grant": (samples["grant"], "x")}
            if method == "POST"
            else {},
            media_type=b"application/x-www-form-urlencoded",
            cookies=[samples["guest"], samples["browser"]],
        )  # fmt: skip

    return shape


def _plain(
    listener: str, path: str, **path_parameters: Sequence[str]
) -> Callable[[_Samples], Shape]:
    def shape(_samples: _Samples) -> Shape:
        return Shape(
            f"GET {path.strip('/') or 'root'}",
            listener,
            "GET",
            path,
            path_parameters,
            query={"v": ("1",)},
        )

    return shape


_SHAPES: Mapping[str, Callable[[_Samples], Shape]] = {
    "GET token": _token,
    "POST tokens": _batch,
    "POST connect-links": _link,
    "POST connections-links": _visit,
    "POST confirm": _confirm,
    "GET grants": _grants,
    "DELETE grants": _revoke_all,
    "DELETE grant": _revoke_one,
    "POST oauth/token": _exchange,
    "GET authorize": _authorize("GET"),
    "POST authorize": _authorize("POST"),
    "GET callback": _callback,
    "POST risc": _events,
    "GET connections": _page,
    "GET withdraw": _deed("GET", "withdraw"),
    "POST withdraw": _deed("POST", "withdraw"),
    "POST connect": _deed("POST", "connect"),
    "POST leave": _deed("POST", "leave"),
    "GET closed": _plain("public", "/connections/closed"),
    "GET static": _plain("public", "/auth/google/static/{name}", name=("style.css", "../x", "%")),
    "GET metrics": _plain("ops", "/metrics"),
    "GET livez": _plain("ops", "/livez"),
    "GET readyz": _plain("ops", "/readyz"),
    "no path": _plain("internal", "/{any}", any=("", "v1", "auth/google/callback", "connections")),
}
ROUTE_NAMES = tuple(f"route {name}" for name in _SHAPES)


def route_target(name: str, broker: FuzzedBroker) -> Target:
    """Return a route of this broker as a target."""
    shape = _SHAPES[name.removeprefix("route ")](broker.samples)

    def play(rng: random.Random) -> None:
        made: Made = make(rng, shape)
        broker.ask(shape.listener, made)

    return of_choices(name, play)
