"""What a finished run leaves in a notebook: a trace, HTML that needs nothing, text."""

import json
import re
import stat
from html.parser import HTMLParser

import pytest
import recorded_run

from rlm_kernel import events as ev
from rlm_kernel.notebook.bundle import FOLDER, MIME_TYPE, mimebundle
from rlm_kernel.notebook.outline import CALLS_OF_A_BATCH, MAX_NODES, Outline
from rlm_kernel.notebook.static_html import MAX_CHARS
from rlm_kernel.trace.jsonl import Trajectory
from rlm_kernel.usage import Usage

CONTEXT = "lorem ipsum dolor sit amet " * 400
HOSTILE = "</pre></details><script>alert(1)</script><style>*{display:none}</style>\x1b[31m\u202e"
SECRET = "sk-canary-bundle-0123456789"


class Parsed(HTMLParser):
    """The elements of a page and its text; fails where they are not properly nested."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text, self.attributes = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_short_run_is_held_whole():
    bundle = mimebundle(recorded_run.run(CONTEXT))
    assert set(bundle) == {MIME_TYPE, "text/html", "text/plain"}
    trace = json.loads(json.dumps(bundle[MIME_TYPE]))
    assert trace["version"] == 1
    assert trace["lines"][0]["type"] == "trajectory"
    assert trace["summary"] == {
        "question": "How many words are in the text?",
        "status": "answered",
        "calls": 8,
        "seconds": 12.4,
        "input_tokens": 128_400,
        "output_tokens": 3120,
        "cached_tokens": 64_200,
        "cost_usd": "0.001",
    }
    assert bundle["text/plain"].startswith("about 406 words\n\n(12.4 s, 8 calls")


def test_a_long_run_is_a_file_beside_the_notebook(tmp_path):
    events = recorded_run.run(CONTEXT)
    bundle = mimebundle(events, folder=tmp_path, inline_bytes=1000)
    trace = bundle[MIME_TYPE]
    assert "lines" not in trace
    path = tmp_path / trace["path"]
    assert path.parent == tmp_path / FOLDER
    assert not trace["path"].startswith((".", "/"))
    assert trace["bytes"] == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = Trajectory.load(path, CONTEXT)
    assert [each.type for each in read.events][-1] == "run_finished"
    assert trace["path"] in bundle["text/html"]
    assert len(json.dumps(trace)) < 1000


def test_a_trajectory_that_is_there_is_named_and_none_written(tmp_path):
    (tmp_path / "run.jsonl").write_text("here\n")
    bundle = mimebundle(recorded_run.run(CONTEXT), folder=tmp_path, trace=tmp_path / "run.jsonl")
    assert bundle[MIME_TYPE]["path"] == (tmp_path / "run.jsonl").as_posix()
    assert [each.name for each in tmp_path.iterdir()] == ["run.jsonl"]


def test_where_nothing_can_be_written_the_rest_is_kept(tmp_path):
    (tmp_path / FOLDER).write_text("a file where the folder would be")
    bundle = mimebundle(recorded_run.run(CONTEXT), folder=tmp_path, inline_bytes=10)
    assert "could not be written" in bundle[MIME_TYPE]["lost"]
    assert "about 406 words" in bundle["text/html"]


def test_html_needs_nothing_and_says_everything():
    page = Parsed(mimebundle(recorded_run.run(CONTEXT))["text/html"])
    allowed = {"div", "p", "b", "i", "br", "small", "blockquote", "details", "summary", "pre", "code"}
    assert set(page.elements) <= allowed | {"table", "thead", "tbody", "tr", "th", "td"}
    assert set(page.attributes) <= {"open"}
    text = " ".join(page.text.split())
    for part in (
        *("Answered: How many words are in the text?", "about 406 words", "big, small, local kernel"),
        *(
            "Turn 1 Let me look.",
            "len(context)",
            "llm_query_batched \u00d7 4, 1 failed",
            "Which word is longest?",
        ),
        *(
            "TypeError: bad",
            "RateLimitError: 429 from the endpoint",
            "kernel lost: killed",
            "one call of 4 failed",
        ),
    ):
        assert part in text, part


def test_texts_of_a_run_are_text():
    page = Parsed(mimebundle(recorded_run.run(CONTEXT, hostile=HOSTILE))["text/html"])
    assert not {"script", "style", "svg", "img"} & set(page.elements)
    assert "<script>alert(1)</script>" in page.text
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text


def test_keys_are_in_none_of_it(tmp_path):
    events = recorded_run.run(CONTEXT, hostile=f" {SECRET} ")
    for limit in (10, 1_000_000):
        bundle = mimebundle(events, secrets=[SECRET], folder=tmp_path, inline_bytes=limit)
        everything = json.dumps(bundle) + "".join(each.read_text() for each in tmp_path.rglob("*.jsonl"))
        assert SECRET not in everything
        assert "[redacted]" in everything


def big_run(calls):
    yield ev.RunStarted(run="r1", query="q", model="big", sub_model="small", repl="local")
    yield ev.CallStarted(run="r1", call="c1", kind="root", turn=1, depth=0, model="big")
    yield ev.CallFinished(run="r1", call="c1", text="words " * 1000, model="big", usage=Usage(10, 10))
    yield ev.CellStarted(run="r1", cell="x1", turn=1, block=1, code="code = 1\n" * 5000)
    for index in range(calls):
        prompt = {"role": "user", "content": "p" * 10_000}
        yield ev.CallStarted(
            run="r1",
            call=f"s{index}",
            kind="llm_query",
            turn=1,
            depth=1,
            model="small",
            cell="x1",
            batch="b1",
            index=index,
            messages=(prompt,),
        )
    for index in range(calls):
        error = "RateLimitError: no" if index == calls - 1 else None
        yield ev.CallFinished(run="r1", call=f"s{index}", text="r" * 5000, usage=Usage(1, 2), error=error)
    for index in range(300):
        call = f"t{index}"
        yield ev.CallStarted(run="r1", call=call, kind="llm_query", turn=1, depth=1, model="small", cell="x1")
        yield ev.CallFinished(run="r1", call=call, text="r" * 5000, usage=Usage(1, 2))
    yield ev.CellFinished(run="r1", cell="x1", status="ok", seconds=1.0)


def test_a_large_run_stays_small_and_counts_all(tmp_path):
    outline = Outline(str)
    for event in recorded_run.stamped(big_run(1000)):
        outline.take(event)
    assert outline.root.calls == 1301
    assert outline.root.usage == Usage(10 + 1300, 10 + 2600)
    cell = outline.root.children[0].children[0]
    batch = cell.children[0]
    assert (batch.size, batch.failed, batch.left_out) == (1000, 1, 1000 - CALLS_OF_A_BATCH - 1)
    assert [call.state for call in batch.children] == ["done"] * CALLS_OF_A_BATCH + ["failed"]

    def nodes(node):
        return 1 + sum(map(nodes, node.children))

    assert nodes(outline.root) <= MAX_NODES + 1
    assert cell.left_out == 300 - (len(cell.children) - 1)
    bundle = mimebundle(recorded_run.stamped(big_run(1000)), folder=tmp_path)
    assert len(bundle["text/html"]) < MAX_CHARS + 20_000
    assert len(json.dumps(bundle[MIME_TYPE])) < 1000


def test_a_run_under_way_says_so():
    events = recorded_run.run(CONTEXT)
    bundle = mimebundle(events[: len(events) // 2])
    assert bundle["text/plain"] == "Run in progress: How many words are in the text?"
    assert "Run in progress" in bundle["text/html"]
    assert bundle[MIME_TYPE]["summary"]["status"] == "running"


@pytest.mark.parametrize("status", ["exhausted", "over_budget", "timed_out", "cancelled", "failed"])
def test_a_run_without_an_answer_says_why(status):
    end = ev.RunFinished(run="r1", status=status, text="the best there was", reason="because of it")
    bundle = mimebundle([*recorded_run.run(CONTEXT)[:-1], end])
    assert bundle["text/plain"].startswith(f"{status.replace('_', ' ')}: because of it\n\nthe best there was")
    assert re.search(r"<b>[A-Z][a-z ]+</b>: How many", bundle["text/html"])
    assert "because of it" in bundle["text/html"]
