"""Chooses the next step with a seeded generator, as far as the system's state allows.

Faults are rare and short. Most steps are operations of users and callers, so that a fault hits
something.
"""

import random
from collections.abc import Callable
from typing import Any

from model.operations import EVENTS
from model.run import Run
from model.steps import FAULTS, Step
from model.system import CALLERS

_OPERATIONS = {
    "connect": 22,
    "connect_and_confirm": 10,
    "confirm": 8,
    "revoke": 14,
    "token": 30,
    "refresh": 8,
    "narrow": 5,
    "batch": 3,
    "rotate": 6,
    "event": 10,
    "user_revokes_at_google": 2,
}
_TROUBLES = {
    "kill": 3,
    "cut": 3,
    "crash": 3,
    "google_fails": 4,
    "cut_standby": 4,
    "fail_over": 2,
    "new_key": 1,
}
_STEPS_BETWEEN_CHECKS = (12, 40)
_STEPS_OF_A_TROUBLE = (2, 9)
_STEPS_UNDERWAY = (1, 4)
_CHANCE_OF_TROUBLE = 0.08
_CHANCE_UNDERWAY = 0.08
_CHANCE_TOGETHER = 0.08


class Generator:
    """Generates steps, which depend on the seed and on the outcomes of earlier steps."""

    def __init__(self, seed: int, *, troubles: bool = True, standby: bool = True) -> None:
        self._random = random.Random(seed)
        self._troubles = {
            name: weight
            for name, weight in _TROUBLES.items()
            if troubles and (standby or ("stand" not in name and name != "fail_over"))
        }
        self._made = 0
        self._until_check = self._random.randint(*_STEPS_BETWEEN_CHECKS)
        self._ends: list[tuple[int, Step]] = []
        """Steps that end something, each with the number of steps until it is due."""
        self._joined: str | None = None
        """A key that all replicas have and none seals with yet."""

    def next(self, run: Run) -> Step:
        """Return the next step."""
        self._until_check -= 1
        self._ends = [(left - 1, step) for left, step in self._ends]
        for place, (left, step) in enumerate(self._ends):
            if left <= 0:
                del self._ends[place]
                return step
        if self._until_check <= 0:
            self._until_check = self._random.randint(*_STEPS_BETWEEN_CHECKS)
            self._ends = []
            return {"step": "check"}
        chance = self._random.random()
        if self._troubles and chance < _CHANCE_OF_TROUBLE:
            return self._trouble(run)
        if chance < _CHANCE_OF_TROUBLE + _CHANCE_UNDERWAY:
            return self._underway(run)
        if chance < _CHANCE_OF_TROUBLE + _CHANCE_UNDERWAY + _CHANCE_TOGETHER:
            account = self._random.choice(run.accounts)
            count = self._random.randint(2, 3)
            some = [self._operation(run, account) for _ in range(count)]
            return {"step": "together", "operations": some}
        return self._operation(run, self._random.choice(run.accounts))

    # Users, callers and Google.

    def _operation(self, run: Run, account: str) -> dict[str, Any]:
        name = self._pick(_OPERATIONS)
        return getattr(self, f"_{name}")(run, account)  # type: ignore[no-any-return]

    def _connect(self, run: Run, account: str) -> dict[str, Any]:
        caller = self._random.choice(list(CALLERS))
        scopes = CALLERS[caller]
        return {
            "step": "connect",
            "user": self._random.choice(run.users),
            "account": account,
            "caller": caller,
            "scopes": self._random.sample(scopes, self._random.randint(1, len(scopes))),
            "replica": self._replica(run),
            "back_at": self._replica(run),
        }

    def _connect_and_confirm(self, run: Run, account: str) -> dict[str, Any]:
        return {**self._connect(run, account), "pending_as": self._name("c")}

    def _confirm(self, run: Run, account: str) -> dict[str, Any]:
        refs = [ref for ref, consent in run.pending.items() if consent.code]
        if not refs:
            return self._connect_and_confirm(run, account)
        return {
            "step": "confirm",
            "ref": self._random.choice(refs),
            "replica": self._replica(run),
        }

    def _revoke(self, run: Run, account: str) -> dict[str, Any]:
        step: dict[str, Any] = {
            "step": "revoke",
            "user": self._some_user(run, account),
            "replica": self._replica(run),
        }
        if self._random.random() < 0.8:
            step["account"] = account
        return step

    def _token(self, run: Run, account: str) -> dict[str, Any]:
        return {
            "step": "token",
            "user": self._some_user(run, account),
            "account": account,
            "caller": self._random.choice(list(CALLERS)),
            "replica": self._replica(run),
        }

    def _refresh(self, run: Run, account: str) -> dict[str, Any]:
        return {**self._token(run, account), "fresh": True}

    def _narrow(self, run: Run, account: str) -> dict[str, Any]:
        step = self._token(run, account)
        return {**step, "scope": self._random.choice(CALLERS[step["caller"]])}

    def _batch(self, run: Run, _account: str) -> dict[str, Any]:
        caller = self._random.choice(list(CALLERS))
        return {"step": "batch", "caller": caller, "replica": self._replica(run)}

    def _rotate(self, run: Run, account: str) -> dict[str, Any]:
        step = {**self._token(run, account), "step": "rotate"}
        return {**step, "retire_old": self._random.random() < 0.8}

    def _event(self, run: Run, account: str) -> dict[str, Any]:
        return {
            "step": "event",
            "kind": self._random.choice(EVENTS),
            "account": account,
            "replica": self._replica(run),
            "times": self._random.choice((1, 1, 1, 2)),
        }

    def _user_revokes_at_google(self, _run: Run, account: str) -> dict[str, Any]:
        return {"step": "user_revokes_at_google", "account": account}

    # Overlapping operations and faults.

    def _underway(self, run: Run) -> Step:
        """Begin an operation that ends after other steps, which often use the same account."""
        account = self._random.choice(run.accounts)
        makers = (self._connect, self._connect_and_confirm, self._rotate, self._refresh)
        operation = self._random.choice(makers)(run, account)
        ref = self._name("b")
        length = self._random.randint(*_STEPS_UNDERWAY)
        beside: list[Callable[[Run, str], Step]] = [self._revoke, self._event, self._connect]
        if operation["step"] == "connect":
            # Another refresh would wait for the delayed one.
            beside += [self._rotate, self._token]
        for place in range(1, length):
            self._ends.append((place, self._random.choice(beside)(run, account)))
        if self._random.random() < 0.5:
            self._ends.append((length, {"step": "wait_until_delivered"}))
        self._ends.append((length + 1, {"step": "finish", "ref": ref}))
        hold = self._random.choice(("before", "after", "after"))
        return {"step": "begin", "ref": ref, "operation": operation, "hold": hold}

    def _trouble(self, run: Run) -> Step:
        name = self._pick(self._troubles)
        if name in ("cut_standby", "fail_over") and run.system.cluster.standby is None:
            return {"step": "add_standby"}
        length = self._random.randint(*_STEPS_OF_A_TROUBLE)
        replica = self._random.randrange(len(run.system.replicas))
        if name == "kill":
            self._ends.append((length, {"step": "start", "replica": replica}))
            return {"step": "kill", "replica": replica}
        if name == "cut":
            length = min(length, 4)
            anew = self._random.random() < 0.5
            self._ends.append((length, {"step": "heal", "replica": replica, "anew": anew}))
            return {"step": "cut", "replica": replica}
        if name == "crash":
            self._ends.append((length, {"step": "recover"}))
            return {"step": "crash"}
        if name == "cut_standby":
            self._plan_a_lossy_failover(run, length)
            return {"step": "cut_standby"}
        if name == "fail_over":
            self._ends.append((1, {"step": "settle"}))
            return {"step": "fail_over"}
        if name == "google_fails":
            self._ends.append((length, {"step": "google_recovers"}))
            return {
                "step": "google_fails",
                "endpoint": self._random.choice(("token", "token", "revoke")),
                "kind": self._random.choice(FAULTS),
                "account": self._random.choice(run.accounts),
                "times": self._random.randint(1, 3),
            }
        return self._new_key()

    def _plan_a_lossy_failover(self, run: Run, length: int) -> None:
        """Let a user connect and every replica cache the token, then lose the commits; the fault
        usually ends afterwards.
        """
        account = self._random.choice(run.accounts)
        consent = self._connect(run, account)
        steps: list[Step] = [consent]
        asked = {name: consent[name] for name in ("user", "account", "caller")}
        for replica in range(len(run.system.replicas)):
            steps.append({"step": "token", **asked, "replica": replica})
        steps += [self._operation(run, account) for _ in range(length)]
        if self._random.random() < 0.25:
            steps.append({"step": "heal_standby"})
        else:
            steps += [{"step": "fail_over"}, {"step": "settle"}]
        if self._random.random() < 0.7:
            end = self._random.choice((self._revoke, self._event))(run, account)
            steps.append(end if end["step"] == "event" else {**end, "user": consent["user"]})
        self._ends += list(enumerate(steps, 1))

    def _new_key(self) -> Step:
        if self._joined is None:
            self._joined = f"a-key-of-the-model-of-more-than-32-bytes-{self._name('k')}"
            return {"step": "new_key", "key": self._joined}
        key, self._joined = self._joined, None
        self._ends.append((self._random.randint(*_STEPS_OF_A_TROUBLE), {"step": "reseal"}))
        return {"step": "new_key", "key": key, "leads": True}

    # Shared helpers.

    def _pick(self, weights: dict[str, float] | dict[str, int]) -> str:
        return self._random.choices(list(weights), list(weights.values()))[0]

    def _replica(self, run: Run) -> int:
        """Return a replica, usually a running one."""
        up = [n for n, replica in enumerate(run.system.replicas) if replica.is_up]
        if up and self._random.random() < 0.95:
            return self._random.choice(up)
        return self._random.randrange(len(run.system.replicas))

    def _some_user(self, run: Run, account: str) -> str:
        """Return a user, usually one with a grant."""
        known = [u for u in run.users if run.possible.statuses(("grant", u, account)) != {"never"}]
        return self._random.choice(known if known and self._random.random() < 0.85 else run.users)

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}{self._made}"
