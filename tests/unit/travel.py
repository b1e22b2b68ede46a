"""What tests of contexts share: values of all kinds, and sending them through `encode` and `Decoder`."""

import math
import struct
import zlib

from hypothesis import strategies as st

from rlm_kernel.guest.decode import Decoder
from rlm_kernel.guest.encode import encode
from rlm_kernel.guest.formats import PIECE_BYTES


def send(value, piece_bytes=PIECE_BYTES):
    """Encode and decode; return the format and the value that came out."""
    fmt, pieces = encode(value, piece_bytes)
    return fmt, receive(fmt, pieces)


def receive(fmt, pieces, **options):
    decoder = Decoder(fmt, **options)
    for piece in pieces:
        decoder.feed(piece)
    return decoder.finish()


def same(a, b):
    """Tell equal values of equal types, NaN being equal to itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(map(same, a.items(), b.items()))
    return a == b


def png(width=3, height=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x80" * 3 * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


any_text = st.text(st.characters())  # lone surrogates included
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary()
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.integers(min_value=10**400, max_value=10**5000)
)
keys = st.none() | st.booleans() | st.integers() | any_text | st.binary() | st.tuples(any_text, st.integers())
values = st.recursive(
    scalars | st.sets(keys) | st.frozensets(st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(st.sampled_from(["$rlm", "v", "a"]), inner)
    ),
    max_leaves=20,
)


class Custom:
    """What no format takes."""


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value
