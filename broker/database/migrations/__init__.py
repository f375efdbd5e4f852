"""The schema's history: numbered SQL files, each with its way back.

A migration must be safe for the release that is still running while it is applied: add first,
remove in a later release. Its header says the oldest schema number whose release can work with
the result (`-- oldest-release: N`), so that an old replica that restarts during a roll-out still
starts, and one that would do harm does not.
"""
