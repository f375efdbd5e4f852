"""Authentication and policies of callers; knows nothing of grants or of Google's responses."""
