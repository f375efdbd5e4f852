"""The stand-in's records in memory, and in a file if one is given.

Stores and finds records; `tokens.py` decides what is issued and revoked.
"""

import json
import os
import secrets
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from devstack.google_standin.keys import KeyRing
from devstack.google_standin.model import (
    AccessToken,
    Account,
    Authorization,
    Client,
    Code,
    RefreshToken,
)

SEEDED_ACCOUNTS = (
    Account("108204268033311374519", "ada@example.com", "Ada Lovelace"),
    Account("113847520196648273051", "grace@example.com", "Grace Hopper"),
    Account("101592653589793238462", "katherine@example.org", "Katherine Johnson", "example.org"),
)


class StateFileError(Exception):
    """The state file can't be used; the message names the file and the reason."""


class StandinState:
    """The records. Readers and writers hold `lock`: the server has its own thread."""

    def __init__(self, clients: Iterable[Client] = (), path: Path | None = None) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._first_clients = [asdict(client) for client in clients]
        self.keys: KeyRing
        self.reset()
        if path is not None and path.exists():
            self._load(path)

    def reset(self) -> None:
        """Restore the seeded accounts and the first clients; keep the signing key."""
        with self.lock:
            if hasattr(self, "keys"):
                self.keys.forget_old()
            else:
                self.keys = KeyRing()
            self.accounts = {seed.sub: Account(**asdict(seed)) for seed in SEEDED_ACCOUNTS}
            self.clients: dict[str, Client] = {}
            for client in self._first_clients:
                self.add_client(Client(**json.loads(json.dumps(client))))
            self.authorizations: dict[tuple[str, str], Authorization] = {}
            self.codes: dict[str, Code] = {}
            self.refresh_tokens: dict[str, RefreshToken] = {}
            self.access_tokens: dict[str, AccessToken] = {}
            self.events: dict[str, list[dict[str, Any]]] = {}
            self.event_stream: dict[str, Any] = {}
            self.event_stream_status = "enabled"
            self.service_accounts: dict[str, dict[str, str]] = {}

    def add_client(self, client: Client) -> Client:
        self.clients[client.client_id] = client
        return client

    def add_account(
        self, email: str, name: str | None = None, *, hd: str | None = None, sub: str | None = None
    ) -> Account:
        """Add an account, or return the one that has this email."""
        with self.lock:
            existing = self.find_account(email)
            if existing is not None:
                return existing
            sub = sub or "1" + "".join(secrets.choice("0123456789") for _ in range(20))
            name = name or email.split("@", maxsplit=1)[0].replace(".", " ").title()
            self.accounts[sub] = Account(sub, email, name, hd)
            return self.accounts[sub]

    def find_account(self, sub_or_email: str) -> Account | None:
        """Find an account by `sub`, or by email in any case."""
        if sub_or_email in self.accounts:
            return self.accounts[sub_or_email]
        wanted = sub_or_email.casefold()
        return next((a for a in self.accounts.values() if a.email.casefold() == wanted), None)

    def account(self, sub_or_email: str) -> Account:
        """Find an account as `find_account` does. Raises `KeyError` for an unknown one."""
        account = self.find_account(sub_or_email)
        if account is None:
            raise KeyError(f"no account {sub_or_email}")
        return account

    def authorization(self, project: str, sub: str) -> Authorization:
        """Return what this account has granted to this project; empty at first."""
        return self.authorizations.setdefault((project, sub), Authorization(project, sub))

    def save(self) -> None:
        """Write the file, if there is one, atomically."""
        if self._path is None:
            return
        with self.lock:
            text = json.dumps(self._to_document(), indent=1)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(temporary).replace(self._path)

    def _to_document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "keys": self.keys.to_pems(),
            "accounts": [asdict(a) for a in self.accounts.values()],
            "clients": [asdict(c) for c in self.clients.values()],
            "authorizations": [asdict(a) for a in self.authorizations.values()],
            "codes": [asdict(c) for c in self.codes.values()],
            "refresh_tokens": [asdict(t) for t in self.refresh_tokens.values()],
            "access_tokens": [asdict(t) for t in self.access_tokens.values()],
            "events": self.events,
            "event_stream": self.event_stream,
            "event_stream_status": self.event_stream_status,
            "service_accounts": self.service_accounts,
        }

    def _load(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            self._restore(document)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateFileError(
                f"{path} is no state of the Google stand-in ({type(error).__name__}); remove it"
            ) from error

    def _restore(self, document: dict[str, Any]) -> None:
        self.keys = KeyRing(document["keys"])
        self.accounts = {a["sub"]: Account(**a) for a in document["accounts"]}
        given = self.clients
        self.clients = {c["client_id"]: Client(**c) for c in document["clients"]} | given
        self.authorizations = {
            (a["project"], a["sub"]): Authorization(**a) for a in document["authorizations"]
        }
        self.codes = {c["value"]: Code(**c) for c in document["codes"]}
        self.refresh_tokens = {t["value"]: RefreshToken(**t) for t in document["refresh_tokens"]}
        self.access_tokens = {t["value"]: AccessToken(**t) for t in document["access_tokens"]}
        self.events = document["events"]
        # Files of older releases lack these.
        self.event_stream = document.get("event_stream", {})
        self.event_stream_status = document.get("event_stream_status", "enabled")
        self.service_accounts = document.get("service_accounts", {})
