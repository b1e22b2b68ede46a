"""What of a sandbox's output is shown: nothing that runs, loads or moves a cursor."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.kernels.pyodide.rich import bundle, text

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()


@given(st.text())
def test_no_control_but_colours_line_ends_and_tabs_is_left(value):
    cleaned = text(value)
    rest = cleaned.replace("\x1b[", "").translate(dict.fromkeys(map(ord, "\t\n\r\b")))
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in rest.replace("\x1b", ""))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b]8;;http://host/\x07here\x1b]8;;\x07", "]8;;http://host/here]8;;"),
        ("\x1b]0;title\x07", "]0;title"),
        ("\x1b[2J\x1b[H", "[2J[H"),
        ("\x9b2J", "2J"),
        ("50 %\r100 %\n", "50 %\r100 %\n"),
    ],
)
def test_escape_sequences_are_defused(given, shown):
    assert text(given) == shown


@pytest.mark.parametrize(
    "mime",
    [
        "text/html",
        "text/markdown",
        "text/latex",
        "image/svg+xml",
        "application/javascript",
        "application/vnd.jupyter.widget-view+json",
    ],
)
def test_what_could_run_or_load_is_left_out(mime):
    assert bundle({mime: "<img src=http://host/>", "text/plain": "plain"}) == {"text/plain": "plain"}
    assert bundle({mime: "<img src=http://host/>"}) == {"text/plain": f"[not shown: {mime}]"}


def test_images_are_what_they_say():
    assert bundle({"image/png": PNG})["image/png"] == PNG
    assert "image/png" not in bundle({"image/png": base64.b64encode(b"<svg onload=alert(1)>").decode()})
    assert "image/jpeg" not in bundle({"image/jpeg": PNG})
    assert "image/png" not in bundle({"image/png": "no base64"})


def test_html_is_shown_without_scripts_and_network_where_it_is_allowed():
    shown = bundle({"text/html": "\"'><script>alert(1)</script>"}, show_html=True)["text/html"]
    assert shown.startswith('<iframe sandbox=""')
    assert "<script" not in shown
    assert "default-src &#x27;none&#x27;" in shown
    assert shown.count('"') == shown.split("srcdoc=")[0].count('"') + 2


@pytest.mark.parametrize("data", [None, 5, [], {"text/plain": 5}, {5: "x"}, {"application/json": "text"}])
def test_what_is_no_bundle_is_empty(data):
    assert bundle(data)["text/plain"] in ("", "[not shown: application/json]")
