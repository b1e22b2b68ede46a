"""The surface of `rlms`: its documented examples with only the import changed, limits, logs, depth, tools."""

from __future__ import annotations

import inspect
import json
import warnings

import pytest
from compat_endpoint import KEY, served, texts, turns

from rlm_kernel.compat.rlms import (
    RLM,
    BudgetExceededError,
    CompletionFailedError,
    ErrorThresholdExceededError,
    RLMLogger,
    TimeoutExceededError,
    TokenLimitExceededError,
    UnsupportedArgumentError,
)
from rlm_kernel.compat.rlms.core.types import RLMChatCompletion, UsageSummary
from rlm_kernel.models.prices import Price

PRICES = {"*": Price(input="1", output="2")}


def answer(text):
    return f'answer["content"] = {text}\nanswer["ready"] = True'


@pytest.fixture
def endpoint(monkeypatch):
    """Serve scripts under the names of models; the environment names the endpoint, as users have it."""
    open_ = []

    def serve(**scripts):
        context = served({name.replace("_", "-"): script for name, script in scripts.items()}, PRICES)
        server = context.__enter__()
        open_.append(context)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        return server

    yield serve
    for context in open_:
        context.__exit__(None, None, None)


def rlm(**options):
    options.setdefault("backend_kwargs", {"model_name": "root", "prices": PRICES})
    return RLM(**options)


# Documented examples ----------------------------------------------------------------------------------


def test_the_readme_example_answers_a_prompt_without_a_question(endpoint):
    powers = turns("context", answer(r"'\n'.join(str(2**n) for n in range(5))"))
    server = endpoint(gpt_5_nano=powers)
    with RLM(backend="openai", backend_kwargs={"model_name": "gpt-5-nano"}) as rlm:
        result = rlm.completion("Print me the first 5 powers of two, each on a newline.")
    assert result.response.split() == ["1", "2", "4", "8", "16"]
    assert (result.root_model, result.error, result.metadata) == ("gpt-5-nano", None, None)
    assert "first 5 powers" in texts(server.requests[1])[-1]


def test_the_quickstart_with_a_log_that_the_viewer_reads(endpoint, tmp_path, capsys):
    endpoint(root=turns("reply = llm_query('What is 2 + 2?')\nprint(reply)", answer("reply")), sub=["4"])
    logger = RLMLogger(log_dir=str(tmp_path / "logs"))
    with RLM(
        backend="openai",
        backend_kwargs={"model_name": "root", "api_key": KEY},
        other_backends=["openai"],
        other_backend_kwargs=[{"model_name": "sub"}],
        max_depth=1,
        logger=logger,
        verbose=True,
    ) as rlm:
        result = rlm.completion("a context", root_prompt="What is 2 + 2?")
    assert result.response == "4"
    assert "llm_query" in capsys.readouterr().out
    text = (tmp_path / "logs").joinpath(logger.log_file_path).read_text()
    assert KEY not in text
    metadata, *iterations = map(json.loads, text.splitlines())
    # What the viewer's types.ts and parse-logs.ts read.
    assert metadata["type"] == "metadata"
    assert metadata["root_model"] == "root"
    assert (metadata["backend"], metadata["environment_type"]) == ("openai", "local")
    assert (metadata["max_depth"], metadata["max_iterations"]) == (1, 30)
    assert metadata["backend_kwargs"] == {"model_name": "root"}
    assert [each["iteration"] for each in iterations] == [1, 2]
    first, last = iterations
    assert {each["role"] for each in first["prompt"]} == {"system", "user"}
    assert all(isinstance(each["content"], str) for each in first["prompt"])
    block = first["code_blocks"][0]
    assert block["code"].startswith("reply = llm_query")
    assert (block["result"]["stdout"], block["result"]["stderr"]) == ("4\n", "")
    assert block["result"]["execution_time"] > 0
    call = block["result"]["rlm_calls"][0]
    assert (call["prompt"], call["response"]) == ("What is 2 + 2?", "4")
    assert (call["prompt_tokens"], call["completion_tokens"]) == (4, 1)
    assert (first["final_answer"], last["final_answer"]) == (None, "4")
    assert first["iteration_time"] > 0
    assert result.metadata == logger.get_trajectory()
    assert result.metadata["iterations"] == iterations


