"""The callers file: what it may contain, and the messages about mistakes."""

import hashlib

import pytest

from broker.callers import checked_yaml
from broker.callers.callers_file import CallersFileError, decode_callers, parse_callers
from broker.callers.keys import hash_key
from broker.callers.model import Permission, RateLimit, Workload
from tests.callers.stanzas import CONTRACT, KEY, OTHER_KEY, SCOPE, callers_file, stanza


def problems_of(text: str) -> list[str]:
    with pytest.raises(CallersFileError) as caught:
        parse_callers(text)
    assert KEY not in str(caught.value)
    return caught.value.problems


def problem_of(text: str) -> str:
    problems = problems_of(text)
    assert len(problems) == 1, problems
    return problems[0]


def test_the_example_of_the_contract_is_read() -> None:
    (caller,) = parse_callers(CONTRACT).callers

    assert caller.name == "calendar-sync"
    assert caller.key_hashes == {hashlib.sha256(KEY.encode()).digest()}
    assert caller.permissions == set(Permission)
    assert caller.scopes == (SCOPE,)
    assert caller.users == ("*",)
    assert caller.return_to == ("https://app.example.com/settings",)
    assert caller.require_confirmation is False
    assert caller.workload == Workload(
        "https://kubernetes.default.svc",
        "token-broker",
        "system:serviceaccount:prod:calendar-sync",
    )


def test_each_of_several_keys_identifies_the_caller() -> None:
    keys = f'["{hash_key(KEY)}", "{hash_key(OTHER_KEY).upper().replace("SHA", "sha")}"]'
    callers = parse_callers(callers_file(stanza(keys=keys)))

    by_digest = callers.by_digest()
    assert by_digest[hashlib.sha256(KEY.encode()).digest()].name == "calendar-sync"
    assert by_digest[hashlib.sha256(OTHER_KEY.encode()).digest()].name == "calendar-sync"


def test_a_caller_that_only_reads_grants_needs_no_scopes() -> None:
    (caller,) = parse_callers(callers_file(stanza(can="[grants:read]", scopes=None))).callers

    assert caller.scopes == ()


def test_an_explicitly_empty_list_of_callers_is_valid() -> None:
    assert parse_callers("callers: {}").callers == ()


def test_people_see_the_display_name_or_else_the_name() -> None:
    text = callers_file(
        stanza("a", display_name="Acme Calendar"), stanza("b", keys='["sha256:' + "1" * 64 + '"]')
    )
    assert [caller.shown_name for caller in parse_callers(text).callers] == ["Acme Calendar", "b"]


def test_json_is_accepted_as_yaml() -> None:
    text = (
        '{"callers": {"a": {"keys": ["' + hash_key(KEY) + '"], "can": ["grants:read"], '
        '"users": ["*"], "require_confirmation": true}}}'
    )

    assert parse_callers(text).callers[0].require_confirmation is True


def test_all_problems_are_listed_together_with_their_place() -> None:
    text = callers_file(
        stanza(can="[links:create, token:read]", users=None),
        stanza("Mail", keys=f'["{hash_key(OTHER_KEY)}"]', scope="[x]", scopes=None),
    )

    assert problems_of(text) == [
        (
            "callers.calendar-sync.can[1] (line 4): unknown permission 'token:read'; "
            "did you mean 'tokens:read'?"
        ),
        'callers.calendar-sync (line 2): `users` is missing; for all users, write ["*"]',
        "callers.Mail (line 10): unknown setting 'scope'; did you mean 'scopes'?",
        (
            "callers.Mail (line 6): `scopes` is missing; for example "
            "[https://www.googleapis.com/auth/calendar.readonly]"
        ),
    ]


