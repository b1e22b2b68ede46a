"""The console: a fact a line without a terminal, a tree and a transcript on one, and no foreign escapes."""

from __future__ import annotations

import io
import re

import pytest
from recorded_run import run
from rich.console import Console

from rlm_kernel import events as ev
from rlm_kernel.trace.console import ConsoleReader, _short
from rlm_kernel.trace.progress import Progress, clean, one_line

CONTEXT = " ".join(f"w{number}" for number in range(8000))
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x1b[31m\x9b1m[bold red]markup[/nonsense]:smile:\x00\u202e\ud800\r"


def terminal(width=100):
    return Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=width, height=40)


def shown(console):
    return console.file.getvalue()


def lines_of(events, **options):
    console = Console(file=io.StringIO(), width=80)
    with ConsoleReader(console, **options) as reader:
        for event in events:
            reader(event)
    return shown(console).splitlines()


def test_plain_lines_say_each_fact_once():
    lines = lines_of(run(CONTEXT))
    assert lines[:3] == [
        "question: How many words are in the text?",
        "models: big, sub-calls small, local kernel",
        f"context: str, {len(CONTEXT):,} chars",
    ]
    assert "turn 1: runs 1 line: len(context)" in lines
    assert "    " + str(len(CONTEXT)) in lines
    assert any(
        re.fullmatch(r"turn 2: llm_query_batched: 4 calls in \d\.\d s, 1 failed, the last with Rate.*", line)
        for line in lines
    )
    assert "note: kernel lost: killed" in lines
    assert lines[-3:] == [
        "Answer:",
        "about 406 words",
        "answered in 12.4 s: 8 calls, depth 1, 128k tokens in (50 % cached), 3.1k out, $0.0010",
    ]
    assert max(lines.count(line) for line in lines) == 1


def test_a_batch_of_ten_thousand_is_a_few_lines():
    events = run(CONTEXT * 10, batch=10_000, children=False)
    assert len(lines_of(events)) < 600  # one every 5 s of a batch of 40 minutes
    progress = Progress()
    for event in events:
        progress.take(event)
    assert not any((progress._runs, progress._cells, progress._rows, progress._turns, progress._no_requests))


def test_verbose_lines_show_whole_cells_and_children():
    lines = lines_of(run(CONTEXT), verbose=True)
    assert "    counts = llm_query_batched(prompts)" in lines
    assert "  [r2] question at depth 1: Which word is longest?" in lines


def test_an_unknown_cost_is_not_zero():
    assert lines_of(run(CONTEXT, cost=None))[-1].endswith("3.1k out, cost unknown")


def test_a_run_without_an_answer_says_why():
    events = run(CONTEXT)[:3]
    events.append(
        ev.RunFinished(run="r1", status="over_budget", text="", reason="budget of 1 usd reached", seconds=3.0)
    )
    lines = lines_of(events)
    assert lines[-2] == "No answer."
    assert lines[-1].startswith("over budget after 3.0 s (budget of 1 usd reached): 0 calls")


def test_on_a_terminal_the_tree_gives_way_to_a_transcript():
    console = terminal()
    with ConsoleReader(console) as reader:
        for event in run(CONTEXT):
            reader(event)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(console))
    transcript = text[text.index("Turn 1: ") :]
    assert "counts = llm_query_batched(prompts)" in transcript
    assert "lines left out)" in transcript
    assert "  llm_query_batched: 4 calls in" in transcript
    assert transcript.splitlines()[-2:] == [
        "about 406 words",
        "answered in 12.4 s: 8 calls, depth 1, 128k tokens in (50 % cached), 3.1k out, $0.0010",
    ]
    assert shown(console).count("\x1b[?25l") == shown(console).count("\x1b[?25h") == 1  # the cursor is back


def test_the_tree_shows_what_is_under_way():
    events = run(CONTEXT)
    reader = ConsoleReader(terminal())
    with reader:
        for event in events:
            reader(event)
            if event.type == "call_delta" and event.run == "r2":
                break
        picture = Console(file=io.StringIO(), width=100)
        picture.print(reader._tree())
    text = shown(picture)
    assert "How many words are in the text?" in text
    assert "4/4, 1 failed" in text
    assert "rlm_query " in text
    assert "Which word is longest?" in text
    assert "the model is writing" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_run_that_is_cut_short_gives_the_terminal_back():
    console = terminal()
    with ConsoleReader(console) as reader:
        for event in run(CONTEXT)[:20]:
            reader(event)
    assert shown(console).count("\x1b[?25l") == shown(console).count("\x1b[?25h") == 1
    assert "Turn 1: " in shown(console)


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_styles_itself_or_reaches_the_terminal(plain):
    console = terminal(width=400)
    with ConsoleReader(console, plain=plain) as reader:
        for event in run(CONTEXT, hostile=HOSTILE):
            reader(event)
    text = shown(console)
    assert "[bold red]markup[/nonsense]:smile:" in text
    for piece in ("owned", "\x1b[2J", "\x07", "\x9b", "\x00", "\u202e", "\ud800", "\x1b]"):
        assert piece not in text
    assert not plain or "\x1b" not in text


def test_plain_lines_fit_an_ascii_terminal():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    reader = ConsoleReader(Console(file=file, force_terminal=True))
    for event in run(CONTEXT, hostile=" \N{SNOWMAN}"):
        reader(event)
    file.flush()
    assert b"in the text? ?" in file.buffer.getvalue()


def test_a_reader_that_joins_late_shows_nothing_and_breaks_nothing():
    assert lines_of(run(CONTEXT)[4:]) == []


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\x1b[1;31mb\x1b[0m", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1bPq..\x1b\\b\x1b(Bc\x1b", "abc"),
        ("10 %\r20 %\r\ndone\t.", "10 %\n20 %\ndone    ."),
        ("\ud800é\u2067", "\ufffdé"),
    ],
)
def test_clean(text, cleaned):
    assert clean(text) == cleaned


def test_one_line_is_bounded():
    assert one_line("a\n  b") == "a b"
    assert len(one_line("word " * 10**5)) == 160


@pytest.mark.parametrize(
    ("number", "short"),
    [
        *((0, "0"), (999, "999"), (1000, "1.0k"), (3120, "3.1k"), (9_960, "10k"), (128_400, "128k")),
        *((999_600, "1.0M"), (2_400_000, "2.4M"), (3_000_000_000, "3.0G")),
    ],
)
def test_short_numbers(number, short):
    assert _short(number) == short
