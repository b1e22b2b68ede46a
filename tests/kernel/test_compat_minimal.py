"""The surface of rlm-minimal: its documented examples with only the import changed, depth and models."""

from __future__ import annotations

import random

import pytest
from compat_endpoint import KEY, served, texts, turns

from rlm_kernel.compat import rlm_minimal
from rlm_kernel.compat.rlm_minimal.endpoints import RunFailedError
from rlm_kernel.compat.rlm_minimal.local import RLM_REPL, REPLEnv, Sub_RLM
from rlm_kernel.errors import ConfigError


@pytest.fixture
def endpoint(monkeypatch):
    """Serve scripts by name; the environment names the endpoint under rlm-minimal's variables."""
    open_ = []

    def serve(scripts):
        context = served(scripts)
        server = context.__enter__()
        open_.append(context)
        monkeypatch.setenv("LLM_BASE_URL", server.base_url)
        monkeypatch.setenv("LLM_API_KEY", KEY)
        return server

    yield serve
    for context in open_:
        context.__exit__(None, None, None)


# Documented examples ------------------------------------------------------------------------------------


def test_the_readme_example(endpoint):
    endpoint({"gpt-5": turns("import math\nFINAL(int(math.sqrt(256)))")})
    rlm = RLM_REPL(api_key="your-key-0123", model="gpt-5", max_depth=3)
    context = "You are a helpful assistant that can execute Python code."
    query = "What is the square root of 256?"
    result = rlm.completion(context, query)
    rlm.close()
    assert result == "16"
    assert rlm.answer.iterations == len(rlm.answer.repl_history) == 1
    assert [each["role"] for each in rlm.messages] == ["system", "user", "assistant"]


def test_the_needle_example_with_logging(endpoint, capsys):
    answer = str(random.randint(1000000, 9999999))
    lines = ["blah random text data"] * 20_000
    lines[random.randint(8_000, 12_000)] = f"The magic number is {answer}"
    find = "import re\nnumber = re.search(r'magic number is (\\d+)', context)[1]\nFINAL_VAR('number')"
    endpoint({"gpt-5": turns("print(context[:100])", find)})
    rlm = RLM_REPL(enable_logging=True, max_iterations=10)
    result = rlm.completion(context="\n".join(lines), query="I'm looking for a magic number. What is it?")
    rlm.close()
    assert result == answer
    assert "magic number" in capsys.readouterr().out


def test_a_missing_query_is_taken_from_the_context(endpoint):
    server = endpoint({"gpt-5": turns("FINAL('did it')")})
    rlm = RLM_REPL()
    assert rlm.completion(["Say that you did it."]) == "did it"
    assert "Question: Read the context" in texts(server.requests[0])[1]
    costs = rlm.cost_summary()
    assert costs["total_cost"] is None
    assert (costs["total_calls"], costs["total_input_tokens"]) == (1, rlm.answer.usage.input_tokens)
    rlm.reset()
    assert (rlm.query, rlm.answer, rlm.cost_summary()["total_calls"]) == (None, None, 0)
    rlm.close()


# Depth and models ---------------------------------------------------------------------------------------

CHAIN = ("root-model", "gpt-5-mini", "llama-3.1-70b", "llama-3.1-8b")


def digging(request):
    """Every model with a REPL asks one level further down; a plain one says that it is plain."""
    if len(request.messages) == 1:
        return "plain"
    return turns("FINAL('repl > ' + recursive_lm('go deeper', 'data'))")(request)


@pytest.mark.parametrize(
    ("max_depth", "expected"),
    [(1, "repl > plain"), (2, "repl > repl > plain"), (3, "repl > repl > repl > plain")],
)
@pytest.mark.parametrize("name", ["depth", "max_depth"])
def test_depth_and_model_of_each_level(endpoint, max_depth, expected, name):
    server = endpoint(dict.fromkeys(CHAIN, digging))
    rlm = RLM_REPL(model=CHAIN[0], recursive_models=CHAIN[1:], **{name: max_depth})
    assert rlm.completion("data", "how deep?") == expected
    rlm.close()
    assert [each.model for each in server.requests] == list(CHAIN[: max_depth + 1])
    assert all(each.headers["authorization"] == f"Bearer {KEY}" for each in server.requests)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("gpt-5", "gpt-5-mini", "gpt-5-mini")),
        ({"recursive_model": "one"}, ("gpt-5", "one", "one")),
        ({"model": "own", "recursive_models": ["a", "b"]}, ("own", "a", "b")),
        ({"model": "own", "recursive_models": ["a"]}, ("own", "a", "a")),
    ],
)
def test_models_by_default_and_by_argument(endpoint, given, expected):
    server = endpoint(dict.fromkeys({*expected}, digging))
    rlm = RLM_REPL(max_depth=2, **given)
    rlm.completion("data", "how deep?")
    rlm.close()
    assert tuple(each.model for each in server.requests) == expected


def test_models_and_endpoints_from_the_variables(endpoint, monkeypatch):
    below = endpoint({"small": digging})
    monkeypatch.setenv("LLM_RECURSIVE_BASE_URL", below.base_url)
    above = endpoint({"big": digging})
    monkeypatch.setenv("LLM_MODEL", "big")
    monkeypatch.setenv("LLM_RECURSIVE_MODEL", "small")
    rlm = RLM_REPL()
    assert rlm.completion("data", "how deep?") == "repl > plain"
    rlm.close()
    assert [each.model for each in above.requests] == ["big"]
    assert [each.model for each in below.requests] == ["small"]