def test_custom_tools_are_functions_values_and_descriptions(endpoint):
    def price(symbol: str) -> dict[str, float]:
        return {"price": 178.5 if symbol == "AAPL" else 0.0}

    server = endpoint(root=turns(answer("f\"{price('AAPL')['price'] * 2} {CONFIG['currency']}\"")))
    tools = {
        "price": {"tool": price, "description": "The price of a share by its symbol"},
        "CONFIG": {"tool": {"currency": "USD"}, "description": "How the market works"},
    }
    with rlm(custom_tools=tools) as it:
        assert it.completion("prices", root_prompt="Two shares of AAPL?").response == "357.0 USD"
    sent = "\n".join(texts(server.requests[0]))
    assert "The price of a share by its symbol" in sent
    assert "CONFIG: How the market works" in sent


@pytest.mark.parametrize("sub_tools", [None, {}], ids=["inherited", "none"])
def test_tools_of_children(endpoint, sub_tools):
    endpoint(
        root=turns("print(rlm_query('call it', 'data'))", answer("'seen'")),
        child=turns("FINAL(twice(21) if 'twice' in globals() else 'no tool')"),
    )

    def twice(n: int) -> int:
        return 2 * n

    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        it = rlm(
            custom_tools={"twice": twice},
            custom_sub_tools=sub_tools,
            max_depth=2,
            other_backends=["openai"],
            other_backend_kwargs=[{"model_name": "child"}],
            logger=RLMLogger(),
        )
    with it:
        results = it.completion("x", root_prompt="q").metadata["iterations"][0]["code_blocks"]
    assert results[0]["result"]["stdout"] == ("42\n" if sub_tools is None else "no tool\n")


# Depth, models, usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("max_depth", "child_turns"), [(1, 0), (2, 2), (3, 2)])
def test_depth_decides_whether_a_child_has_a_repl(endpoint, max_depth, child_turns):
    def script(request):
        if "Question: top" in str(request.messages):
            return turns("print(rlm_query('deep', 'abc'))", answer("'done'"))(request)
        return turns("len(context)", answer("3"))(request) if len(request.messages) > 1 else "plain reply"

    endpoint(root=script)
    with rlm(max_depth=max_depth, logger=RLMLogger()) as it:
        result = it.completion("ctx", root_prompt="top")
    call = result.metadata["iterations"][0]["code_blocks"][0]["result"]["rlm_calls"][0]
    assert call["response"] == ("plain reply" if child_turns == 0 else "3")
    assert len(call.get("metadata", {}).get("iterations", [])) == child_turns
    # A child's turns are in its own call, and in the sum of all.
    assert call["usage_summary"]["model_usage_summaries"]["root"]["total_calls"] == max(1, child_turns)
    assert result.usage_summary.model_usage_summaries["root"].total_calls == 2 + max(1, child_turns)


def test_usage_is_the_whole_trees_and_agrees_with_the_endpoint(endpoint):
    server = endpoint(
        root=turns("llm_query_batched(['a' * 40] * 5)", answer("'done'")),
        sub=lambda request: "a reply",
    )
    other = {"other_backends": ["openai"], "other_backend_kwargs": [{"model_name": "sub", "prices": PRICES}]}
    with rlm(**other) as it:
        usage = it.completion("x", root_prompt="q").usage_summary
    assert {name: each.total_calls for name, each in usage.model_usage_summaries.items()} == {
        "root": 2,
        "sub": 5,
    }
    seen = server.usage_by_model.values()
    assert usage.total_input_tokens == sum(each.input_tokens for each in seen)
    assert usage.total_output_tokens == sum(each.output_tokens for each in seen)
    tokens = usage.total_input_tokens + 2 * usage.total_output_tokens
    assert usage.total_cost == pytest.approx(tokens / 1e6)
    assert UsageSummary.from_dict(usage.to_dict()) == usage


