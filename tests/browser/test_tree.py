"""The panel's tree in a plain page: one module, one style sheet, recorded events, no network."""

from __future__ import annotations

import json
from pathlib import Path

import long_run
import pytest
from browsing import aside

import rlm_kernel
from rlm_kernel import events as ev
from rlm_kernel.notebook.feed import Feed
from rlm_kernel.trace.jsonl import JsonlWriter

pytestmark = pytest.mark.browser

STATIC = Path(rlm_kernel.__file__).parent / "notebook" / "static"
PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/panel.css">
<body style="margin:16px"><div id="host"></div>
<script type="module">import * as tree from "/tree.js"; window.tree = tree; window.ready = true;</script>"""
ROWS = ".rlm-spacer .rlm-row:not([hidden])"
HOSTILE = "</pre><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
WATCH = """() => { window.longest = 0; new PerformanceObserver((list) => {
  for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration);
}).observe({type: "longtask", buffered: false}); }"""


@pytest.fixture
def page(chromium):
    """A page with the module loaded; what it asks for besides the three files fails the test."""
    asked, errors = [], []

    def serve(route):
        name = route.request.url.rsplit("/", 1)[1]
        if name in ("tree.js", "panel.css"):
            route.fulfill(path=STATIC / name)
        elif name == "":
            route.fulfill(body=PAGE, content_type="text/html")
        else:
            asked.append(route.request.url)
            route.abort()

    def opened():
        page = chromium.new_page(viewport={"width": 1180, "height": 640})
        page.route("**/*", serve)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto("http://panel.test/")
        page.wait_for_function("window.ready")
        return page

    page = aside(opened)
    yield page
    aside(page.close)
    assert [url for url in asked if not url.endswith("favicon.ico")] == []
    assert errors == []


def plain(events):
    return [ev.to_json(each) for each in events]


def short(events):
    """Return events as the kernel sends them to a panel."""
    feed = Feed(lambda _: None, lambda text: text)
    for event in events:
        feed.take(event)
    feed.flush()
    return feed.snapshot()["events"]


def show(page, events, *, whole=None, controls="onStop() { window.stopped = true; }"):
    page.evaluate(
        f"""([events, whole]) => {{
          window.view?.dispose();
          const host = {{fetch: tree.finder(whole), {controls}}};
          window.view = tree.mount(document.getElementById("host"), host);
          view.push(events);
        }}""",
        [events, events if whole is None else whole],
    )
    page.wait_for_function("view.queue.length === 0 && view.frame === undefined")


def names(page):
    return [" ".join(text.split()) for text in page.locator(f"{ROWS} .rlm-label").all_inner_texts()]


def test_run_under_way(page, shot):
    show(page, short(long_run.run(until=9.2)))
    assert page.inner_text(".rlm-state") == "running"
    assert page.inner_text(".rlm-question") == long_run.QUESTION
    assert page.inner_text(".rlm-facts").startswith("gpt-5 \u203a gpt-5-mini")
    assert "local kernel" in page.inner_text(".rlm-facts")
    assert "/ $0.5000" in page.inner_text(".rlm-facts")
    assert names(page) == ["Turn 1", "[1]", "Turn 2", "[2]", "llm_query_batched \u00d7 44"]
    batch = page.locator(f"{ROWS}[data-kind=batch]")
    assert "of 44 done, 1 failed" in batch.inner_text()
    assert batch.locator("canvas").is_visible()
    page.click(".rlm-stop")
    assert page.evaluate("window.stopped")
    shot(page, "tree-running")


def test_whole_and_short_events_make_the_same_tree(page):
    events = long_run.run()
    show(page, plain(events))
    rows = page.locator(ROWS).all_inner_texts()
    head = page.inner_text(".rlm-facts") + page.inner_text(".rlm-summary")
    show(page, short(events))
    assert page.locator(ROWS).all_inner_texts() == rows
    assert page.inner_text(".rlm-facts") + page.inner_text(".rlm-summary") == head


def test_sums_are_rolled_up(page):
    events = long_run.run()
    show(page, plain(events))
    used = [each.usage for each in events if isinstance(each, ev.CallFinished)]
    sums = page.evaluate("view.fold.root.sum")
    assert sums["input"] == sum(each.input_tokens for each in used)
    assert sums["output"] == sum(each.output_tokens for each in used)
    assert sums["cached"] == sum(each.cached_tokens for each in used)
    assert sums["cost"] == pytest.approx(float(sum(each.cost_usd for each in used)))
    # The call that holds the child run has no tokens of its own; its row shows those of the child's calls.
    child = page.locator(f"{ROWS}", has_text="rlm_query").filter(has_text="Compare the two versions").last
    assert "66.6k" in child.inner_text()
    assert page.evaluate("view.fold.root.sum.calls") == len(used) - 1


def test_unknown_price_is_said(page):
    events = plain(long_run.run())
    for each in events:
        if each["type"] == "call_finished" and each["call"].startswith("b1"):
            each["usage"]["cost_usd"] = None
    show(page, events)
    batch = page.locator(f"{ROWS}[data-kind=batch]").first
    assert batch.locator(".rlm-number").nth(3).inner_text() == "?"
    turn = page.locator(f"{ROWS}[data-kind=turn]").nth(1)
    assert turn.locator(".rlm-number").nth(3).inner_text().startswith("≥ $")


def test_finished_run_shows_the_answer_and_no_stop(page, shot):
    show(page, plain(long_run.run()))
    assert page.inner_text(".rlm-state") == "answered"
    assert page.inner_text(".rlm-answer").startswith("19 of the 48 contracts changed it.")
    assert not page.locator(".rlm-stop").is_visible()
    assert (
        page.locator(f"{ROWS}[data-kind=cell][data-state=failed] .rlm-value")
        .inner_text()
        .endswith("NameError: name 'names' is not defined")
    )
    shot(page, "tree-finished")


def test_model_writing_shows_its_last_words(page):
    show(page, short(long_run.run(until=5.4)))
    live = page.locator(f"{ROWS} .rlm-preview[data-live=true]")
    assert live.inner_text().startswith("… ")
    assert "prompts = [f" in live.inner_text()


def test_details_come_from_the_host(page, shot):
    events = long_run.run()
    show(page, short(events), whole=plain(events))
    page.click(f"{ROWS}[data-kind=batch] .rlm-twisty")
    page.locator(f"{ROWS}[data-kind=call]").nth(3).click()
    detail = page.locator(".rlm-detail")
    detail.get_by_text("Yes: raised to 24 months (contract 3).").wait_for()
    assert detail.locator(".rlm-section-name").all_inner_texts() == ["prompt", "reply"]
    prompt = next(each for each in events if isinstance(each, ev.CallStarted) and each.call == "b1.3")
    assert detail.locator("pre").first.inner_text() == prompt.messages[0]["content"]
    shot(page, "tree-detail")
    page.locator(f"{ROWS}[data-kind=cell]").nth(1).click()
    detail.get_by_text("found = llm_query_batched(prompts)").wait_for()
    assert detail.locator(".rlm-section-name").all_inner_texts() == ["code", "stdout"]
    page.locator(f"{ROWS}[data-kind=turn]").first.click()
    detail.get_by_text("You have a Python REPL.").wait_for()
    assert detail.locator(".rlm-section-name").all_inner_texts() == ["system", "prompt", "reply"]


def test_trajectory_is_read_as_written(page, tmp_path):
    events = long_run.run()
    with JsonlWriter(tmp_path / "run.jsonl") as writer:
        for event in events:
            writer(event)
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    whole = page.evaluate("lines => tree.readTrajectory(lines)", lines)
    kept = [each for each in events if not isinstance(each, ev.CallDelta | ev.CellOutput)]
    assert [each["type"] for each in whole] == [each.type for each in kept]
    for mine, theirs in zip(whole, kept, strict=True):
        assert {**ev.to_json(theirs), **mine} == mine | ev.to_json(theirs)
        assert not set(mine) - set(ev.to_json(theirs)) - {"prompt_sha256"}
        assert all(mine[name] == ev.to_json(theirs)[name] for name in mine if name != "prompt_sha256")


def test_keyboard(page):
    show(page, plain(long_run.run()))
    page.focus(".rlm-tree")
    selected = page.locator(f"{ROWS}[aria-selected=true]")

    def press(*keys):
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function("view.frame === undefined")

    press("ArrowDown")
    assert selected.locator(".rlm-label").inner_text() == "Turn 1"
    press("ArrowDown", "ArrowDown")
    assert selected.locator(".rlm-label").inner_text() == "Turn 2"
    press("ArrowLeft")
    assert selected.get_attribute("aria-expanded") == "false"
    press("ArrowRight")
    assert selected.get_attribute("aria-expanded") == "true"
    press("ArrowRight", "ArrowRight")
    assert selected.get_attribute("data-kind") == "batch"
    assert selected.get_attribute("aria-level") == "3"
    assert page.get_attribute(".rlm-tree", "aria-activedescendant") == selected.get_attribute("id")
    press("ArrowRight", "ArrowRight", "Enter")
    assert page.locator(".rlm-detail").is_visible()
    assert "Contract 0." in page.inner_text(".rlm-detail")
    press("ArrowDown")
    page.locator(".rlm-detail", has_text="Contract 1.").wait_for()
    press("Escape")
    assert not page.locator(".rlm-detail").is_visible()
    press("End")
    assert selected.locator(".rlm-label").inner_text() == "Turn 5"
    press("Home")
    assert selected.locator(".rlm-label").inner_text() == "Turn 1"
    page.focus("[role=tab][aria-selected=true]")
    press("ArrowRight")
    assert page.locator(".rlm-flame canvas").is_visible()


def test_flame_by_time_and_by_cost(page, shot):
    show(page, plain(long_run.run()))
    page.get_by_role("tab", name="Flame").click()
    page.wait_for_function("view.boxes?.length > 0")
    boxes = page.evaluate(
        "view.boxes.map((box) => ({id: box.node.id, look: box.look, x: box.x, w: box.w, y: box.y}))"
    )
    shot(page, "flame-time")
    width = page.evaluate("document.querySelector('.rlm-flame').clientWidth")
    turns = {box["id"]: box for box in boxes if box["look"] == "turn" and box["id"].startswith("r1/")}
    total = long_run.run()[-1].seconds
    assert turns["r1/1"]["w"] == pytest.approx(width * 3.19 / total, abs=2)
    # Calls that ran at the same time lie in lanes of their own.
    calls = [box for box in boxes if box["id"].startswith("b1.")]
    for one in calls:
        for other in calls:
            apart = one["x"] + one["w"] <= other["x"] + 2 or other["x"] + other["w"] <= one["x"] + 2
            assert one is other or one["y"] != other["y"] or apart
    page.get_by_text("by cost").click()
    page.wait_for_function("view.boxes.every((box) => box.look !== 'model')")
    widths = page.evaluate(
        "Object.fromEntries(view.boxes.map((box) => [box.node.id, [box.w, box.node.sum.cost]]))"
    )
    all_cost = page.evaluate("view.fold.root.sum.cost")
    for got, cost in widths.values():
        assert got == pytest.approx(max(1, width * cost / all_cost), abs=1)
    shot(page, "flame-cost")
    page.locator(".rlm-flame canvas").click(position={"x": 200, "y": 45})
    page.locator(".rlm-detail").wait_for()


def luminance(colour):
    red, green, blue = (int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])
    return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes(page, shot, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate(
        "scheme => { document.body.style.background = scheme === 'dark' ? '#111' : '#fff' }", scheme
    )
    show(page, plain(long_run.run(until=17.6)))
    style = "element => { const s = getComputedStyle(element); return [s.color, s.backgroundColor]; }"
    ink, paper = (luminance(each) for each in page.eval_on_selector(".rlm-panel", style))
    assert (ink < 0.3 and paper > 0.9) if scheme == "light" else (ink > 0.7 and paper < 0.2)
    page.locator(f"{ROWS}[data-kind=cell]").nth(2).click()
    shot(page, f"tree-{scheme}")


def test_the_notebooks_theme_wins(page):
    page.emulate_media(color_scheme="light")
    page.add_style_tag(
        content=":root { --jp-layout-color0: rgb(17, 17, 17); --jp-ui-font-color1: rgb(250, 250, 250); }"
    )
    show(page, plain(long_run.run()))
    paper = page.eval_on_selector(".rlm-panel", "element => getComputedStyle(element).backgroundColor")
    assert paper == "rgb(17, 17, 17)"


def test_narrow(page, shot):
    page.set_viewport_size({"width": 520, "height": 640})
    show(page, plain(long_run.run()))
    page.locator(f"{ROWS}[data-kind=cell]").first.click()
    page.wait_for_function("view.frame === undefined")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tree, detail = (page.locator(each).bounding_box() for each in (".rlm-left", ".rlm-detail"))
    assert detail["y"] >= tree["y"] + tree["height"] - 1
    shot(page, "tree-narrow")


def test_texts_of_a_run_are_text(page):
    events = json.loads(json.dumps(plain(long_run.run())))

    def spoil(value):
        if isinstance(value, dict):
            keep = (
                "type",
                "run",
                "call",
                "cell",
                "batch",
                "kind",
                "parent_run",
                "parent_call",
                "status",
                "role",
            )
            return {key: each if key in keep else spoil(each) for key, each in value.items()}
        if isinstance(value, list):
            return [spoil(each) for each in value]
        return HOSTILE + value if isinstance(value, str) and not value.replace(".", "").isdigit() else value

    show(page, spoil(events))
    for kind in ("turn", "cell", "batch"):
        for row in page.locator(f"{ROWS}[data-kind={kind}]").all():
            row.click()
    page.locator(f"{ROWS}[data-kind=batch] .rlm-twisty").first.click()
    page.locator(f"{ROWS}[data-kind=call]").first.click()
    page.locator(".rlm-detail pre", has_text="<script>").first.wait_for()
    page.get_by_role("tab", name="Flame").click()
    page.wait_for_function("view.boxes?.length > 0")
    page.mouse.move(400, 300)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".rlm-panel :is(script, img)").count() == 0
    assert "<script>" in page.inner_text(".rlm-question")


def test_only_pictures_in_base64_are_shown(page):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    found = page.evaluate(
        """outputs => tree.sections([{type: "cell_finished", outputs}]).map((each) => each.image ?? null)""",
        [
            {"kind": "display", "text": "a figure", "data": {"image/png": pixel}},
            {"kind": "display", "text": "no", "data": {"image/png": 'x" onerror="window.hacked=1'}},
            {"kind": "display", "text": "no", "data": {"image/svg+xml": "<svg onload='window.hacked=1'/>"}},
        ],
    )
    assert found == [f"data:image/png;base64,{pixel}", None, None]


def test_a_thousand_calls_do_not_freeze_the_page(page, shot):
    events = short(long_run.run(size=1000, failed=(11, 500)))
    longest = []
    for _ in range(3):  # another process may have had the processors
        page.evaluate(WATCH)
        show(page, events)
        page.click(f"{ROWS}[data-kind=batch] .rlm-twisty")
        page.wait_for_function("view.rows.length > 1000 && view.frame === undefined")
        page.evaluate("document.querySelector('.rlm-tree').scrollTop = 11000")
        page.get_by_role("tab", name="Flame").click()
        page.wait_for_function("view.boxes?.length > 1000")
        longest.append(page.evaluate("new Promise(done => setTimeout(() => done(window.longest), 100))"))
        if longest[-1] < 200:
            break
    assert min(longest) < 200, longest
    shot(page, "flame-1000-calls")
    page.get_by_role("tab", name="Tree").click()
    page.wait_for_function("view.frame === undefined")
    shot(page, "tree-1000-calls")
    assert page.locator(".rlm-spacer .rlm-row").count() < 40
    # Those in sight are those of the place scrolled to.
    assert page.locator(f"{ROWS}").first.get_attribute("aria-posinset") not in (None, "1")


def test_five_hundred_deltas_a_second(page):
    show(page, short(long_run.run(until=3.5)))
    page.evaluate(WATCH)
    frames = page.evaluate(
        """() => new Promise((done) => {
          let sent = 0, frames = 0;
          const count = () => { frames += 1; if (sent < 1000) requestAnimationFrame(count); };
          requestAnimationFrame(count);
          const timer = setInterval(() => {
            for (let each = 0; each < 10; each += 1, sent += 1) {
              view.push([{type: "call_delta", call: "r1c2", text: `word${sent} `}]);
            }
            if (sent >= 1000) { clearInterval(timer); done(frames); }
          }, 20);
        })"""
    )
    page.wait_for_function("view.frame === undefined")
    assert frames > 10
    assert page.evaluate("window.longest") < 200
    assert "word999" in page.locator(".rlm-preview[data-live=true]").inner_text()


def test_reset_keeps_what_is_open_and_selected(page):
    events = plain(long_run.run())
    show(page, events)
    page.click(f"{ROWS}[data-kind=batch] .rlm-twisty")
    page.locator(f"{ROWS}[data-kind=call]").nth(2).click()
    before = names(page)
    page.evaluate("events => view.reset(events)", events)
    page.wait_for_function("view.queue.length === 0 && view.frame === undefined")
    assert names(page) == before
    assert page.locator(f"{ROWS}[aria-selected=true]").count() == 1
    assert page.locator(".rlm-detail").is_visible()


def test_budget_bar(page):
    events = plain(long_run.run(until=17.6))
    events[0]["limits"] = {"usd": 0.1}
    show(page, events)
    assert page.get_attribute(".rlm-meter", "data-level") == "high"
    events[0]["limits"] = {"usd": 0.01}
    show(page, events)
    assert page.get_attribute(".rlm-meter", "data-level") == "full"
    events[0]["limits"] = {}
    show(page, events)
    assert not page.locator(".rlm-meter").is_visible()


def test_saying_something(page):
    show(page, plain(long_run.run(until=9.2)), controls="onSay(text) { window.said = text; }")
    page.fill(".rlm-say", "leave out <b>Acme</b>")
    page.press(".rlm-say", "Enter")
    assert page.evaluate("window.said") == "leave out <b>Acme</b>"
    assert page.input_value(".rlm-say") == ""


def settled(page):
    page.wait_for_function("view.frame === undefined && view.later === undefined")


def test_rows_are_filtered(page, shot):
    events = plain(long_run.run())
    show(page, events)
    before = names(page)
    page.focus(".rlm-tree")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.className") == "rlm-filter"
    page.keyboard.type("contract 17")
    settled(page)
    # Calls of a batch that is closed are found, with all that they are under.
    assert names(page) == ["Turn 2", "[2]", "llm_query_batched \u00d7 48", "#17"]
    assert page.inner_text(".rlm-matches").startswith("1 of ")
    shot(page, "tree-filtered")
    page.keyboard.press("Enter")
    settled(page)
    assert page.locator(f"{ROWS}[aria-selected=true] .rlm-label").inner_text() == "#17"
    page.keyboard.press("ArrowLeft")
    settled(page)
    assert page.get_attribute(f"{ROWS}[aria-selected=true]", "data-kind") == "batch"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    settled(page)
    assert names(page) == before
    assert page.input_value(".rlm-filter") == ""
    for text, rows in (
        ("NAMEERROR", ["Turn 3", "[3]"]),  # in what came out
        ("compare the two", ["Turn 4", "[4]", "rlm_query"]),  # a child's question, and the code that asks it
        ("no such thing", []),
    ):
        page.fill(".rlm-filter", text)
        settled(page)
        assert names(page) == rows
    page.press(".rlm-filter", "Escape")
    settled(page)
    assert names(page) == before
    assert page.evaluate("document.activeElement.className") == "rlm-tree"


def test_a_filter_follows_the_run(page):
    events = plain(long_run.run())
    show(page, events[:-200])
    page.fill(".rlm-filter", "contract 40")
    page.evaluate("events => view.push(events)", events[-200:])
    page.wait_for_function("view.rows.length === 4")
    page.keyboard.press("Escape")
    page.wait_for_function("view.rows.length !== 4")


def test_all_code_as_one_script(page, shot):
    events = long_run.run()
    show(page, short(events), whole=plain(events))
    page.focus("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("[role=tab][aria-selected=true]") == "Code"
    page.wait_for_function("view.codes.size === 5 && view.frame === undefined")
    script = page.evaluate("view.script")
    compile(script, "script", "exec")
    assert page.inner_text(".rlm-code pre").strip() == script.strip()
    assert page.inner_text(".rlm-code .rlm-section-note") == "5 blocks"
    heads = [line for line in script.splitlines() if line.startswith("# %%")]
    assert heads == [
        "# %% turn 1, block 1",
        "# %% turn 2, block 1",
        "# %% turn 3, block 1, failed",
        "# %% turn 4, block 1",
        '# %% turn 1, block 1, of the child run "Compare the two versions"',
    ]
    assert long_run.CODE in script
    assert "# found = llm_query_batched([...])" in script
    page.evaluate("""() => Object.defineProperty(navigator, "clipboard", {
      value: {writeText: (text) => { window.copied = text; return Promise.resolve(); }}})""")
    page.click(".rlm-code .rlm-copy")
    assert page.evaluate("window.copied") == script
    shot(page, "code")
    page.get_by_role("tab", name="Tree").click()
    page.click(f"{ROWS}[data-kind=batch] .rlm-twisty")
    page.locator(f"{ROWS}[data-kind=call]").nth(3).click()
    page.locator(".rlm-detail").get_by_text("Yes: raised to 24 months (contract 3).").wait_for()
    page.click(".rlm-detail-head .rlm-copy")
    copied = page.evaluate("window.copied")
    assert copied.startswith("[prompt]\nDoes this contract")
    assert copied.endswith("[reply]\nYes: raised to 24 months (contract 3).")


def test_code_that_nobody_has_is_said_to_be_cut(page):
    events = short(long_run.run())
    show(page, events, whole=[])
    page.get_by_role("tab", name="Code").click()
    page.locator(".rlm-section-note", has_text="of 5 only the beginning is kept here").wait_for()
    assert long_run.CODE not in page.evaluate("view.script")
    assert long_run.CODE[:200] in page.evaluate("view.script")


def test_stopping_and_paused_are_said(page, shot):
    events = plain(long_run.run(until=9.2))
    show(page, events)
    page.evaluate("view.setStop({label: 'Stopping', disabled: true, stopping: true})")
    settled(page)
    started = {each["call"] for each in events if each["type"] == "call_started"}
    flying = len(started - {each["call"] for each in events if each["type"] == "call_finished"})
    assert flying > 1
    assert page.inner_text(".rlm-state") == f"stopping: {flying} calls in flight"
    shot(page, "tree-stopping")
    page.evaluate("view.setStop({})")
    notice = {"type": "notice", "run": "r1", "time": events[-1]["time"]}
    for state in ("paused", "running"):
        page.evaluate("event => view.push([event])", {**notice, "text": "of the run", "state": state})
        settled(page)
        assert page.inner_text(".rlm-state") == state
    # A call that holds a child run waits for that run's own.
    assert (
        page.evaluate(
            """events => {
      const fold = new tree.Fold();
      for (const event of events) { fold.take(event); if (event.run === "r2") return [...fold.flying]; }
    }""",
            plain(long_run.run()),
        )
        == []
    )
