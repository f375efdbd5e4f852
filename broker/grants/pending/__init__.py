"""Consents that await confirmation."""