@pytest.mark.parametrize("depth", [1, 2])
def test_at_the_depth_limit_it_is_one_plain_call(endpoint, depth):
    server = endpoint(root=["just this"])
    with rlm(depth=depth, max_depth=1) as it:
        result = it.completion([{"role": "user", "content": "hello"}])
    assert isinstance(result, RLMChatCompletion)
    assert (result.response, texts(server.requests[0])) == ("just this", ["hello"])
    assert result.usage_summary.model_usage_summaries["root"].total_calls == 1


def test_sampling_arguments_go_to_their_own_depth(endpoint):
    root = turns("llm_query('sub')", answer("'x'"))
    server = endpoint(root=lambda request: root(request) if len(request.messages) > 1 else "a reply")
    sampling = {"temperature": 0.1, "top_p": 0.5, "max_tokens": 99}
    with rlm(sampling_args=sampling, sub_sampling_args={"temperature": 0.9}) as it:
        it.completion("x", root_prompt="q")
    root, sub = server.requests[0].body, server.requests[1].body
    assert (root["temperature"], root["top_p"], root["max_tokens"]) == (0.1, 0.5, 99)
    assert (sub["temperature"], sub["top_p"], sub["max_tokens"]) == (0.9, 0.5, 99)


# Limits and failures ------------------------------------------------------------------------------------


def test_limits_raise_the_originals_exceptions(endpoint):
    endpoint(root=lambda request: "I think it is 7.\n```repl\n1/0\n```")
    with rlm(max_errors=2) as it, pytest.raises(ErrorThresholdExceededError) as caught:
        it.completion("x", root_prompt="q")
    assert (caught.value.error_count, caught.value.threshold) == (2, 2)
    assert "ZeroDivisionError" in caught.value.last_error
    assert caught.value.partial_answer == "I think it is 7."
    with rlm(max_tokens=10) as it, pytest.raises(TokenLimitExceededError) as caught:
        it.completion("x", root_prompt="q")
    assert caught.value.tokens_used >= caught.value.token_limit == 10
    with rlm(max_budget=0.0001) as it, pytest.raises(BudgetExceededError) as caught:
        it.completion("x", root_prompt="q")
    assert caught.value.spent >= caught.value.budget == 0.0001


def test_a_time_limit_ends_a_hanging_cell(endpoint):
    endpoint(root=turns("import time; time.sleep(600)"))
    with rlm(max_timeout=2.0) as it, pytest.raises(TimeoutExceededError) as caught:
        it.completion("x", root_prompt="q")
    assert caught.value.elapsed >= caught.value.timeout == 2.0


def test_out_of_turns_is_marked(endpoint):
    endpoint(root=lambda request: "still looking\n```repl\n1\n```")
    with rlm(max_iterations=2) as it:
        result = it.completion("x", root_prompt="q")
    assert result.response.startswith("still looking")
    assert "no answer within 2 turns" in result.error
    assert RLMChatCompletion.from_dict(result.to_dict()) == result


def test_an_endpoint_that_refuses_is_a_typed_failure(endpoint):
    endpoint(other=["never"])
    with rlm() as it, pytest.raises(CompletionFailedError, match="'root' does not exist"):
        it.completion("x", root_prompt="q")


# Sessions, callbacks, kernels ---------------------------------------------------------------------------


def test_persistent_keeps_variables_and_numbers_contexts(endpoint):
    first, second = turns("kept = len(context)\nFINAL(kept)"), turns("FINAL((kept, context, context_0))")
    endpoint(root=lambda request: (second if "Question: two" in str(request.messages) else first)(request))
    with rlm(persistent=True) as it:
        assert it.completion("abc", root_prompt="one").response == "3"
        assert it.completion("de", root_prompt="two").response == "(3, 'de', 'abc')"


