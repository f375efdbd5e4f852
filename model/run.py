"""One run: the real system, the model, and the comparison of both."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.scopes import IDENTITY_SCOPES
from devstack.google_standin import Fault
from model.operations import (
    ENDING_EVENTS,
    OPERATIONS,
    ConsentToConfirm,
    Context,
    Report,
    Seen,
    ask_token,
    callers_scopes,
    describe,
)
from model.states import (
    ACTIVE,
    DEAD,
    HELD_BACK,
    NEVER,
    REVOKED,
    WAITING,
    Effects,
    Key,
    Possible,
    only,
)
from model.system import SCOPES, System

_HELD_SECONDS = 10.0
_UNDERWAY_SECONDS = 45.0
_POLL_SECONDS = 0.05
REFUSED_WITHIN = 1.0
"""Seconds after the response to a revocation from which no replica may return the token."""
_FOLLOWS_SECONDS = 1.0
"""How soon a replica follows changes after its database has returned."""


class Finding(AssertionError):  # noqa: N818  (the term of testing)
    """The system did something that the model does not allow."""


@dataclass(frozen=True)
class _Moment:
    """The knowledge with which an operation began."""

    troubles: int
    was_calm: bool
    ended: Mapping[str, int]


@dataclass
class _Underway:
    """An operation in its own thread."""

    thread: threading.Thread
    accounts: frozenset[str]
    moment: _Moment
    report: list[Report | BaseException] = field(default_factory=list)


class Run:
    """The model's knowledge. Steps are in `model.steps`."""

    def __init__(
        self,
        system: System,
        *,
        users: Sequence[str],
        accounts: Sequence[str],
        patience: float = 0.0,
    ) -> None:
        """`patience` is how many more seconds a replica has to refuse, for a busy machine.

        Creates the accounts.
        """
        self.system = system
        self.users = users
        self.accounts = accounts
        for account in accounts:
            system.google.add_account(f"{account}@example.com")
        self._patience = patience
        self.possible = Possible()
        self.pending: dict[str, ConsentToConfirm] = {}
        self.may_be_dead: set[Key] = set()
        """Grants and consents whose refresh token Google may have revoked without the broker's
        knowledge, or the broker has lost."""
        self.may_be_orphaned: set[str] = set()
        """Accounts whose authorization may be valid without any grant."""
        self.is_calm = True
        """True if there was no fault since everything last worked."""
        self.has_failed_over = False
        """Since the last quiet point."""
        self.underway: dict[str, _Underway] = {}
        self.wrongs: Counter[str] = Counter()
        self.checks: Counter[str] = Counter()
        self._troubles = 0
        self._ended: Counter[str] = Counter()
        self._left_active: dict[Key, float] = {}
        self._due: dict[Key, float] = {}

    @property
    def grants(self) -> list[Key]:
        return [("grant", user, account) for user in self.users for account in self.accounts]

    def does_wait(self, user: str, account: str) -> bool:
        """True if the user may have a pending consent."""
        return any(
            WAITING in self.possible.statuses(("consent", ref))
            for ref, consent in self.pending.items()
            if (consent.user, consent.account) == (user, account)
        )

    def context(self) -> Context:
        self._expand()
        return Context(
            self.system, self.users, self.accounts, dict(self.pending), self.possible.snapshot()
        )

    def trouble(self) -> None:
        """A fault begins: responses may get lost until everything works again."""
        self.is_calm = False
        self._troubles += 1

    # Operations.

    def do(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Run one operation alone."""
        moment = self._moment()
        report = OPERATIONS[name](self.context(), **arguments)
        self._settle(report, moment, self.possible.apply)
        for seen in report.seen:
            self.judge(seen)
        return report.outcome

    def do_together(self, many: Sequence[Mapping[str, Any]]) -> str:
        """Run several operations, each in its own thread."""
        for operation in many:
            self._expect_consent(operation)
        moment, context = self._moment(), self.context()
        reports: dict[int, Report | BaseException] = {}
        threads = [
            threading.Thread(target=_report_to, args=(reports.__setitem__, n, context, operation))
            for n, operation in enumerate(many)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_UNDERWAY_SECONDS)
        ended = [_unwrapped(reports[n]) for n in range(len(many))]
        before = self._active()
        self._expand()
        self.possible.apply_in_any_order([report.effects for report in ended])
        accounts = frozenset().union(*(report.ended_at_google for report in ended))
        # It is unknown whether Google's event came before or after a consent.
        self.may_be_orphaned |= accounts
        for report in ended:
            self._settle(report, moment, lambda _: None, ended_beside=accounts)
        self._note_left(before)
        for report in ended:
            for seen in report.seen:
                self._judge_token(seen)
        return " | ".join(report.outcome for report in ended)

    def begin(self, ref: str, operation: Mapping[str, Any], hold: str | None) -> str:
        """Begin an operation, and return once Google delays its request."""
        operation = dict(operation)
        account = operation["account"]
        planned = None
        if operation["step"] == "rotate":
            operation["hold"] = ref
        elif hold is not None:
            kind = "authorization_code" if operation["step"] == "connect" else "refresh_token"
            planned = self.system.google.faults.next(
                "token",
                Fault.hold(ref, after=hold == "after"),
                account=self.system.sub(account),
                grant_type=kind,
            )
        reports: list[Report | BaseException] = []
        self._expect_consent(operation)
        context = self.context()
        thread = threading.Thread(
            target=_report_to,
            args=(lambda _, report: reports.append(report), 0, context, operation),
        )
        self._expand()
        self.possible.begin(ref)
        self.underway[ref] = _Underway(thread, frozenset({account}), self._moment(), reports)
        thread.start()
        until = time.monotonic() + _HELD_SECONDS
        while not (held := self.system.google.holds.held().get(ref)) and thread.is_alive():
            if time.monotonic() > until:
                break
            time.sleep(0.005)
        if planned is not None:
            planned.remaining = 0
        return "held" if held else "not held"

    def finish(self, ref: str) -> str:
        """Let Google respond and the operation end."""
        underway = self.underway.pop(ref, None)
        if underway is None:
            return "not possible"
        self.system.google.holds.release(ref)
        underway.thread.join(_UNDERWAY_SECONDS)
        assert not underway.thread.is_alive(), f"{ref} does not end"
        report = _unwrapped(underway.report[0])
        accounts = underway.accounts
        ended = frozenset(a for a in accounts if self._ended[a] != underway.moment.ended[a])
        if report.ended_at_google or ended:
            self.may_be_orphaned |= accounts
        self._settle(
            report,
            underway.moment,
            lambda effects: self.possible.finish(ref, effects),
            ended_beside=ended,
        )
        for seen in report.seen:
            self._judge_token(seen, is_new=False)
        return report.outcome

    def _expect_consent(self, operation: Mapping[str, Any]) -> None:
        """A concurrent operation may end what this one creates."""
        if operation.get("pending_as"):
            self.pending[operation["pending_as"]] = ConsentToConfirm(
                operation["user"], operation["account"], operation["caller"], (), "", ""
            )

    def _moment(self) -> _Moment:
        return _Moment(self._troubles, self.is_calm, dict(Counter(self._ended)) | {
            account: self._ended[account] for account in self.accounts
        })  # fmt: skip

    def _settle(
        self,
        report: Report,
        moment: _Moment,
        apply: Callable[[Effects], None],
        *,
        ended_beside: frozenset[str] = frozenset(),
    ) -> None:
        """Update the model with an operation's effects."""
        before = self._active()
        self._expand()
        apply(report.effects)
        self.pending.update(report.pending)
        for account in report.ended_at_google:
            self._ended[account] += 1
            self.lose_tokens_of(account)
            self.may_be_orphaned.discard(account)
        # A pending consent may have the grant's token, and does not get the next one.
        for ref, consent in self.pending.items():
            if (consent.user, consent.account) == report.retired:
                self.may_be_dead.add(("consent", ref))
        if report.renewed is not None:
            self._renewed(report, ended_beside)
        if report.in_doubt and not (moment.was_calm and moment.troubles == self._troubles):
            for account in report.in_doubt:
                self.lose_tokens_of(account)
                self.may_be_orphaned.add(account)
        self.may_be_orphaned |= self.accounts_without_valid_token()
        self._note_left(before)

    def _renewed(self, report: Report, ended_beside: frozenset[str]) -> None:
        key, source = report.renewed, report.renewed_by
        assert key is not None
        account = key[2] if key[0] == "grant" else self.pending[key[1]].account
        was_dead = source is not None and ("consent", source) in self.may_be_dead
        if account in ended_beside or was_dead:
            self.may_be_dead.add(key)
            self.may_be_orphaned.add(account)
        else:
            self.may_be_dead.discard(key)
            self.may_be_orphaned.discard(account)

    def accounts_without_valid_token(self) -> set[str]:
        """Return the accounts that only grants with revoked tokens use, as far as the broker knows.

        Google is not called when another grant ends, and there is no token left to revoke when the
        broker finds out.
        """
        holds = {ACTIVE, HELD_BACK, WAITING}
        return {
            key[2] if key[0] == "grant" else self.pending[key[1]].account
            for key in self.may_be_dead
            if self.possible.statuses(key) & holds
        }

    def lose_tokens_of(self, account: str) -> None:
        """Every token of this account may be revoked by now."""
        self.may_be_dead |= {("grant", user, account) for user in self.users}
        self.may_be_dead |= {
            ("consent", ref) for ref, held in self.pending.items() if held.account == account
        }
        self._expand()

    def _expand(self) -> None:
        """The broker may have found out that a token is revoked: it refreshes on its own."""
        for key in self.may_be_dead:
            if key[0] == "grant" and ACTIVE in self.possible.statuses(key):
                transform = only(ACTIVE, ACTIVE, DEAD)
                states = {each for state in self.possible[key] for each in transform(state)}
                self.possible.put(key, states)

    def _active(self) -> set[Key]:
        return {key for key in self.grants if ACTIVE in self.possible.statuses(key)}

    def _note_left(self, before: set[Key]) -> None:
        """Expect that every replica soon refuses what can't be active any more."""
        now = time.monotonic()
        for key in before - self._active():
            self._left_active[key] = now
            self._due[key] = now + REFUSED_WITHIN

    # Comparison.

    def ask_what_is_due(self, *, wait: bool = False) -> None:
        """Request from every replica what was revoked long enough ago."""
        while self._due:
            key, at = min(self._due.items(), key=lambda item: item[1])
            pause = at - time.monotonic()
            if pause > 0 and not wait:
                return
            time.sleep(max(0.0, pause))
            del self._due[key]
            if ACTIVE in self.possible.statuses(key):
                continue
            for number, replica in enumerate(self.system.replicas):
                if replica.is_up and not replica.is_cut:
                    self.checks["withdrawn"] += 1
                    for caller in self.system.keys:
                        self.judge(ask_token(self.system, number, key[1], key[2], caller))

    def judge(self, seen: Seen) -> None:
        """Check a replica's response. Raises `Finding`."""
        self.checks["answers"] += 1
        self._expand()
        key: Key = ("grant", seen.user, seen.account)
        statuses = self.possible.statuses(key)
        if seen.status == 200:
            self._judge_token(seen)
            if ACTIVE not in statuses:
                self._judge_late(seen, key)
            return
        code = str(seen.body.get("code", ""))
        if seen.status is None:
            if self.is_calm:
                raise Finding(f"{_asked(seen)}: no answer")
        elif seen.status == 503:
            self.wrongs[f"503 {code}" + (" in calm" if self.is_calm else "")] += 1
        elif not self._is_refusal(seen, code, key):
            raise Finding(f"{_asked(seen)}: {describe(seen)}, but it is {sorted(statuses)}")

    def _is_refusal(self, seen: Seen, code: str, key: Key) -> bool:
        """True if one of the possible states leads to this refusal."""
        status, caller, asked = seen.status, seen.caller, seen.asked
        states = self.possible[key]
        statuses = {state.status for state in states}
        if (status, code) == (404, "grant_not_found"):
            return bool(statuses & {NEVER, REVOKED})
        if (status, code) == (409, "reauthorization_required"):
            return bool(statuses & {DEAD, HELD_BACK})
        if (status, code) == (409, "confirmation_pending"):
            return self.does_wait(key[1], key[2])
        if (status, code) == (409, "scope_not_granted"):
            return any(
                state.status not in (NEVER, REVOKED)
                and (asked - state.least if asked else not state.least & callers_scopes(caller))
                for state in states
            )
        return False

    def _judge_late(self, seen: Seen, key: Key) -> None:
        """Check a token returned after its end: within a second only, or without a database."""
        since = seen.sent_at - self._left_active.get(key, 0.0)
        replica = self.system.replicas[seen.replica]
        if since < REFUSED_WITHIN or replica.is_cut:
            return
        patience = self._patience if self.is_calm else max(self._patience, _FOLLOWS_SECONDS)
        until = time.monotonic() + patience
        while time.monotonic() < until or not (self.is_calm or replica.has_database()):
            time.sleep(_POLL_SECONDS)
            again = ask_token(self.system, seen.replica, seen.user, seen.account, seen.caller)
            if again.status != 200:
                self.wrongs["late refusal"] += 1
                return
        statuses = sorted(self.possible.statuses(key))
        raise Finding(
            f"{_asked(seen)}: a token {since + patience:.1f} s after it ended; it is {statuses}"
        )

    def _judge_token(self, seen: Seen, *, is_new: bool = True) -> None:
        """Check that a token is of the right account and not wider than a consent.

        A token returned a while ago may have ended since, whatever the grant is now.
        """
        if seen.status != 200:
            return
        sub = self.system.sub(seen.account)
        if seen.body["account"]["sub"] != sub:
            raise Finding(f"{_asked(seen)}: a token of {seen.body['account']}")
        key: Key = ("grant", seen.user, seen.account)
        reach = frozenset(SCOPES.values())
        if is_new and self.is_calm and ACTIVE in self.possible.statuses(key):
            active = [state.most for state in self.possible[key] if state.status == ACTIVE]
            reach = frozenset().union(*active)
        narrowed = callers_scopes(seen.caller) if seen.asked is None else seen.asked
        allowed = (reach & narrowed) | frozenset(IDENTITY_SCOPES)
        said = frozenset(str(seen.body["scope"]).split())
        with self.system.google.state.lock:
            known = self.system.google.state.access_tokens.get(str(seen.body["access_token"]))
        carried = said | frozenset(known.scopes if known is not None else ())
        if carried - allowed:
            raise Finding(f"{_asked(seen)}: a token that is too wide: {sorted(carried - allowed)}")
        if known is not None and known.sub != sub:
            raise Finding(f"{_asked(seen)}: a token of another account at Google")
        certain = is_new and self.is_calm and self.possible.statuses(key) == {ACTIVE}
        if known is None and certain and key not in self.may_be_dead and not self.underway:
            raise Finding(f"{_asked(seen)}: a token that does not work at Google")


def _asked(seen: Seen) -> str:
    return f"{seen.caller} asks replica {seen.replica} for {seen.user} with {seen.account}"


def _report_to(
    keep: Callable[[int, Report | BaseException], None],
    number: int,
    context: Context,
    operation: Mapping[str, Any],
) -> None:
    """Run in a thread; an exception is raised where the thread is awaited."""
    arguments = dict(operation)
    try:
        keep(number, OPERATIONS[arguments.pop("step")](context, **arguments))
    except BaseException as error:
        keep(number, error)


def _unwrapped(report: Report | BaseException) -> Report:
    if isinstance(report, BaseException):
        raise report
    return report


__all__ = ["ENDING_EVENTS", "Finding", "Run"]
