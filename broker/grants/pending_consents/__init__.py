"""Consents that await confirmation by the caller that created the link."""
