"""The formats in which a context travels between host and kernel: a name and a stream of bytes.

`encode` writes them and `decode` reads them, on the host and inside kernels alike: what one side can write,
the other can read, because both run this very source.

=======  ===========================  =========================================================
format   value                        bytes
=======  ===========================  =========================================================
text     str                          UTF-8, lone surrogates encoded like any other code point
bytes    bytes, bytearray             as they are
list     list                         lines, each a JSON array of elements; last line: the count
dict     dict                         lines, each a JSON array of [key, value]; last line: the count
json     any other JSON-able value    one JSON document
arrow    pandas DataFrame             an Arrow IPC stream
image    Image, PIL image (as PNG)    the MIME type, a newline, the image file
=======  ===========================  =========================================================

JSON is UTF-8, not escaped, so that surrogates stay apart. What JSON lacks is tagged, ``{"$rlm": tag, "v":
...}``: tuple, set, frozenset, bytes, datetime, date, time, decimal, path, int (huge ones, in hexadecimal),
dict (with other keys than str; pairs), image and arrow. Subclasses come back as their base, numpy scalars
as Python's, pandas' NA and NaT as None.
"""

from __future__ import annotations

__all__ = ["FORMATS", "MAX_NESTING", "PIECE_BYTES", "TAG", "reason"]

FORMATS = ("text", "bytes", "list", "dict", "json", "arrow", "image")
PIECE_BYTES = 4 * 1024 * 1024
MAX_NESTING = 200
TAG = "$rlm"


def reason(error: BaseException) -> str:
    """Return what ``error`` says on one line, cut, or else its type."""
    return " ".join(str(error).split())[:300] or type(error).__name__