@pytest.mark.parametrize(("max_depth", "current_depth"), [(1, 0), (2, 1), (3, 2)])
def test_a_repl_at_the_last_depth_asks_a_plain_model(endpoint, max_depth, current_depth):
    server = endpoint(dict.fromkeys(CHAIN, lambda request: f"to {request.messages[0]['content']}"))
    env = REPLEnv(
        recursive_models=CHAIN[1:],
        context_json={"a": [1, 2]},
        setup_code="start = 10",
        max_depth=max_depth,
        current_depth=current_depth,
    )
    assert isinstance(env.sub_rlm, Sub_RLM)
    result = env.code_execution("reply = llm_query('hi')\nprint(reply, start + sum(context['a']))\nreply")
    assert (result.stdout, result.stderr) == ("to hi 13\n'to hi'\n", "")
    assert result.locals == {"reply": "to hi", "start": 10}
    assert result.execution_time > 0
    assert env.code_execution("print(llm_query_batched(['a', 'b']))").stdout == "['to a', 'to b']\n"
    assert "NameError" in env.code_execution("nothing").stderr
    env.cleanup()
    assert {each.model for each in server.requests} == {CHAIN[1 + current_depth]}
    assert env.sub_rlm.cost_summary()["total_calls"] == 3


def test_a_repl_above_the_last_depth_asks_one_with_a_repl(endpoint):
    server = endpoint(
        {
            "gpt-5-mini": turns("FINAL(len(context))"),
        }
    )
    env = REPLEnv(context_str="text", depth=2)
    assert isinstance(env.sub_rlm, RLM_REPL)
    result = env.code_execution("print(llm_query('x' * 7), recursive_lm('how long?', context))")
    env.cleanup()
    assert result.stdout == "7 4\n"
    assert "Question: how long?" in texts(server.requests[1])[1]


# Failures and arguments ---------------------------------------------------------------------------------


def test_failures_are_typed_and_a_best_effort_is_marked(endpoint):
    endpoint({"gpt-5": lambda request: "no idea yet\n```repl\n1\n```"})
    rlm = RLM_REPL(max_iterations=2)
    with pytest.warns(RuntimeWarning, match="no answer within 2 turns"):
        assert rlm.completion("x", "q").startswith("no idea yet")
    rlm.close()
    rlm = RLM_REPL(model="unknown")
    with pytest.raises(RunFailedError, match="'unknown' does not exist") as caught:
        rlm.completion("x", "q")
    rlm.close()
    assert isinstance(caught.value, RuntimeError)
    env = REPLEnv(recursive_model="unknown")
    assert "ModelNotFoundError" in env.code_execution("llm_query('x')").stderr
    env.cleanup()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"depth": 1, "max_depth": 2}, "max_depth is 2 and depth 1"),
        ({"recursive_model": "a", "recursive_models": ["b"]}, "both given"),
        ({"repl_factory": type("Factory", (), {"create_repl_env": None})()}, "which have no kernel"),
    ],
)
def test_arguments_that_contradict_each_other(given, said, monkeypatch):
    monkeypatch.setenv("LLM_API_KEY", KEY)
    with pytest.raises(ConfigError, match=said):
        RLM_REPL(**given)


def test_a_client_of_the_published_name(endpoint):
    from rlm_kernel.compat.rlm_minimal.utils.llm import LLMClient, OpenAIClient

    server = endpoint({"gpt-5": lambda request: "hello"})
    assert OpenAIClient().completion("hi") == "hello"
    assert LLMClient(model="gpt-5").completion([{"role": "user", "content": "hi"}], max_tokens=5) == "hello"
    assert server.requests[1].body["max_tokens"] == 5


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        ("remote", "SidecarREPLFactory", "RemoteREPLFactory"),
        ("remote", "create_sidecar_repl_factory", "RemoteREPLFactory"),
        ("logger", "TimescaleDBClient", "SQL store"),
        ("rlm_repl_tsdb", "RLM_REPL_With_Timescale", "SQL store"),
    ],
)
def test_what_is_not_here_says_so(module, name, said):
    with pytest.raises(ImportError, match=said):
        exec(f"from rlm_kernel.compat.rlm_minimal.{module} import {name}", {})
    with pytest.raises(ImportError, match="not part of rlm-kernel"):
        getattr(rlm_minimal, name)
    with pytest.raises(AttributeError):
        rlm_minimal.anything  # noqa: B018


def test_executed_cells_are_shown_like_a_notebooks(capsys):
    from rlm_kernel.compat.rlm_minimal.logger.repl_logger import REPLEnvLogger

    logger = REPLEnvLogger(max_output_length=20)
    logger.log_execution("1 / 0", "", "ZeroDivisionError", 0.5)
    logger.log_execution("x", "y" * 100)
    logger.display_all()
    shown = capsys.readouterr().out
    assert all(
        each in shown for each in ("In [1]", "Error [1], 0.50 s", "Out [2]", "[80 characters left out]")
    )
    logger.clear()
    assert logger.execution_count == 0
