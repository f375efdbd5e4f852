"""Webhooks: signed notifications of changed grants, sent in order until they are accepted."""
