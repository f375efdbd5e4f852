"""Runs all checks at the same time, each within a time limit, and reports them in a fixed order.

A part that depends on something broken is skipped, so that each fault is reported once.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TypeVar

from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.database.schema import SchemaError
from broker.doctor import database_check, google_check
from broker.doctor.callers_check import check_callers, check_issuers
from broker.doctor.clock_check import check_clock
from broker.doctor.database_check import DatabaseFacts, fetch_database_facts
from broker.doctor.findings import Finding, Report
from broker.doctor.google_check import GoogleFacts, fetch_google_facts
from broker.doctor.secret_source_check import check_source
from broker.doctor.settings_check import check_redirects, check_settings
from broker.google.errors import GoogleError
from broker.settings import SETTING_NAMES, Settings, examine_settings
from broker.settings.table import SETTINGS, Section

LIMIT = timedelta(seconds=6)
"""For each part."""

_SOURCE_SETTINGS = tuple(
    setting.name for setting in SETTINGS if setting.section is Section.OAUTH_CLIENT
)
_Answer = TypeVar("_Answer")


async def examine(environ: Mapping[str, str], clock: Clock) -> list[Finding]:
    """Return the findings about the installation that these environment variables describe."""
    settings, problems = examine_settings(environ)
    findings = check_settings(settings, problems)
    broken = frozenset(problem.name for problem in problems)
    if not broken <= SETTING_NAMES:
        # A variable of a library is wrong, such as a proxy's address: no call would work.
        return findings
    return findings + await _Examination(settings, broken, clock).run()


class _Examination:
    """One run. A check that cannot get its facts returns findings in their place."""

    def __init__(self, settings: Settings, broken: frozenset[str], clock: Clock) -> None:
        self._settings = settings
        self._broken = broken
        self._clock = clock

    async def run(self) -> list[Finding]:
        database, google, source, callers, issuers = await asyncio.gather(
            self._bounded("database", self._fetch_database(), "check that PostgreSQL responds"),
            self._bounded("google", self._fetch_google(), "check GOOGLE_DISCOVERY_URL"),
            self._bounded("secret source", self._check_source(), "check that it responds"),
            self._bounded("callers file", self._check_callers(), "check that its disk responds"),
            self._bounded("issuers", self._check_issuers(), "check that each of them responds"),
        )
        return [
            *self._check_database(database),
            *self._check_sealing_keys(database),
            *source,
            *self._check_google(google),
            *self._check_redirects(),
            *check_clock(
                google.ahead if isinstance(google, GoogleFacts) else None,
                database.ahead if isinstance(database, DatabaseFacts) else None,
            ),
            *callers,
            *issuers,
        ]

    async def _bounded(
        self, part: str, check: Awaitable[_Answer], remedy: str
    ) -> _Answer | list[Finding]:
        try:
            async with asyncio.timeout(LIMIT.total_seconds()):
                return await check
        except TimeoutError:
            return Report(part).fail(f"no answer within {LIMIT.seconds} s", remedy).findings

    async def _fetch_database(self) -> DatabaseFacts | list[Finding]:
        skipped = self._skipped("database", "DATABASE_URL")
        if skipped:
            return skipped
        try:
            return await fetch_database_facts(self._settings.database_url, self._clock)
        except (StorageUnavailable, SchemaError) as error:
            return database_check.report_unavailable(error)

    async def _fetch_google(self) -> GoogleFacts | list[Finding]:
        skipped = self._skipped("google", "GOOGLE_DISCOVERY_URL")
        if skipped:
            return skipped
        try:
            return await fetch_google_facts(self._settings.discovery_url, self._clock)
        except GoogleError as error:
            return google_check.report_unavailable(error)

    async def _check_source(self) -> list[Finding]:
        skipped = self._skipped("secret source", *_SOURCE_SETTINGS)
        return skipped or await check_source(self._settings, self._clock)

    async def _check_callers(self) -> list[Finding]:
        skipped = self._skipped("callers file", "BROKER_CALLERS_FILE")
        # Without GOOGLE_SCOPES the callers' scopes are not compared.
        allowed = () if "GOOGLE_SCOPES" in self._broken else self._settings.scopes
        return skipped or await asyncio.to_thread(
            check_callers, self._settings.callers_file, allowed
        )

    async def _check_issuers(self) -> list[Finding]:
        if "BROKER_CALLERS_FILE" in self._broken:
            return []
        return await check_issuers(self._settings.callers_file)

    def _check_database(self, database: DatabaseFacts | list[Finding]) -> list[Finding]:
        if isinstance(database, list):
            return database
        return [*database_check.check_database(database), *database_check.check_failovers(database)]

    def _check_sealing_keys(self, database: DatabaseFacts | list[Finding]) -> list[Finding]:
        if isinstance(database, list):
            return Report("sealing keys").skip("the database could not be queried").findings
        return self._skipped("sealing keys", "SECRET_KEY") or database_check.check_sealing_keys(
            database, self._settings.secret_keys
        )

    def _check_google(self, google: GoogleFacts | list[Finding]) -> list[Finding]:
        if isinstance(google, list):
            return google
        return google_check.check_google(google, self._settings.discovery_url)

    def _check_redirects(self) -> list[Finding]:
        return self._skipped(
            "redirect URI", "GOOGLE_REDIRECT_URI", "BROKER_PUBLIC_LISTEN"
        ) or check_redirects(self._settings)

    def _skipped(self, part: str, *names: str) -> list[Finding]:
        """Return the finding of a part whose settings are broken; empty if they are not."""
        broken = " and ".join(sorted(self._broken.intersection(names)))
        return Report(part).skip(f"see {broken} above").findings if broken else []
