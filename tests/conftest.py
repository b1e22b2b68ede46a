"""What every test shares: an environment without the user's settings, skips that CI refuses, a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest

from rlm_kernel.config import FIELDS

if TYPE_CHECKING:
    from rlm_kernel.models.server import ScriptedServer

REQUIRE_ALL = os.environ.get("RLM_REQUIRE_ALL") == "1"
# Read before the settings are taken out of the environment.
REAL_MODEL = os.environ.get("RLM_TEST_GGUF", "")


def _refuse_skip(report):
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, and RLM_REQUIRE_ALL=1 allows no skips: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _refuse_skip((yield))


def pytest_collection_modifyitems(config, items):
    """Leave out, without a skip, what needs a real model where none is given."""
    if REAL_MODEL:
        return
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("real_llm")])
    items[:] = [item for item in items if not item.get_closest_marker("real_llm")]


@pytest.fixture(scope="session")
def real_gguf() -> str:
    """The path of a real language model."""
    return REAL_MODEL


@pytest.fixture(scope="session", autouse=True)
def _clean_environment() -> Iterator[None]:
    """Take the user's keys and settings out of the environment, for subprocesses too."""
    names = {variable for field in FIELDS for variable in field.variables}
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name in names or name.startswith(("OPENAI_", "RLM_", "LLM_")):
                patch.delenv(name)
        yield


@pytest.fixture
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """An OpenAI-compatible server with a scripted root model and a scripted sub-model."""
    from rlm_kernel.models.scripted import ScriptedModel
    from rlm_kernel.models.server import ScriptedServer

    models = {
        "scripted-root": ScriptedModel("map_reduce", name="scripted-root"),
        "scripted-sub": ScriptedModel("reader", name="scripted-sub"),
    }
    async with ScriptedServer(models) as server:
        yield server
