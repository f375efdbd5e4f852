"""The migrations of the schema: numbered SQL files, each with its reversal.

A migration must be safe for the release that still runs while it is applied: add first, remove in a
later release. Its header names the oldest schema number whose release can work with the result
(`-- oldest-release: N`), so that an old replica that restarts during a rollout starts, and one that
would do harm does not.
"""
