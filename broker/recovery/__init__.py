"""Backups and restores: drills, escrowed keys, and revocations that a backup does not contain."""