def test_callbacks_are_called_also_those_that_the_original_never_calls(endpoint):
    endpoint(
        root=lambda request: (
            turns("print(rlm_query('child question', 'data'))", answer("'x'"))(request)
            if "Question: top" in str(request.messages)
            else "```repl\nFINAL(1)\n```"
        )
    )
    seen = []

    def broken(depth, turn, seconds):
        seen.append(("turn ends", depth, turn))
        raise ValueError("mine")

    it = rlm(
        max_depth=2,
        on_subcall_start=lambda depth, model, preview: seen.append(("child", depth, model, preview)),
        on_subcall_complete=lambda depth, model, seconds, error: seen.append(("child ends", depth, error)),
        on_iteration_start=lambda depth, turn: seen.append(("turn", depth, turn)),
        on_iteration_complete=broken,
    )
    with it, pytest.warns(RuntimeWarning, match="broken failed and the run goes on"):
        assert it.completion("x", root_prompt="top").response == "x"
    assert seen == [
        ("turn", 0, 1),
        ("child", 1, "root", "child question"),
        ("turn", 1, 1),
        ("turn ends", 1, 1),
        ("child ends", 1, None),
        ("turn ends", 0, 1),
        ("turn", 0, 2),
        ("turn ends", 0, 2),
    ]


def test_setup_code_and_cell_timeout_reach_the_kernel(endpoint):
    endpoint(root=turns("while True: pass", answer("secret")))
    kwargs = {"setup_code": "secret = '1424424'", "cell_timeout": 0.5}
    with rlm(environment="ipython", environment_kwargs=kwargs, logger=RLMLogger()) as it:
        result = it.completion("x", root_prompt="q")
    assert result.response == "1424424"


async def test_a_completion_can_be_awaited(endpoint):
    endpoint(root=turns(answer("'x'")))
    it = rlm()
    assert (await it.acompletion("x", root_prompt="q")).response == "x"
    await it.aclose()


# REPLs without a root -----------------------------------------------------------------------------------


def test_a_local_repl_with_a_client_behind_it(endpoint):
    from rlm_kernel.compat.rlms.clients.openai import OpenAIClient
    from rlm_kernel.compat.rlms.core.lm_handler import LMHandler
    from rlm_kernel.compat.rlms.environments.local_repl import LocalREPL

    endpoint(root=lambda request: f"4 to {request.messages[0]['content']}")
    client = OpenAIClient(api_key=KEY, model_name="root")
    with (
        LMHandler(client=client) as handler,
        LocalREPL(
            lm_handler_address=handler.address,
            context_payload="the magic number is 4",
            setup_code="secret = '1424424'",
        ) as repl,
    ):
        result = repl.execute_code(
            "response = llm_query('What is 2 + 2?')\nprint(response, type(response).__name__)\n"
            "print(context, secret)\nboth = llm_query_batched(['a', 'b'])"
        )
        assert result.stdout == "4 to What is 2 + 2? str\nthe magic number is 4 1424424\n"
        assert result.stderr == ""
        assert repl.locals["response"] == "4 to What is 2 + 2?"
        assert repl.locals["context"] == "the magic number is 4"
        assert result.locals["both"] == ["4 to a", "4 to b"]
        assert result.rlm_calls[0].response == "4 to What is 2 + 2?"
        assert client.get_usage_summary().model_usage_summaries["root"].total_calls == 3
        failed = repl.execute_code("1/0")
        assert "ZeroDivisionError" in failed.stderr
        assert repl.execute_code(answer("secret")).final_answer == "1424424"


