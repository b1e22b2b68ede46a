"""ipykernel's application in two halves: what every kernel needs is made before the fork, the rest after it.

Before it, in the fork server: settings, the shell and its magics. After it, in the kernel's process: what
can't cross a fork or is the kernel's own, which are sockets, threads, streams, names and keys. What only
others than the host would use is left out: the heartbeat, the debugger's sockets, and the thread that shares
the shell channel among subshells, through which each message would pass twice.

It goes by the insides of ipykernel, from 6.29 to 7.4; where they differ the fork server does without it.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Sequence
from typing import Any

import zmq
from ipykernel.control import ControlThread
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.application import BaseIPythonApplication
from IPython.core.profiledir import ProfileDir
from jupyter_client.session import Session
from zmq.eventloop.zmqstream import ZMQStream

__all__ = ["ForkedKernel", "ForkedKernelApp"]

# What IPython's settings and shell go by.
_READ_EARLY = ("HOME", "IPYTHON_", "JPY_", "JUPYTER", "TERM", "VIRTUAL_ENV", "XDG_")


class _NoSubshells:
    """In the place of the thread for subshells: there is none, but whose child it would be is asked for."""

    def __init__(self) -> None:
        self.parent_thread = threading.current_thread()

    def __bool__(self) -> bool:
        return False


class ForkedKernel(IPythonKernel):
    """An IPython kernel without subshells and without a debugger."""

    @property
    def _supports_kernel_subshells(self) -> bool:
        return False

    def start(self) -> None:
        """Begin to serve; without what `IPythonKernel.start` does for the debugger."""
        assert self.shell is not None
        self.shell.exit_now = False
        Kernel.start(self)  # type: ignore[no-untyped-call]


class ForkedKernelApp(IPKernelApp):
    """The application of forked kernels: `prepare`, fork, `launch`."""

    shell: Any

    def prepare(self, folder: str, options: Sequence[str]) -> None:
        """Make what all kernels with these ``options`` of the command line have in common.

        ``folder`` is empty, and stands in for their own until they have one.

        Raises:
            RuntimeError: this machine's settings name code that each kernel is to run.
        """
        self._files: list[str] = []
        self._options = list(options)
        self._environment = _read_early()
        os.environ["IPYTHONDIR"] = folder
        try:
            BaseIPythonApplication.initialize(self, list(options))  # type: ignore[no-untyped-call]
            self.init_pdb()  # type: ignore[no-untyped-call]
            self.kernel = ForkedKernel.instance(
                parent=self,
                session=self.session,
                log=self.log,
                profile_dir=self.profile_dir,
                user_ns=self.user_ns,
            )
            self.init_path()  # type: ignore[no-untyped-call]
            self.init_shell()  # type: ignore[no-untyped-call]
            self._refuse([*self.exec_lines, *self.extensions])
            self.init_extensions()  # type: ignore[no-untyped-call]
            self.init_code()  # type: ignore[no-untyped-call]
            self._refuse(self._files)
            # So that patterns are compiled, and what is imported on use.
            self.shell.run_cell("None", silent=True)
        finally:
            del os.environ["IPYTHONDIR"]
            # Kernels may be given another one.
            tempfile.tempdir = None

    def _exec_file(self, fname: str, shell_futures: bool = False) -> None:  # noqa: FBT001, FBT002  IPython's
        self._files.append(fname)

    def _refuse(self, code: Sequence[str]) -> None:
        if code:
            raise RuntimeError(f"settings of this machine name code for each kernel: {', '.join(code)}")

    def fits(self, argv: Sequence[str]) -> bool:
        """Tell whether a kernel with this command line, and this environment, can come from here.

        One whose IPython folder exists may find settings there.
        """
        folder = os.environ.get("IPYTHONDIR")
        return (
            argv[1] == "-f"
            and list(argv[3:]) == self._options
            and _read_early() == self._environment
            and folder is not None
            and not os.path.exists(folder)
        )

    def discard(self) -> None:
        """Make room for a kernel that is made from scratch."""
        shell = getattr(self.kernel, "shell", None)
        if shell is not None:
            atexit.unregister(shell.atexit_operations)
        for each in (ForkedKernelApp, ForkedKernel, ZMQInteractiveShell):
            each.clear_instance()

    def launch(self, argv: Sequence[str]) -> None:
        """Be the kernel whose connection file ``argv`` names, until it is shut down."""
        self._take_folder(os.environ["IPYTHONDIR"])
        self.connection_file = argv[2]
        # One that was made before the fork would have its name and its state in common with others.
        self.session = Session(parent=self)
        self.init_connection_file()  # type: ignore[no-untyped-call]
        self._open_channels()
        self.init_io()  # type: ignore[no-untyped-call]
        self.init_signal()  # type: ignore[no-untyped-call]
        self._connect_kernel()
        self._connect_shell()
        self.init_gui_pylab()  # type: ignore[no-untyped-call]
        self.start()  # type: ignore[no-untyped-call]

    def _take_folder(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700)
        self.ipython_dir = self.shell.ipython_dir = folder
        make: Any = ProfileDir.create_profile_dir_by_name
        profile = make(folder, self.profile, self.config)
        self.profile_dir = self.kernel.profile_dir = self.shell.profile_dir = profile
        self.shell.starting_dir = os.getcwd()

    def _open_channels(self) -> None:
        self.context = zmq.Context()
        atexit.register(self.close)
        self.shell_socket = self._bound(self.shell_port)
        self.stdin_socket = self._bound(self.stdin_port)
        self.control_socket = self._bound(self.control_port)
        self.control_thread = ControlThread(daemon=True)  # type: ignore[no-untyped-call]
        self.init_iopub(self.context)  # type: ignore[no-untyped-call]

    def _bound(self, port: int) -> zmq.Socket[bytes]:
        assert self.context is not None
        socket: zmq.Socket[bytes] = self.context.socket(zmq.ROUTER)
        # As `IPKernelApp.init_sockets` has them.
        socket.linger = 1000
        socket.router_handover = 1
        # Older versions of ipykernel can't encrypt channels.
        getattr(self, "_apply_curve_server_options", lambda socket: None)(socket)
        self._bind_socket(socket, port)  # type: ignore[no-untyped-call]
        return socket

    def _connect_kernel(self) -> None:
        kernel = self.kernel
        kernel.ident = str(uuid.uuid4())
        kernel.session = self.session
        kernel._stdout, kernel._stderr = sys.stdout, sys.stderr
        kernel.shell_stream = ZMQStream(self.shell_socket)
        kernel.control_stream = ZMQStream(self.control_socket, self.control_thread.io_loop)
        kernel.stdin_socket = self.stdin_socket
        kernel.iopub_socket, kernel.iopub_thread = self.iopub_socket, self.iopub_thread
        kernel.control_thread = self.control_thread
        kernel.shell_channel_thread = _NoSubshells()
        self.control_thread.start()

    def _connect_shell(self) -> None:
        kernel, shell = self.kernel, self.shell
        # The variables that were set before the fork are gone.
        shell.init_environment()
        # As `IPythonKernel.__init__` and `IPKernelApp.init_kernel` do it.
        for each in (shell.displayhook, shell.display_pub):
            each.session, each.pub_socket = self.session, self.iopub_socket
        shell.displayhook.topic = kernel._topic("execute_result")
        self.displayhook.get_execution_count = lambda: kernel.execution_count


def _read_early() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ_EARLY)}
