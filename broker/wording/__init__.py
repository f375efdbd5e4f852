"""The text of the pages, one module per subject and language."""
