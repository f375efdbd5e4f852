"""Backups and what comes after a restore: drills, and revocations that a backup does not know."""
