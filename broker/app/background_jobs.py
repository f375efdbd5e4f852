"""Every background job, with its interval."""

from collections.abc import Mapping

from broker.app.grant_changes import GrantChangeFeed
from broker.app.grant_service import GrantService
from broker.app.process_context import ProcessContext
from broker.app.token_service import TokenService
from broker.audit import retention, trail
from broker.audit.batch_macs import audit_keys
from broker.audit.retention import AuditRetention
from broker.background import BackgroundJobs
from broker.clock import Clock
from broker.database.shares import PROACTIVE_REFRESHES
from broker.grants import last_uses, lost_commits
from broker.grants.fingerprints import FingerprintBackfill, PendingFingerprintBackfill
from broker.grants.purging import GrantPurge
from broker.issuers import trusted
from broker.ops import periodic_jobs
from broker.ops.periodic_jobs import Job, PeriodicJobs, count_grants
from broker.revocations import sender as revocation_sender
from broker.tokens.refresh import proactive_refresh, write_behind
from broker.webhooks import sender
from broker.webhooks.sender import WebhookSender


def start_grant_jobs(
    jobs: BackgroundJobs, context: ProcessContext, grants: GrantService, changes: GrantChangeFeed
) -> None:
    """Follow changes of grants, and deliver revocations and webhooks."""
    jobs.keep_running("grant changes", changes.feed.follow)
    lost = changes.lost_commits
    jobs.every(lost_commits.RETRY_SECONDS, "lost commits", lost.examine, wake=lost.due)
    revocations = grants.revocations
    jobs.every(
        revocation_sender.POLL_SECONDS,
        "revocations",
        revocations.send_all_due,
        wake=revocations.due,
    )
    webhooks = grants.webhooks
    if isinstance(webhooks, WebhookSender):
        jobs.every(sender.POLL_SECONDS, "webhooks", webhooks.send_due, wake=webhooks.due)
    jobs.keep_running("oauth client", context.client.watch)
    jobs.keep_running("callers file", context.registry.watch)
    jobs.every(trusted.KEY_POLL_SECONDS, "issuers", context.issuers.refresh_keys)


def start_token_jobs(jobs: BackgroundJobs, context: ProcessContext, tokens: TokenService) -> None:
    """Refresh tokens before they expire, and write what is buffered in memory."""
    jobs.every(
        proactive_refresh.CHECK_SECONDS,
        "proactive refresh",
        tokens.proactive_refresh.run,
        share=PROACTIVE_REFRESHES,
    )
    jobs.every(write_behind.FLUSH_SECONDS, "write-behind", tokens.write_behind.flush)
    jobs.every(last_uses.FLUSH_SECONDS, "last uses", tokens.last_uses.flush)
    jobs.every(trail.FLUSH_SECONDS, "audit", context.audit.flush, wake=context.audit.due)


def start_purges(
    jobs: BackgroundJobs,
    context: ProcessContext,
    grants: GrantService,
    own_clock: Clock,
    purges: Mapping[str, Job],
) -> None:
    """Delete what is past its retention; `purges` are those of the public listener.

    The clock that is behind decides, so that none that is ahead deletes too early.
    """
    clocks = (context.clock, own_clock)
    audit = AuditRetention(
        database=context.database,
        clocks=clocks,
        metrics=context.metrics,
        keys=audit_keys(context.settings.secret_keys),
        keep=context.settings.audit_retention,
    )
    jobs.every(retention.EVERY_SECONDS, "audit retention", audit.purge)
    database, sealer, fingerprints = context.database, context.sealer, context.fingerprints
    periodic = PeriodicJobs(
        context.metrics.upkeep_failures,
        {
            "count grants": count_grants(context.grants, context.metrics),
            **purges,
            "purge grants": GrantPurge(database, clocks).run_once,
            "fill in lookup values": FingerprintBackfill(database, sealer, fingerprints).run_once,
            "fill in lookup values of pending consents": PendingFingerprintBackfill(
                database, sealer, fingerprints
            ).run,
            "tidy webhooks": grants.webhooks.tidy,
        },
    )
    jobs.every(periodic_jobs.EVERY_SECONDS, "periodic jobs", periodic.run_all)
