"""An image is told by its bytes, and its header never raises."""

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from travel import png, send

from rlm_kernel.guest.image import Image


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
    ],
)
def test_image_size_and_type(kind, options):
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.new("RGB", (301, 77), "red").save(file, kind, **options)
    image = Image(file.getvalue())
    assert (image.mime, image.width, image.height) == (f"image/{kind.lower()}", 301, 77)
    assert repr(image) == f"<Image {image.mime} 301x77, {len(file.getvalue()):,} bytes>"
    assert base64.b64decode(image._repr_mimebundle_()[image.mime]) == image.data
    assert send(image)[1] == image


@given(
    head=st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF....WEBP"]),
    rest=st.binary(),
)
def test_image_header_never_raises(head, rest):
    image = Image(head + rest)
    assert (image.width is None) == (image.height is None)


def test_image_refuses_other_data():
    with pytest.raises(ValueError, match="no PNG"):
        Image(b"<svg>")
    with pytest.raises(ValueError, match="no image/jpeg"):
        Image(png(), "image/jpeg")
