"""Settings: option before environment before default, and where each value came from."""

import itertools
import re
from pathlib import Path

import pytest

from rlm_kernel.config import FIELDS, mask, resolve
from rlm_kernel.errors import ConfigError

KEY = "sk-canary-0123456789abcd"
ROOT = Path(__file__).parents[2]


def test_option_wins_over_environment_over_default():
    environment = {"RLM_MAX_DEPTH": "3"}
    assert resolve({"max_depth": 2}, environment)["max_depth"].origin == "option"
    assert resolve({"max_depth": 2}, environment)["max_depth"].value == 2
    from_environment = resolve({"max_depth": None}, environment)["max_depth"]
    assert (from_environment.value, from_environment.origin) == (3, "environment variable RLM_MAX_DEPTH")
    by_default = resolve({}, {})["max_depth"]
    assert (by_default.value, by_default.origin) == (1, "default")


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_earlier_variables_win(field):
    good = {"api_key": KEY, "base_url": "http://one.test/v1", "api": "chat"}
    good["wasm_service_url"] = good["gateway_url"] = "http://one.test"
    value = good.get(field.name, "1")
    for position, variable in enumerate(field.variables):
        environment = {name: value if name == variable else "9" for name in field.variables[position:]}
        assert resolve({}, environment)[field.name].origin == f"environment variable {variable}"


def test_documented_order_of_prefixes():
    ranks = {"OPENAI_": 0, "RLM_": 1}
    for field in FIELDS:
        order = [ranks.get(re.match("[A-Z]+_", name)[0], 2) for name in field.variables]
        assert order == sorted(order), field.name


def test_empty_variable_counts_as_not_set():
    assert resolve({}, {"OPENAI_API_KEY": "", "LLM_API_KEY": KEY})["api_key"].value == KEY
    assert resolve({}, {"RLM_REPL": "  "})["repl"].value == "local"


def test_the_process_environment_is_read(monkeypatch):
    monkeypatch.setenv("LLM_MODEL", "from-environment")
    assert resolve()["model"].value == "from-environment"


@pytest.mark.parametrize(
    ("options", "environment", "root", "sub"),
    [
        ({}, {}, "gpt-5", "gpt-5-mini"),
        ({"model": "mine"}, {}, "mine", None),
        ({"sub_model": "small"}, {}, "gpt-5", "small"),
        ({"base_url": "http://one.test/v1"}, {}, None, None),
        ({}, {"LLM_MODEL": "mine", "RLM_SUB_MODEL": "small"}, "mine", "small"),
    ],
)
def test_default_models_are_for_the_default_endpoint(options, environment, root, sub):
    settings = resolve(options, environment)
    assert (settings["model"].value, settings["sub_model"].value) == (root, sub)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("RLM_MAX_DEPTH", "abc", "whole number of at least 0"),
        ("RLM_MAX_DEPTH", "-1", "whole number of at least 0"),
        ("RLM_MAX_DEPTH", "1.5", "whole number"),
        ("MAX_ITERATIONS", "0", "whole number of at least 1"),
        ("RLM_CELL_TIMEOUT", "0", "seconds above 0, or none"),
        ("RLM_CELL_TIMEOUT", "nan", "seconds above 0"),
        ("RLM_BUDGET_USD", "0", "USD above 0"),
        ("RLM_BUDGET_USD", "inf", "USD above 0"),
        ("RLM_BUDGET_CALLS", "-5", "whole number of at least 1"),
        ("OPENAI_BASE_URL", "api.example.test/v1", "https://host/v1"),
        ("OPENAI_BASE_URL", "http://", "https://host/v1"),
        ("OPENAI_BASE_URL", "http://host:port/v1", "https://host/v1"),
        ("OPENAI_BASE_URL", "http://[1/v1", "https://host/v1"),
        ("WASM_SERVICE_URL", "ftp://host", "https://host/v1"),
        ("RLM_DEBUG", "maybe", "1 or 0"),
    ],
)
def test_malformed_variable_is_named_with_value_and_expectation(variable, value, expected):
    with pytest.raises(ConfigError) as caught:
        resolve({}, {variable: value})
    assert str(caught.value) == f"{variable} is {value!r}"
    assert expected in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_depth", True),
        ("max_depth", 1.5),
        ("max_iterations", None),
        ("max_iterations", []),
        ("cell_timeout", object()),
        ("budget_usd", False),
        ("model", " "),
        ("base_url", 8000),
    ],
)
def test_malformed_option_is_refused(name, value):
    if value is None:
        assert resolve({name: value}, {})[name].origin == "default"
        return
    with pytest.raises(ConfigError, match=f"^{name} is "):
        resolve({name: value}, {})


def test_unknown_option_is_refused():
    with pytest.raises(ConfigError, match="unknown setting max_dpeth") as caught:
        resolve({"max_dpeth": 1}, {})
    assert "max_depth" in caught.value.hint


def test_limits_can_be_lifted():
    assert resolve({"cell_timeout": "none"}, {})["cell_timeout"].value is None


def test_urls_lose_the_last_slash_and_are_shown_without_a_password():
    setting = resolve({"base_url": "https://user:secret@host.test/v1/"}, {})["base_url"]
    assert setting.value == "https://user:secret@host.test/v1"
    assert setting.shown == "https://host.test/v1"
    assert "secret" not in repr(setting)
    setting = resolve({"gateway_url": "https://host.test/?token=secret"}, {})["gateway_url"]
    assert setting.shown == "https://host.test/?..."


@pytest.mark.parametrize(
    ("key", "shown"),
    [(KEY, "sk-...abcd"), ("another-key-of-length", "...ngth"), ("123456789012", "****"), ("short", "****")],
)
def test_mask(key, shown):
    assert mask(key) == shown


def test_no_form_of_a_setting_shows_the_key():
    setting = resolve({}, {"OPENAI_API_KEY": KEY})["api_key"]
    assert KEY not in f"{setting!r} {setting!s} {setting.shown}"
    with pytest.raises(ConfigError) as caught:
        resolve({}, {"OPENAI_API_KEY": f"{KEY} {KEY}"})
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_env_example_lists_every_variable_with_a_comment():
    lines = (ROOT / ".env-example").read_text(encoding="utf-8").splitlines()
    listed = []
    for before, line in itertools.pairwise(lines):
        if found := re.match(r"#?([A-Z][A-Z_]+)=", line):
            listed.append(found[1])
            assert before.startswith("# "), f"{found[1]} has no comment"
    assert listed == [variable for field in FIELDS for variable in field.variables]
    for field in FIELDS:
        assert f"# {field.about}" in lines, f"{field.name} is described otherwise"
