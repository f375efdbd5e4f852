"""The real system of a run: PostgreSQL, the Google stand-in, replicas, and the relays between."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import httpx2

from broker.callers.keys import new_key
from devstack.google_standin import GoogleStandin
from model.cluster import DATABASE, Cluster
from model.relays import Relay, Relays
from tests.support.processes import BrokerProcess, run_broker, wait_until
from tests.support.scopes import CALENDAR, CALENDAR_READONLY, GMAIL_READONLY
from tests.support.world import (
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    environment,
    stanza,
    write_callers,
)

SCOPES = {"calendar": CALENDAR, "readonly": CALENDAR_READONLY, "mail": GMAIL_READONLY}
"""By the short names in a history."""
CALLERS: Mapping[str, Sequence[str]] = {
    "planner": ("calendar", "readonly"),
    "mailer": ("readonly", "mail"),
}
"""The scopes of each caller."""

ORIGIN = REDIRECT_URI.split("/auth/", maxsplit=1)[0]
_READY_SECONDS = 60.0


@dataclass
class Replica:
    """A `broker serve` with its own relay to each possible primary."""

    process: BrokerProcess
    settings: dict[str, str]
    relays: Sequence[Relay]

    @property
    def is_up(self) -> bool:
        return self.process.pid is not None

    @property
    def is_cut(self) -> bool:
        return self.relays[0].is_cut

    def cut(self) -> None:
        for relay in self.relays:
            relay.cut()

    def heal(self, *, anew: bool = False) -> None:
        for relay in self.relays:
            relay.heal(anew=anew)

    def has_database(self) -> bool:
        """True if the replica reports that it reaches the primary."""
        try:
            said = self.process.readiness().json()
        except (httpx2.HTTPError, json.JSONDecodeError):
            return False
        return str(said["parts"]["database"]["status"]) == "up"


@dataclass
class System:
    """Everything that a step can use."""

    google: GoogleStandin
    cluster: Cluster
    replicas: Sequence[Replica]
    keys: Mapping[str, str]
    """Each caller's API key."""
    secret_keys: list[str]
    """`SECRET_KEY`; the first one seals."""
    http: httpx2.Client = field(repr=False)

    def headers(self, caller: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[caller]}"}

    def internal(self, replica: int, path: str) -> str:
        return self.replicas[replica].process.internal_url + path

    def public(self, replica: int, url: str) -> str:
        """Return the same URL at this replica's public listener."""
        return url.replace(ORIGIN, self.replicas[replica].process.public_url)

    def sub(self, account: str) -> str:
        return self.google.account(f"{account}@example.com").sub

    def broker(self, *arguments: str, may_fail: bool = False) -> str:
        """Run a `broker` command; raises with its output if it fails, unless that is allowed."""
        settings = {"DATABASE_URL": self.cluster.url, "SECRET_KEY": ",".join(self.secret_keys)}
        done = run_broker(*arguments, settings=settings)
        if done.returncode != 0 and not may_fail:
            raise AssertionError(f"broker {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def sql(self, query: str) -> str:
        return self.cluster.primary.execute(query, DATABASE)

    def wait_until_ready(self) -> None:
        """Return when every running replica reaches the database."""
        for number, replica in enumerate(self.replicas):
            if replica.is_up:
                wait_until(
                    f"replica {number} has a database",
                    replica.has_database,
                    within=_READY_SECONDS,
                )


def user_path(user: str, rest: str) -> str:
    return f"/v1/users/{quote(user, safe='')}/{rest}"


@contextmanager
def running_system(folder: Path, *, replicas: int, standby: bool) -> Iterator[System]:
    """Run a new system."""
    with ExitStack() as stack:
        relays = Relays()
        stack.callback(relays.close)
        cluster = Cluster(folder, relays)
        stack.callback(cluster.stop)
        google = GoogleStandin()
        google.start()
        stack.callback(google.stop)
        google.add_client(CLIENT_ID, CLIENT_SECRET, [REDIRECT_URI])
        cluster.start()
        if standby:
            cluster.add_standby()
        keys = {name: new_key() for name in CALLERS}
        fleet = [_replica(folder, n, cluster, relays, google, keys) for n in range(replicas)]
        for replica in fleet:
            replica.process.launch()
            stack.callback(_end, replica.process)
        for replica in fleet:
            replica.process.wait_until_ready()
        http = stack.enter_context(httpx2.Client(timeout=30, trust_env=False))
        secret_keys = fleet[0].settings["SECRET_KEY"].split(",")
        yield System(google, cluster, fleet, keys, secret_keys, http)


def _replica(
    folder: Path,
    number: int,
    cluster: Cluster,
    relays: Relays,
    google: GoogleStandin,
    keys: Mapping[str, str],
) -> Replica:
    ways = [relays.open(port) for port in cluster.ports]
    callers_file = folder / "callers.yaml"
    callers = {
        name: stanza(keys[name], scopes=[SCOPES[scope] for scope in scopes])
        for name, scopes in CALLERS.items()
    }
    write_callers(callers_file, callers)
    hosts = ",".join(f"127.0.0.1:{way.port}" for way in ways)
    url = cluster.url.replace(f"127.0.0.1:{cluster.primary.port}", hosts)
    settings = environment(f"{url}?target_session_attrs=read-write", google, callers_file)
    settings["GOOGLE_REDIRECT_URI"] = REDIRECT_URI
    return Replica(BrokerProcess(settings, folder / f"replica-{number}.log"), settings, ways)


def _end(process: BrokerProcess) -> None:
    """Stop it in any state: the run is over and its output has been checked."""
    if process.pid is not None:
        process.kill()
