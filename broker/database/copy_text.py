"""Values in the text format of PostgreSQL's COPY, where bytes made once serve many rows.

asyncpg encodes each value of each row anew: for rows that repeat themselves, that is most of the
work.
"""

from collections.abc import Iterable

_NULL = rb"\N"
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "\0": r"\\0"})
"""No text column can hold U+0000; it is shown, so that one odd value can't stop a whole batch."""

_ARRAY_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\0": r"\\0"})


def text_field(value: str | None) -> bytes:
    """A text, or nothing, as one field of a line. Never fails."""
    if value is None:
        return _NULL
    if value.isprintable() and "\\" not in value:
        # As nearly all are: nothing to escape, no surrogate, and ten times as fast.
        return value.encode()
    return value.translate(_ESCAPES).encode("utf-8", "replace")


def array_field(values: Iterable[str]) -> bytes:
    """Texts as one field of type `text[]`; none at all is NULL. Never fails."""
    quoted = ['"' + value.translate(_ARRAY_ESCAPES) + '"' for value in values]
    return text_field("{" + ",".join(quoted) + "}" if quoted else None)