@pytest.mark.parametrize(
    ("settings", "place", "words"),
    [
        ({"keys": None}, "callers.calendar-sync ", "neither `keys` nor `workload`"),
        ({"keys": "[]"}, "keys ", "must not be empty"),
        ({"keys": "[sha256: abc]"}, "keys[0]", "in quotes and without a space"),
        ({"keys": "['" + "a" * 64 + "']"}, "keys[0]", "needs its kind before it"),
        ({"keys": "['sha256:abc']"}, "keys[0]", "exactly 64 hex digits"),
        ({"keys": "['sha512:abc']"}, "keys[0]", "only sha256"),
        ({"keys": f'["{hash_key("")}"]'}, "keys[0]", "hash of an empty text"),
        ({"keys": f'"{hash_key(KEY)}"'}, "keys ", "must be a list"),
        ({"can": None}, "calendar-sync ", "`can` is missing; any of [tokens:read"),
        ({"can": "[]"}, "can ", "must not be empty"),
        ({"can": "tokens:read"}, "can ", "must be a list"),
        ({"can": "[fly]"}, "can[0]", "known are tokens:read, links:create"),
        ({"scopes": None}, "calendar-sync ", "`scopes` is missing"),
        ({"scopes": "[]"}, "scopes ", "must not be empty"),
        ({"scopes": "['a b']"}, "scopes[0]", "several scopes"),
        ({"scopes": "['https://x/*']"}, "scopes[0]", "no patterns"),
        ({"users": "[]"}, "users ", "must not be empty"),
        ({"users": "[a, '']"}, "users[1]", "must not be empty"),
        ({"users": '["a\\x07"]'}, "users[0]", "control character"),
        ({"users": "[" + "a" * 256 + "]"}, "users[0]", "longer than 255"),
        ({"users": "[[a]]"}, "users[0]", "must be text, not a list"),
        ({"users": "{a: b}"}, "users ", "must be a list, not a mapping"),
        ({"return_to": "[/settings]"}, "return_to[0]", "absolute address"),
        ({"return_to": "['http://app.example.com/']"}, "return_to[0]", "https"),
        ({"return_to": "['https://*.example.com/']"}, "return_to[0]", "compared exactly"),
        ({"return_to": "['https://app.example.com/#a']"}, "return_to[0]", "no fragment"),
        ({"return_to": "['https://me@app.example.com/']"}, "return_to[0]", "no user name"),
        ({"return_to": '["https://app.example.com/\\n"]'}, "return_to[0]", "absolute address"),
        ({"return_to": "['https://app.example.com\\@evil/']"}, "return_to[0]", "absolute address"),
        ({"require_confirmation": "yes"}, "require_confirmation ", "true or false"),
        ({"require_confirmation": "'true'"}, "require_confirmation ", "true or false"),
        ({"display_name": "' '"}, "display_name ", "printable text"),
        ({"display_name": '"a\\u202eb"'}, "display_name ", "printable text"),
        ({"display_name": "x" * 81}, "display_name ", "longer than 80"),
        ({"display_name": "[Acme]"}, "display_name ", "must be text"),
        ({"workload": "x"}, "workload ", "must be a mapping"),
        ({"workload": "{issuer: https://a.b, audience: c}"}, "workload ", "`subject` is missing"),
        (
            {"workload": "{issuer: http://a.b, audience: c, subject: d}"},
            "workload.issuer ",
            "https",
        ),
        ({"premissions": "[]"}, "calendar-sync ", "unknown setting 'premissions'"),
        ({"retrun_to": "[]"}, "calendar-sync ", "did you mean 'return_to'?"),
    ],
)
def test_a_mistake_in_a_field_is_reported_with_its_place(
    settings: dict[str, str | None], place: str, words: str
) -> None:
    problem = problem_of(callers_file(stanza(**settings)))

    assert place in problem
    assert words in problem


@pytest.mark.parametrize("keys", [f"[{KEY}]", f'["{KEY}"]', KEY, f"\n      - {KEY}", "[1234567]"])
def test_a_key_instead_of_its_hash_is_refused_and_not_shown(keys: str) -> None:
    problem = problem_of(callers_file(stanza(keys=keys)))

    assert "treat it as exposed" in problem
    assert "broker callers hash" in problem
    assert "1234567" not in problem


