"""Sessions whose kernels run some code before the first cell: ``setup_code`` of `rlms`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....context import Context
from ....errors import CallError, KernelStartError
from ....repl.base import Call, KernelInfo, KernelSession, SessionFactory, ToolStub

__all__ = ["with_setup"]

SETUP_SECONDS = 120.0


class _SetUp:
    """A session that is another one, but for its start."""

    def __init__(self, session: KernelSession, code: str) -> None:
        self._session = session
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def start(self, contexts: Sequence[Context], tools: Sequence[ToolStub] = ()) -> KernelInfo:
        """Start the session, then run the code; see `KernelSession.start`.

        Raises:
            KernelStartError: also where the code fails.
        """
        info = await self._session.start(contexts, tools)
        result = await self._session.execute(self._code, timeout=SETUP_SECONDS, on_call=_no_calls)
        if result.status != "ok":
            said = " ".join(output.text for output in result.outputs)[-500:]
            raise KernelStartError(
                f"the setup code ended as {result.status}: {said}{result.lost}",
                hint="run it as a cell of your own first",
            )
        return info


def with_setup(code: str) -> SessionFactory:
    """Return a factory of local sessions that run ``code`` first, in each kernel that takes part."""

    def factory() -> KernelSession:
        from ....repl.local import local_session  # noqa: PLC0415  on use

        session: Any = _SetUp(local_session(), code)
        return session  # type: ignore[no-any-return]

    factory.backend = "local"  # type: ignore[attr-defined]
    return factory


async def _no_calls(call: Call) -> Sequence[Any]:
    raise CallError("setup code can't call models", kind="bad_request")
