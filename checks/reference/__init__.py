"""Generates those parts of the documents that repeat the code, and checks that they are current.

`python -m checks.reference` rewrites them. The rest of each page is written by hand.
"""