@pytest.mark.parametrize(
    "text",
    [
        callers_file(stanza(KEY)),
        callers_file(stanza(can=f"[{KEY}]")),
        callers_file(stanza(scopes=f"['{KEY} x']")),
        callers_file(stanza(return_to=f"[{KEY}]")),
        callers_file(stanza() + f"    {KEY}: 1\n"),
        callers_file(stanza(users=f"*{KEY}")),
        callers_file(stanza(users=f"!{KEY} x")),
        callers_file(stanza(users=f"!{KEY}!x y")),
        callers_file(stanza(users=f"'{KEY}")),
        f"{KEY}: x",
        f"%{KEY}\n---\na: b",
        KEY,
    ],
)
def test_a_key_in_any_other_place_is_not_shown(text: str) -> None:
    assert problems_of(text)


@pytest.mark.parametrize(
    ("value", "taken_for"),
    [
        ("42", "a number"),
        ("0x1F", "a number"),
        ("1:30", "a number"),
        ("1.5", "a number"),
        ("on", "true or false"),
        ("No", "true or false"),
        ("2024-01-01", "a date"),
    ],
)
def test_a_value_that_yaml_does_not_take_for_text_needs_quotes(value: str, taken_for: str) -> None:
    words = f"YAML takes '{value}' for {taken_for}; write it in quotes"

    assert words in problem_of(callers_file(stanza(users=f"[{value}]")))
    assert words in problem_of("callers:\n" + stanza().replace("calendar-sync", value))
    quoted = parse_callers(callers_file(stanza(users=f'["{value}"]'))).callers[0]
    assert quoted.users == (value,)


@pytest.mark.parametrize("name", ["a b", "", "-a", "ä", "a/b", "a" * 65, '"a\\n"'])
def test_a_name_must_be_fit_for_a_metrics_label(name: str) -> None:
    text = callers_file(stanza("x").replace("  x:", f"  {name or chr(34) * 2}:"))

    assert "can't be a name" in problem_of(text)


def test_two_callers_cannot_share_a_key() -> None:
    problem = problem_of(callers_file(stanza("a"), stanza("b")))

    assert problem == "callers.b.keys[0] (line 8): the same key as callers.a.keys[0] (line 3)"


def test_two_callers_cannot_share_a_workload() -> None:
    workload = "{issuer: https://a.b, audience: c, subject: d}"
    problem = problem_of(
        callers_file(
            stanza("a", keys=None, workload=workload), stanza("b", keys="[]", workload=workload)
        )
    )

    assert problem.endswith("the same workload as callers.a.workload (line 6)")


def test_a_repeated_name_is_a_problem_at_every_level() -> None:
    once_more = stanza().rstrip() + "\n    can: [grants:read]\n"

    assert "'can' is given twice, first on line 4" in problem_of(callers_file(once_more))
    assert "'calendar-sync' is given twice" in problem_of(callers_file(stanza(), stanza()))
    assert "'callers' is given twice" in problem_of(callers_file() + "callers: {}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("~", "the file is empty"),
        ("callers:", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("caller: {}", "did you mean 'callers'?"),
        ("services: {}", "unknown setting 'services'; known are callers, issuers"),
        ("{}", "`callers:` is missing"),
        ("callers: {}\n---\ncallers: {}", "line 2: a second document"),
        ("callers:\n\ta: b", "line 2, column 1: not valid YAML: indent with spaces"),
        ("callers:\n  a: {}\x00", "line 2: a character that YAML does not allow, U+0000"),
        ("callers: {a: \ud800}", "U+D800"),
        ('a: "\\UFFFFFFFF"', "line 1"),
        ("callers: &a {}", "anchors"),
        ("callers: *a", "aliases"),
        ("callers: !!set {}", "tags"),
        ("callers: [\n", "is a bracket not closed?"),
        ("? [a]\n: b\n", "a list can't be a name"),
        ("callers:\n  'a: b\n\n", "line 2: a quote opened here"),
        ("%YAML 3.0\n---\ncallers: {}", "line 1"),
        ("[" * 100_000, "nested too deeply"),
        ("a: " * 1000, "a colon where none may be"),
        ("- " * 100_000, "nested too deeply"),
        ("a" * 1024 * 1024 + "a", "larger than 1 MiB"),
    ],
)
def test_a_file_of_another_form_is_reported(text: str, words: str) -> None:
    assert any(words in problem for problem in problems_of(text))


