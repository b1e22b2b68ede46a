"""Serve a built site on this machine, as any static host would.

    python jupyterlite_site/serve.py [DIR] [--port N]

It compresses nothing and sends no COOP or COEP headers: in a page that is isolated across origins JupyterLite
talks to its kernels in another way, which was not stable.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["SiteServer"]

SITE = Path(__file__).resolve().parents[1] / "build" / "site"
TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".whl": "application/zip",
    ".json": "application/json",
    ".ipynb": "application/json",
}


class SiteServer:
    """A server of ``folder`` on 127.0.0.1, in threads of its own; a context manager.

    ``sent`` counts the bytes of bodies by path; what a browser has in its cache is answered without one.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.sent: Counter[str] = Counter()
        self.requests = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, self, folder))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> SiteServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def run(self) -> None:
        """Serve until interrupted."""
        self._server.serve_forever()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, site: SiteServer, folder: Path, *arguments: object) -> None:
        self._site = site
        self.extensions_map = {**SimpleHTTPRequestHandler.extensions_map, **TYPES}
        super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

    def copyfile(self, source: object, outputfile: object) -> None:
        data = source.read()  # type: ignore[attr-defined]
        self._site.sent[self.path.partition("?")[0]] += len(data)
        outputfile.write(data)  # type: ignore[attr-defined]

    def send_response(self, code: int, message: str | None = None) -> None:
        self._site.requests += 1
        super().send_response(code, message)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  its name in the base class
        """Say nothing for each request."""


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=SITE)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    if not (options.folder / "jupyter-lite.json").is_file():
        sys.exit(f"serve.py: there is no site in {options.folder}; jupyterlite_site/build.py makes one")
    site = SiteServer(options.folder, options.port)
    print(f"{options.folder} on {site.url}", flush=True)
    try:
        site.run()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
