"""What can't travel is refused with its place; what can is written in bounded lines."""

import pytest
from travel import Custom, nested, receive, send

from rlm_kernel.guest.encode import EncodeError, check, encode
from rlm_kernel.guest.formats import MAX_NESTING


def test_long_lists_are_written_in_bounded_lines():
    value = [*range(3000), *("x" * 9000 for _ in range(1000))]
    data = b"".join(encode(value)[1])
    assert max(map(len, data.split(b"\n"))) < 1024 * 1024 + 10_000
    assert receive("list", [data]) == value


def test_equal_sets_have_equal_bytes():
    words = [f"w{number}" for number in range(50)]
    one, other = set(words), set()
    for word in reversed(words):
        other.add(word)
    assert list(encode(one)[1]) == list(encode(other)[1])


def cyclic():
    value = {"a": []}
    value["a"].append(value)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Custom(), "context is a Custom"),
        ({"a": [1, 2, 3, Custom()]}, 'context["a"][3] is a Custom'),
        ({"a": {("t",): Custom()}}, 'context["a"][tuple] is a Custom'),
        ({Custom(): 1}, "is a Custom"),
        ([*range(1000), {"x": 1j}], 'context[1000]["x"] is a complex'),
        ({1, 2j}, "complex"),
        (cyclic(), "contains itself"),
        (nested(MAX_NESTING + 2), "levels deep"),
        (nested(100_000), "levels deep"),
    ],
)
def test_what_cannot_travel(value, message):
    with pytest.raises(EncodeError) as caught:
        check(value)
    assert message in str(caught.value)
    with pytest.raises(EncodeError) as encoded:
        list(encode(value)[1])
    assert str(encoded.value) == str(caught.value)


def test_error_says_what_is_possible_and_what_would_do():
    pd = pytest.importorskip("pandas")
    with pytest.raises(EncodeError, match=r"made of str, bytes.*to_frame\(\) would do"):
        check([pd.Series([1])])


def test_as_deep_as_allowed():
    for value in (nested(MAX_NESTING - 1), [{1: nested(MAX_NESTING // 2)}]):
        assert send(value)[1] == value


def test_a_picture_that_png_cannot_hold():
    pillow = pytest.importorskip("PIL.Image")
    with pytest.raises(EncodeError, match="PNG can't hold"):
        check(pillow.new("CMYK", (4, 5)))


def test_frames_that_cannot_travel():
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    with pytest.raises(EncodeError, match="Arrow can't hold"):
        check(pd.DataFrame({"mixed": [1, "a", Custom()]}))
