"""The steps of a history: operations and faults.

A step is a JSON object, `{"step": name, …arguments}`. A step that the system's state does not allow
(to heal what is not cut) does nothing and reports that, so a history can be replayed without some
of its steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from devstack.google_standin import Fault
from model import quiet
from model.operations import OPERATIONS
from model.run import Run

Step = Mapping[str, Any]

NOT_POSSIBLE = "not possible"
DONE = "done"

_FAULTS: Mapping[str, Callable[[], Fault]] = {
    "drop": Fault.drop,
    "half": Fault.half,
    "html_403": Fault.html_403,
    "rate_limited": Fault.rate_limited,
    "internal_failure": Fault.internal_failure,
}
FAULTS = tuple(_FAULTS)


def take(run: Run, step: Step) -> str:
    """Take one step and return its outcome. Raises `Finding`."""
    arguments = dict(step)
    name = arguments.pop("step")
    run.ask_what_is_due()
    if name in OPERATIONS:
        return run.do(name, arguments)
    return _OTHERS[name](run, **arguments)


def begin(run: Run, *, ref: str, operation: Step, hold: str | None = "after") -> str:
    """Begin an operation that Google delays, before or `after` carrying it out."""
    if ref in run.underway:
        return NOT_POSSIBLE
    return run.begin(ref, operation, hold)


def finish(run: Run, *, ref: str) -> str:
    return run.finish(ref)


def together(run: Run, *, operations: Sequence[Step]) -> str:
    """Run several operations concurrently."""
    return run.do_together(operations)


# Replicas.


def kill(run: Run, *, replica: int) -> str:
    """Kill a replica with SIGKILL."""
    process = run.system.replicas[replica].process
    if process.pid is None:
        return NOT_POSSIBLE
    run.trouble()
    process.kill()
    return DONE


def start(run: Run, *, replica: int) -> str:
    """Start a killed replica; it needs a database."""
    started = run.system.replicas[replica]
    if started.is_up or started.is_cut or not run.system.cluster.is_up:
        return NOT_POSSIBLE
    started.process.start()
    return DONE


def cut(run: Run, *, replica: int) -> str:
    """Lose or delay what a replica sends to PostgreSQL."""
    target = run.system.replicas[replica]
    if target.is_cut or not target.is_up:
        return NOT_POSSIBLE
    run.trouble()
    target.cut()
    return DONE


def heal(run: Run, *, replica: int, anew: bool = False) -> str:
    target = run.system.replicas[replica]
    if not target.is_cut:
        return NOT_POSSIBLE
    target.heal(anew=anew)
    return DONE


# PostgreSQL.


def crash(run: Run) -> str:
    """Stop the primary immediately; it keeps all commits."""
    if not run.system.cluster.is_up:
        return NOT_POSSIBLE
    run.trouble()
    run.system.cluster.crash()
    return DONE


def recover(run: Run) -> str:
    if run.system.cluster.is_up:
        return NOT_POSSIBLE
    run.system.cluster.restart()
    return DONE


def add_standby(run: Run) -> str:
    cluster = run.system.cluster
    if cluster.standby is not None or not cluster.is_up:
        return NOT_POSSIBLE
    cluster.add_standby()
    run.possible.falls_behind()
    return DONE


def catch_up(run: Run) -> str:
    """Let the standby catch up."""
    cluster = run.system.cluster
    if cluster.standby is None or cluster.lags or not cluster.is_up:
        return NOT_POSSIBLE
    cluster.catch_up()
    run.possible.falls_behind()
    return DONE


def cut_standby(run: Run) -> str:
    """Let the standby lag: from now on a failover loses commits."""
    if catch_up(run) != DONE:
        return NOT_POSSIBLE
    assert run.system.cluster.stream is not None
    run.system.cluster.stream.cut()
    return DONE


def heal_standby(run: Run) -> str:
    if run.system.cluster.stream is None or not run.system.cluster.lags:
        return NOT_POSSIBLE
    run.system.cluster.stream.heal()
    return catch_up(run)


def fail_over(run: Run) -> str:
    """Promote the standby. If it does not lag, no commit is lost."""
    cluster = run.system.cluster
    if cluster.standby is None:
        return NOT_POSSIBLE
    if not cluster.lags and cluster.is_up:
        catch_up(run)
    run.trouble()
    cluster.fail_over()
    run.has_failed_over = True
    lost = run.possible.lose_newest()
    for key in lost:
        account = key[2] if key[0] == "grant" else _account_of(run, key[1])
        if account is not None:
            run.lose_tokens_of(account)
            run.may_be_orphaned.add(account)
    return f"{len(lost)} may be lost"


def _account_of(run: Run, ref: str) -> str | None:
    consent = run.pending.get(ref)
    return consent.account if consent else None


# Keys.


def new_key(run: Run, *, key: str, leads: bool = False) -> str:
    """Add a key to `SECRET_KEY`, behind the old one, then (`leads`) before it; restart all."""
    system = run.system
    if not system.cluster.is_up or any(not r.is_up or r.is_cut for r in system.replicas):
        return NOT_POSSIBLE
    system.secret_keys = [each for each in system.secret_keys if each != key]
    system.secret_keys.insert(0 if leads else 1, key)
    for replica in system.replicas:
        replica.settings["SECRET_KEY"] = ",".join(system.secret_keys)
        run.trouble()
        replica.process.stop()
        replica.process.start()
    return DONE


def reseal(run: Run) -> str:
    """Reseal everything with the first key, except what operations in progress write."""
    if not run.system.cluster.is_up:
        return NOT_POSSIBLE
    said = run.system.broker("keys", "reseal", may_fail=True)
    return said.strip().splitlines()[-1] if said.strip() else DONE


# Google.


def google_fails(
    run: Run, *, endpoint: str, kind: str, account: str | None = None, times: int = 1
) -> str:
    run.trouble()
    sub = None if account is None else run.system.sub(account)
    run.system.google.faults.next(endpoint, _FAULTS[kind](), times=times, account=sub)
    return DONE


def google_recovers(run: Run) -> str:
    run.system.google.faults.clear()
    return DONE


# Checks.


def settle(run: Run) -> str:
    """Repair everything without a check."""
    return quiet.settle(run)


def wait_until_delivered(run: Run) -> str:
    """Wait until every revocation has been delivered to Google."""
    if not run.system.cluster.is_up:
        return NOT_POSSIBLE
    quiet.wait_until_delivered(run)
    return DONE


def check(run: Run) -> str:
    return quiet.check(run)


def verify_audit(run: Run) -> str:
    quiet.verify_audit(run)
    return DONE


_OTHERS: Mapping[str, Callable[..., str]] = {
    step.__name__: step
    for step in (
        begin, finish, together, kill, start, cut, heal, crash, recover, add_standby, catch_up,
        cut_standby, heal_standby, fail_over, new_key, reseal, google_fails, google_recovers,
        settle, wait_until_delivered, check, verify_audit,
    )
}  # fmt: skip
