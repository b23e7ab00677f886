"""A Hub of our own on 127.0.0.1, so that no test depends on, or reaches, anything outside."""

import hashlib
import os
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

# One thread for each of pytest-xdist's workers, which share the cores; torch reads it when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

_COMMIT = "0123456789abcdef0123456789abcdef01234567"
_folder = tempfile.TemporaryDirectory(prefix="mfsf2-hub-", ignore_cleanup_errors=True)  # removed at exit
_root = Path(_folder.name)


class _Hub(BaseHTTPRequestHandler):
    """Serves ``/OWNER/NAME/resolve/REVISION/FILE`` from ``_root/OWNER/NAME/FILE``, as the Hub does."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        path = _root.joinpath(*parts[:2], *parts[4:])
        if len(parts) < 5 or parts[2] != "resolve" or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if _root.joinpath(*parts[:2]).is_dir() else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


_server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
threading.Thread(target=_server.serve_forever, daemon=True).start()
# Read once, when the client is first imported: set before any test imports it.
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{_server.server_address[1]}"
os.environ["HF_HOME"] = str(_root / "cache")
os.environ["HF_HUB_DISABLE_XET"] = "1"


@pytest.fixture(scope="session")
def hub() -> Path:
    """Folder whose subfolders ``OWNER/NAME`` the local Hub serves."""
    return _root


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same numbers for a test, whichever worker runs it after whichever other test."""
    import torch

    torch.manual_seed(0)
