"""The browser's way: link → authorize → callback → page. Nothing here hands out a token."""