def test_callers_at_the_top_level_are_reported() -> None:
    text = "".join(line[2:] + "\n" for line in stanza().splitlines())

    assert "put all callers below it" in problem_of(text)


@pytest.mark.parametrize("users", ["[*]", "*", "[*-team]", "[*@example.com]", "\n      - *"])
def test_an_unquoted_star_has_its_own_message(users: str) -> None:
    assert "needs quotes around it" in problem_of(callers_file(stanza(users=users)))


def test_a_bomb_of_aliases_is_refused() -> None:
    text = "a: &a [x]\n" + "".join(f"a{n}: &a{n} [{'*a,' * 9}]\n" for n in range(50))

    assert any("aliases" in problem for problem in problems_of(text))


def test_a_thousand_mistakes_make_a_list_of_bounded_length() -> None:
    problems = problems_of("callers: {}\n" + "".join(f"x{n}: 1\n" for n in range(1000)))

    assert len(problems) == 101
    assert problems[-1] == "… and 900 more"


def test_a_byte_order_mark_is_accepted() -> None:
    assert parse_callers(decode_callers(b"\xef\xbb\xbf" + CONTRACT.encode())).callers
    assert parse_callers("\ufeff" + CONTRACT).callers


def test_windows_line_ends_are_accepted() -> None:
    assert parse_callers(CONTRACT.replace("\n", "\r\n")).callers


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (CONTRACT.encode("utf-16"), "UTF-16"),
        (b"callers:\n  caf\xe9: {}\n", "line 2: not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "larger than 1 MiB"),
    ],
)
def test_a_file_with_another_encoding_or_too_long_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(CallersFileError, match=words) as caught:
        decode_callers(content)

    assert caught.value.__cause__ is None


def test_both_yaml_parsers_report_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of PyYAML may lack its C library."""
    good, bad = CONTRACT, callers_file(stanza(users="[*]", keys=f"[{KEY}]"))
    with_c = problems_of(bad)
    monkeypatch.setattr(checked_yaml, "LOADER", checked_yaml.PythonLoader)

    assert parse_callers(good).callers[0].name == "calendar-sync"
    assert [p.partition(":")[0] for p in problems_of(bad)] == [p.partition(":")[0] for p in with_c]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("{requests_per_second: 50, burst: 100}", RateLimit(50, 100)),
        ("{requests_per_second: 2.5}", RateLimit(2.5, 3)),
        ("{requests_per_second: 0.1}", RateLimit(0.1, 1)),
    ],
)
def test_a_rate_limit_has_a_rate_and_an_optional_burst(text: str, limit: RateLimit) -> None:
    (caller,) = parse_callers(callers_file(stanza(rate_limit=text))).callers
    assert caller.rate_limit == limit


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{}", "requests_per_second"),
        ("{burst: 5}", "requests_per_second"),
        ("50", "mapping"),
        ("{requests_per_second: 0}", "number from 0.01"),
        ("{requests_per_second: -1}", "number"),
        ("{requests_per_second: .inf}", "number"),
        ('{requests_per_second: "5"}', "number"),
        ("{requests_per_second: 5, burst: 0}", "number from 1"),
        ("{requests_per_second: 5, burst: 1.5}", "whole"),
        ("{requests_per_seconds: 5}", "requests_per_second"),
    ],
)
def test_an_invalid_rate_limit_is_refused(text: str, word: str) -> None:
    assert any(word in problem for problem in problems_of(callers_file(stanza(rate_limit=text))))
