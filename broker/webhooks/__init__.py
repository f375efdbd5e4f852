"""Telling the product what became of grants: signed, in order, until it has answered."""