def test_an_ipython_repl_with_a_client_of_ones_own_and_a_time_limit():
    from rlm_kernel.compat.rlms.clients import BaseLM
    from rlm_kernel.compat.rlms.core.lm_handler import LMHandler
    from rlm_kernel.compat.rlms.core.types import ModelUsageSummary
    from rlm_kernel.compat.rlms.environments import get_environment

    class MockLM(BaseLM):
        def __init__(self):
            super().__init__(model_name="mock")

        def completion(self, prompt):
            return f"Mock: {str(prompt)[:50]}"

        async def acompletion(self, prompt):
            return self.completion(prompt)

        def get_usage_summary(self):
            return UsageSummary({"mock": self.get_last_usage()})

        def get_last_usage(self):
            return ModelUsageSummary(1, 10, 10)

    def subcall(prompt, model=None):
        return RLMChatCompletion("fake", prompt, f"child-answer[{prompt}]", UsageSummary({}), 0.0)

    with LMHandler(client=MockLM()) as handler:
        kwargs = {"kernel_mode": "subprocess", "cell_timeout": 1.0, "subcall_fn": subcall}
        repl = get_environment("ipython", {**kwargs, "lm_handler_address": handler.address})
        with repl:
            assert repl.execute_code("x = 40\nprint(x + 2)").stdout == "42\n"
            assert repl.execute_code("print(llm_query('ping'))").stdout == "Mock: ping\n"
            asked = repl.execute_code("print(rlm_query_batched(['t1', 't2']))")
            assert asked.stdout == "['child-answer[t1]', 'child-answer[t2]']\n"
            slow = repl.execute_code("import time; time.sleep(60)")
            assert "interrupted after 1 seconds" in slow.stderr
            assert repl.execute_code("print(x)").stdout == "40\n"
    with get_environment("local", {}) as repl:
        assert "no client answers here" in repl.execute_code("llm_query('x')").stderr


# The original's constructor, as its package 0.1.3 has it.
SIGNATURE = (
    "backend='openai', backend_kwargs=None, environment='local', environment_kwargs=None, depth=0, "
    "max_depth=1, max_iterations=30, max_budget=None, max_timeout=None, max_tokens=None, max_errors=None, "
    "custom_system_prompt=None, other_backends=None, other_backend_kwargs=None, logger=None, verbose=False, "
    "persistent=False, custom_tools=None, custom_sub_tools=None, compaction=False, "
    "compaction_threshold_pct=0.85, max_concurrent_subcalls=4, on_subcall_start=None, "
    "on_subcall_complete=None, on_iteration_start=None, on_iteration_complete=None, sampling_args=None, "
    "sub_sampling_args=None, orchestrator=True, user_prologue=None"
)


def test_the_constructor_is_the_originals():
    parameters = inspect.signature(RLM).parameters.values()
    assert ", ".join(f"{each.name}={each.default!r}" for each in parameters) == SIGNATURE
    assert list(inspect.signature(RLM.completion).parameters) == ["self", "prompt", "root_prompt"]


# Arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"environment": "docker"}, "is not here: code would run somewhere else"),
        ({"environment": "moon"}, "no environment 'moon'"),
        ({"environment_kwargs": {"image": "x"}}, "environment_kwargs can't hold image"),
        ({"environment_kwargs": {"kernel_mode": "other"}}, "no kernel_mode 'other'"),
        ({"backend": "litellm"}, "no backend 'litellm'"),
        ({"backend_kwargs": {"model_name": "m", "http_client": 1}}, "can't hold http_client"),
        ({"backend_kwargs": {}}, "the backend has no model"),
        ({"backend": "vllm"}, "the backend 'vllm' has no address"),
        ({"backend": "openrouter"}, "no key for the backend 'openrouter'"),
        ({"backend": "azure_openai"}, "no address, or no key"),
        ({"other_backends": ["openai", "openai"]}, "other_backends holds 2"),
        ({"custom_tools": {"llm_query": len}}, "can't be the name of a custom tool"),
        ({"custom_tools": {"no name": len}}, "no Python identifier"),
        ({"custom_tools": {}, "custom_sub_tools": {"x": len}}, "custom_sub_tools hold x"),
    ],
)
def test_what_would_change_results_is_refused(options, said, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(UnsupportedArgumentError, match=said) as caught:
        rlm(**options)
    assert isinstance(caught.value, ValueError)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"orchestrator": False}, "orchestrator=False has no effect"),
        ({"max_concurrent_subcalls": 8}, "max_concurrent_subcalls has no effect"),
        ({"environment_kwargs": {"kernel_mode": "in_process"}}, "shares no objects"),
        ({"environment_kwargs": {"subcall_timeout": 3}}, "subcall_timeout has no effect"),
        (
            {"other_backends": ["openai"], "other_backend_kwargs": [{"model_name": "s"}], "max_depth": 2},
            "children with a REPL run with the model of other_backends",
        ),
    ],
)
def test_what_is_harmless_is_taken_with_a_warning(options, said, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.warns(UserWarning, match=said) as caught:
        rlm(**options)
    assert caught[0].filename == __file__


def test_a_budget_in_usd_needs_a_price_or_an_endpoint_that_tells_it(monkeypatch):
    from rlm_kernel.errors import ConfigError

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="the price of root is not known"):
        rlm(backend_kwargs={"model_name": "root"}, max_budget=1.0)
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    rlm(backend="openrouter", backend_kwargs={"model_name": "new/model"}, max_budget=1.0)


@pytest.mark.parametrize(
    ("backend", "variable", "header", "value"),
    [
        ("openai", None, "authorization", "Bearer own-key-12345"),
        ("vllm", None, "authorization", "Bearer own-key-12345"),
        ("openrouter", "OPENROUTER_API_KEY", "authorization", "Bearer from-variable"),
        ("vercel", "AI_GATEWAY_API_KEY", "authorization", "Bearer from-variable"),
        ("anthropic", "ANTHROPIC_API_KEY", "authorization", "Bearer from-variable"),
        ("gemini", "GEMINI_API_KEY", "authorization", "Bearer from-variable"),
        ("portkey", "PORTKEY_API_KEY", "x-portkey-api-key", "from-variable"),
    ],
)
def test_every_backend_sends_its_own_key(endpoint, monkeypatch, backend, variable, header, value):
    from rlm_kernel.compat.rlms.clients import get_client

    server = endpoint(root=["a reply"])
    kwargs = {"model_name": "root", "base_url": server.base_url}
    if variable is None:
        kwargs["api_key"] = "own-key-12345"
    else:
        monkeypatch.setenv(variable, "from-variable")
    client = get_client(backend, kwargs)
    assert client.completion("hello") == "a reply"
    assert server.requests[0].headers[header] == value
    assert KEY not in str(server.requests[0].headers)
    assert client.get_last_usage().total_calls == 1


def test_azure_is_asked_through_its_own_client(endpoint):
    from rlm_kernel.compat.rlms.clients.endpoints import model_of

    kwargs = {"model_name": "m", "api_key": KEY, "azure_endpoint": "https://example.openai.azure.com"}
    assert "example.openai.azure.com" in model_of("azure_openai", kwargs).base_url


def test_a_system_prompt_of_ones_own_is_filled_like_the_originals(endpoint):
    from rlm_kernel.compat.rlms.utils.prompts import RLM_SYSTEM_PROMPT, filled

    assert filled("Use {{x}}.{custom_tools_section}") == "Use {x}."
    assert filled('a literal {"brace"}') == 'a literal {"brace"}'
    assert "{" in filled(RLM_SYSTEM_PROMPT)
    assert "{{" not in filled(RLM_SYSTEM_PROMPT)
    server = endpoint(root=turns(answer("'x'")))
    with rlm(custom_system_prompt="Answer {{briefly}}.", user_prologue="A tip.") as it:
        it.completion("x", root_prompt="q")
    sent = texts(server.requests[0])
    assert sent[0].startswith("Answer {briefly}.")
    assert "Question: q\n\nA tip." in sent[1]
