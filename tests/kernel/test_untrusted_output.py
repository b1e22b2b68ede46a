"""What code in a cell sends past the guest: outputs of no form, without end, and under false names."""

from __future__ import annotations

import pytest
from kernels import open_repl

from rlm_kernel.outputs import Output

SEND = """
kernel = get_ipython().kernel
def send(kind, content, times=1):
    for _ in range(times):
        kernel.session.send(kernel.iopub_socket, kind, content, parent=kernel.get_parent("shell"))
"""


@pytest.fixture
async def repl():
    async with open_repl() as repl:
        await repl.run(SEND)
        yield repl


async def test_messages_of_no_form_are_no_outputs_and_end_nothing(repl):
    result = await repl.run("""
send("stream", {"name": "stdout", "text": ["a", "list"]})
send("stream", {"name": "stdout", "text": {"a": 1}})
send("display_data", {"data": "text", "metadata": {}})
send("error", {"ename": {"a": 1}, "evalue": "v", "traceback": []})
send("display_data", {"data": {"<script>": "x", "text/html": {"a": "</script>"}}, "metadata": {"a": 1}})
"as ever"
""")
    assert result.status == "ok"
    assert result.outputs == (
        Output("display", "", {"text/html": '{"a": "</script>"}'}),
        Output("result", "'as ever'"),
    )


@pytest.mark.parametrize(
    ("kind", "content", "sent", "most"),
    [
        ("display_data", '{"data": {"text/html": "x" * 99}, "metadata": {}}', 900, 801),
        ("display_data", '{"data": {"text/html": "x" * 99}, "metadata": {}}', 20_000, 801),
        ("display_data", '{"data": {"text/plain": "x" * 1_000_000}, "metadata": {}}', 50, 10),
        ("stream", '{"name": "stdout", "text": "x" * 50_000}', 50, 10),
        ("error", '{"ename": "E" * 10**6, "evalue": "v" * 10**6, "traceback": ["t" * 10**6]}', 50, 10),
    ],
)
async def test_what_comes_is_bounded_on_this_side(repl, kind, content, sent, most):
    result = await repl.run(f"send({kind!r}, {content}, {sent})", timeout=120)
    assert result.status == "ok"
    assert 1 <= len(result.outputs) <= most
    assert sum(len(each.text) + len(each.value) + len(each.name) for each in result.outputs) < 500_000
    assert await repl.value("1 + 1") == "2"
