"""Revokes grants here, and then at Google."""
