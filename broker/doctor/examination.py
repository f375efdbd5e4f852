"""Has every part looked at, at once and in bounded time, and reports in one order.

A part that can't be judged because of another's fault is skipped, so that each fault is told once.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TypeVar

from broker.clock import Clock
from broker.database.database import StorageUnavailable
from broker.database.schema import SchemaError
from broker.doctor import clock_part, database_part, google_part
from broker.doctor.callers_part import check_callers
from broker.doctor.database_part import DatabaseFacts, ask_database
from broker.doctor.findings import Finding, Report
from broker.doctor.google_part import GoogleFacts, ask_google
from broker.doctor.issuers_part import check_issuers
from broker.doctor.partial_settings import PartialSettings, read_settings
from broker.doctor.redirects_part import check_redirects
from broker.doctor.source_part import check_source
from broker.google.errors import GoogleError
from broker.settings import Settings, database_tls

LIMIT = timedelta(seconds=6)
"""For each part."""

_SOURCE_SETTINGS = (
    "BROKER_SECRET_SOURCE",
    "GOOGLE_CLIENT_",
    "GOOGLE_CREDENTIALS_FILE",
    "VAULT_",
)
_Answer = TypeVar("_Answer")


async def examine(environ: Mapping[str, str], clock: Clock) -> list[Finding]:
    """Everything that is found out about the installation that these settings describe."""
    partial = read_settings(environ)
    found = _check_settings(partial)
    if partial.settings is not None:
        found += await _Examination(partial, partial.settings, clock).run()
    return found


def _check_settings(partial: PartialSettings) -> list[Finding]:
    report = Report("settings")
    for problem in partial.problems:
        report.fail(problem, "set it where the broker gets its environment from")
    if partial.settings is not None:
        for warning in partial.settings.warnings:
            report.warn(warning, "correct its name, or leave it unset")
        # In place of a broken one stands an address that nobody gave.
        for name in sorted(set(partial.settings.unverified_databases) - partial.broken):
            report.warn(database_tls.UNVERIFIED.format(name=name), database_tls.REMEDY)
    if not partial.problems:
        report.ok("all there and well-formed")
    return report.findings


class _Examination:
    """One round. Whoever can't say anything gives findings instead of facts."""

    def __init__(self, partial: PartialSettings, settings: Settings, clock: Clock) -> None:
        self._partial = partial
        self._settings = settings
        self._clock = clock

    async def run(self) -> list[Finding]:
        database, google, source, callers, issuers = await asyncio.gather(
            self._bounded("database", self._ask_database(), "see that PostgreSQL answers"),
            self._bounded("google", self._ask_google(), "see that GOOGLE_DISCOVERY_URL answers"),
            self._bounded("secret source", self._check_source(), "see that it answers"),
            self._bounded("callers file", self._check_callers(), "see that its disk answers"),
            self._bounded("issuers", self._check_issuers(), "see that each of them answers"),
        )
        return [
            *self._about_database(database),
            *self._about_sealing_keys(database),
            *source,
            *self._about_google(google),
            *self._about_redirects(),
            *_about_clock(google, database),
            *callers,
            *issuers,
        ]

    async def _bounded(
        self, part: str, asking: Awaitable[_Answer], remedy: str
    ) -> _Answer | list[Finding]:
        try:
            async with asyncio.timeout(LIMIT.total_seconds()):
                return await asking
        except TimeoutError:
            return Report(part).fail(f"no answer within {LIMIT.seconds} s", remedy).findings

    async def _ask_database(self) -> DatabaseFacts | list[Finding]:
        skipped = self._skipped("database", "DATABASE_URL")
        if skipped:
            return skipped
        try:
            return await ask_database(self._settings.database_url, self._clock)
        except (StorageUnavailable, SchemaError) as error:
            return database_part.unreachable(error)

    async def _ask_google(self) -> GoogleFacts | list[Finding]:
        skipped = self._skipped("google", "GOOGLE_DISCOVERY_URL")
        if skipped:
            return skipped
        try:
            return await ask_google(self._settings.discovery_url, self._clock)
        except GoogleError as error:
            return google_part.unreachable(error)

    async def _check_source(self) -> list[Finding]:
        skipped = self._skipped("secret source", *_SOURCE_SETTINGS)
        return skipped or await check_source(self._settings, self._clock)

    async def _check_callers(self) -> list[Finding]:
        skipped = self._skipped("callers file", "BROKER_CALLERS_FILE")
        # Without GOOGLE_SCOPES there is nothing to compare the callers' scopes with.
        allowed = () if self._partial.broken_among("GOOGLE_SCOPES") else self._settings.scopes
        return skipped or await asyncio.to_thread(
            check_callers, self._settings.callers_file, allowed
        )

    async def _check_issuers(self) -> list[Finding]:
        if self._partial.broken_among("BROKER_CALLERS_FILE"):
            return []
        return await check_issuers(self._settings.callers_file)

    def _about_database(self, database: DatabaseFacts | list[Finding]) -> list[Finding]:
        if isinstance(database, list):
            return database
        return [*database_part.check_database(database), *database_part.check_failovers(database)]

    def _about_sealing_keys(self, database: DatabaseFacts | list[Finding]) -> list[Finding]:
        if isinstance(database, list):
            return Report("sealing keys").skip("nothing is known of the database").findings
        return self._skipped("sealing keys", "SECRET_KEY") or database_part.check_sealing_keys(
            database, self._settings.secret_keys
        )

    def _about_google(self, google: GoogleFacts | list[Finding]) -> list[Finding]:
        if isinstance(google, list):
            return google
        return google_part.check_google(google, self._settings.discovery_url)

    def _about_redirects(self) -> list[Finding]:
        return self._skipped(
            "redirect URI", "GOOGLE_REDIRECT_URI", "BROKER_PUBLIC_LISTEN"
        ) or check_redirects(self._settings)

    def _skipped(self, part: str, *beginnings: str) -> list[Finding]:
        """The one finding about a part whose settings are wrong; empty if they are not."""
        broken = self._partial.broken_among(*beginnings)
        return Report(part).skip(f"see {broken} above").findings if broken else []


def _about_clock(
    google: GoogleFacts | list[Finding], database: DatabaseFacts | list[Finding]
) -> list[Finding]:
    report = Report("clock")
    if isinstance(google, GoogleFacts) and google.ahead is not None:
        clock_part.compare(report, "Google's", google.ahead)
    if isinstance(database, DatabaseFacts):
        clock_part.compare(report, "PostgreSQL's", database.ahead)
    if not report.findings:
        report.skip("neither Google nor PostgreSQL said what time it is")
    return report.findings
