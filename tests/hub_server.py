"""A Hugging Face Hub on 127.0.0.1, for downloads and uploads, which can be told to misbehave."""

import base64
import contextlib
import hashlib
import json
import re
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

_LFS = (".safetensors", ".bin", ".pth", ".onnx")  # what the Hub's default .gitattributes sends to LFS, in part
_BLOCK = 1 << 16


class _HubError(Exception):
    """An error as the Hub reports it: in headers, which the client turns into its exceptions."""

    def __init__(self, status: int, code: str, message: str, commit: str = "") -> None:
        super().__init__(message)
        headers = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": commit}
        self.status, self.headers = status, {name: value for name, value in headers.items() if value}


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer on a reused connection waits 40 ms for an acknowledgement
    server: "_Server"
    limit: int | None = None
    stalls = False
    interval = 0.0

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_any(self) -> None:
        # One handler serves all requests of a connection: misbehaviour must not outlast the request it was meant for.
        self.limit, self.stalls, self.interval = None, False, 0.0
        self.hub = self.server.hub
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behaviour, self.released = self.hub._receive(self.command, self.path)
        behaviour(self)

    do_HEAD = do_GET = do_POST = do_PUT = do_any  # noqa: N815 - the names that http.server calls

    def serve(self) -> None:
        """Answer as the Hub does."""
        request = f"{self.command} {self.path.partition('?')[0]}"
        try:
            for pattern, answer in _ROUTES:
                if match := re.fullmatch(pattern, request):
                    return answer(self, *(group and unquote(group) for group in match.groups()))
            raise _HubError(404, "", "Sorry, we can't find the page you are looking for.")
        except _HubError as error:
            self.send_json({"error": str(error)}, error.status, error.headers)

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        content = memoryview(body)[: self.limit]
        for start in range(0, len(content), _BLOCK):
            self.hub._count(self.wfile.write(content[start : start + _BLOCK]))
        if len(content) < len(body):
            self.close_connection = True
            if self.stalls:
                self.released.wait()

    def send_json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def flush_headers(self) -> None:
        if self.interval:
            for byte in b"".join(self._headers_buffer):
                self.wfile.write(bytes([byte]))
                self.released.wait(self.interval)
            self._headers_buffer.clear()
        super().flush_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _send_file(self, oid: str, headers: dict[str, str]) -> None:
        content = self.hub._store.joinpath(oid).read_bytes()
        headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "ETag": f'"{oid}"', **headers}
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, size = int(wanted[1]), len(content)
            self.send(206, content[start:], {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"})
        else:
            self.send(200, content, headers)

    def _authenticate(self, repo_id: str, to_write: bool = False) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token != self.hub.tokens.get(repo_id, token):
            raise _HubError(401, "RepoNotFound", "Repository not found")
        if to_write and not token:
            raise _HubError(401, "", "Invalid username or password.")

    def resolve(self, repo_id: str, revision: str, name: str) -> None:
        self._authenticate(repo_id)
        commit, files = self.hub._files(repo_id, revision)
        if name not in files:
            raise _HubError(404, "EntryNotFound", "Entry not found", commit)
        oid = files[name]
        headers = {"X-Repo-Commit": commit}
        if name.endswith(_LFS):
            size = self.hub._store.joinpath(oid).stat().st_size
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(size)}
            self.send(302, headers={**headers, "Location": f"{self.hub.cdn}/cdn/{oid}"})
        else:
            self._send_file(oid, headers)

    def download(self, oid: str) -> None:
        if not self.hub._store.joinpath(oid).exists():
            raise _HubError(404, "", "No such object")
        self._send_file(oid, {})

    def info(self, repo_id: str, revision: str | None) -> None:
        self._authenticate(repo_id)
        commit, files = self.hub._files(repo_id, revision or "main")
        siblings = [{"rfilename": name} for name in files]
        state = {"private": repo_id in self.hub.tokens, "gated": False, "disabled": False}
        self.send_json({"id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings, "tags": [], **state})

    def create(self) -> None:
        wanted = json.loads(self.body)
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        self._authenticate(repo_id, to_write=True)
        folder = self.hub.root / repo_id
        answer = {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id}
        if folder.exists():
            return self.send_json({**answer, "error": "You already created this model repo"}, 409)
        folder.mkdir(parents=True)
        return self.send_json(answer)

    def preupload(self, repo_id: str, revision: str) -> None:
        self._authenticate(repo_id, to_write=True)
        _, present = self.hub._files(repo_id, revision)
        answers = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            mode = "lfs" if path.endswith(_LFS) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": present.get(path)})
        self.send_json({"files": answers})

    def batch(self, repo_id: str) -> None:
        self._authenticate(repo_id, to_write=True)
        objects = json.loads(self.body)["objects"]
        for wanted in objects:
            if not self.hub._store.joinpath(wanted["oid"]).exists():
                verify = {"href": f"{self.hub.endpoint}/{repo_id}.git/info/lfs/verify"}
                wanted["actions"] = {"upload": {"href": f"{self.hub.cdn}/lfs/{wanted['oid']}"}, "verify": verify}
        self.send_json({"transfer": "basic", "objects": objects})

    def upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _HubError(400, "", "The content does not match its hash.")
        self.hub._store.joinpath(oid).write_bytes(self.body)
        self.send(200)

    def approve(self, *_: str) -> None:
        """Find nothing wrong with a model card, or with an upload."""
        self.send_json({"errors": [], "warnings": []})

    def commit(self, repo_id: str, revision: str) -> None:
        self._authenticate(repo_id, to_write=True)
        folder = self.hub._branch(repo_id, revision)
        if folder is None:
            raise _HubError(404, "RevisionNotFound", f"No such branch: {revision}")
        _, *changes = map(json.loads, self.body.splitlines())  # the first line has the message
        for change in changes:
            value = change["value"]
            path = folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if change["key"] == "lfsFile":
                shutil.copyfile(self.hub._store / value["oid"], path)
            else:
                path.write_bytes(base64.b64decode(value["content"]))
        oid, _ = self.hub._files(repo_id, revision)
        self.send_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{oid}"})


_REPO = "([^/]+/[^/]+)"
_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (rf"(?:HEAD|GET) /{_REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
    (r"(?:HEAD|GET) /cdn/([0-9a-f]{64})", Handler.download),
    (rf"GET /api/models/{_REPO}(?:/revision/([^/]+))?", Handler.info),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.approve),
    (rf"POST /api/models/{_REPO}/preupload/([^/]+)", Handler.preupload),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /lfs/([0-9a-f]{64})", Handler.upload),
    (rf"POST /{_REPO}\.git/info/lfs/verify", Handler.approve),
    (rf"POST /api/models/{_REPO}/commit/([^/]+)", Handler.commit),
)


Behaviour = Callable[[Handler], None]


class _Server(ThreadingHTTPServer):
    request_queue_size = 64

    def __init__(self, hub: "HubServer") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.connections: set[socket.socket] = set()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that gives up is part of the tests
            super().handle_error(request, client_address)


class HubServer:
    """Serves each ``root/OWNER/NAME`` as the branch "main" of a model repository, from the moment it is made.

    ``requests`` lists what arrived ("HEAD /owner/name/resolve/main/config.json"), ``sent`` counts the bytes of the
    answers' bodies, ``tokens`` has the token that a repository asks for, ``branches`` the folders of further branches.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.sent = 0
        self.tokens: dict[str, str] = {}
        self.branches: dict[tuple[str, str], Path] = {}
        self._lock = threading.Lock()
        self._misbehaviours: list[list[Any]] = []
        self._released = threading.Event()
        # All contents that a commit had or a client uploaded, by hash: an old commit outlives changes of the folder.
        self._temporary = tempfile.TemporaryDirectory(prefix="hub-server-", ignore_cleanup_errors=True)
        self._store = Path(self._temporary.name)
        self._commits: dict[tuple[str, str], dict[str, str]] = {}
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._server = _Server(self)
        port = self._server.server_address[1]
        # Large files come from another host, as on the real Hub: a redirect to the same host would be followed for
        # their metadata, which only the first answer has.
        self.endpoint, self.cdn = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def misbehave(
        self,
        pattern: str,
        behave: Behaviour,
        times: int | None = None,
        methods: Sequence[str] = ("HEAD", "GET"),
    ) -> None:
        """Answer the next ``times`` (None: all) requests whose path matches with ``behave``; the oldest call counts."""
        with self._lock:
            self._misbehaviours.append([re.compile(pattern), behave, times, methods])

    def behave(self) -> None:
        """Forget all misbehaviour, let go of hanging requests and start ``requests`` and ``sent`` anew."""
        with self._lock:
            self._misbehaviours.clear()
            self._released.set()
            self._released = threading.Event()
            self.requests.clear()
            self.sent = 0

    def commit_of(self, repo_id: str) -> str:
        """Hash of the commit for the present contents of the branch "main"."""
        return self._files(repo_id, "main")[0]

    def close(self) -> None:
        """Stop, and cut all connections."""
        self._server.shutdown()
        self._server.server_close()
        self.behave()
        for connection in list(self._server.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._temporary.cleanup()

    def _receive(self, method: str, path: str) -> tuple[Behaviour, threading.Event]:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for entry in self._misbehaviours:
                pattern, behave, times, methods = entry
                if method in methods and times != 0 and pattern.search(path):
                    entry[2] = None if times is None else times - 1
                    return behave, self._released
            return Handler.serve, self._released

    def _count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent

    def _branch(self, repo_id: str, name: str) -> Path | None:
        if not self.root.joinpath(repo_id).is_dir():
            raise _HubError(404, "RepoNotFound", "Repository not found")
        return self.branches.get((repo_id, name), self.root / repo_id if name == "main" else None)

    def _files(self, repo_id: str, revision: str) -> tuple[str, dict[str, str]]:
        """A revision's commit, and the hash of each of its files."""
        folder = self._branch(repo_id, revision)
        if folder is None:
            if (repo_id, revision) not in self._commits:
                raise _HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return revision, self._commits[repo_id, revision]
        with self._lock:
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            files = {path.relative_to(folder).as_posix(): self._keep(path) for path in paths}
        commit = hashlib.sha1(json.dumps([repo_id, files]).encode()).hexdigest()
        self._commits[repo_id, commit] = files
        return commit, files

    def _keep(self, path: Path) -> str:
        """Copy a file to the store under its hash: git's own for a small file, SHA-256 for a large one."""
        stat, large = path.stat(), path.name.endswith(_LFS)
        key = path, stat.st_size, stat.st_mtime_ns
        # A small file is read each time: its time stamp is too coarse for two changes in a row.
        if not large or key not in self._hashes:
            content = path.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content)
            self._hashes[key] = (hashlib.sha256(content) if large else git).hexdigest()
            kept = self._store / self._hashes[key]
            if not kept.exists():  # else another request may be reading it
                kept.write_bytes(content)
        return self._hashes[key]


def requests_of(server: HubServer) -> list[str]:
    """What was asked for; newer clients also ask once for a list of tools."""
    return [request for request in server.requests if "agent-harnesses" not in request]
