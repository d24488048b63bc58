"""A model hub on the loopback address: real HTTP with ranges, redirects, tokens, and ways to fail.

Speaks the part of the Hugging Face hub's interface that a download needs."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000  # bytes; a file of more is stored apart (LFS) and known by its SHA-256


class Hub:
    """repositories: name -> {file: bytes}. What it was asked is in `log`: (method, path, authorization, range).

    token: who does not send it sees nothing. elsewhere: another Hub that serves large files. cut: bytes after which
    a connection breaks, once for each entry. lies: file -> (declared size, declared hash), either None."""

    def __init__(self, repositories=None, token=None, elsewhere=None, ranges=True):
        self.repositories, self.token, self.elsewhere = repositories or {}, token, elsewhere
        self.revisions = {"main": COMMIT}
        self.ranges, self.log, self.cut, self.lies, self.status = ranges, [], [], {}, None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_GET(self):  # noqa: N802  the library's name
        hub, path = self.hub, self.path.partition("?")[0]
        hub.log.append((self.command, path, self.headers.get("Authorization"), self.headers.get("Range")))
        if hub.status:
            return self._answer(hub.status)
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if path.startswith("/api/models/"):
            return self._tell(path.removeprefix("/api/models/"))
        if path.startswith("/large/"):
            return self._send(*self._large(path.removeprefix("/large/")))
        repository, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        data = hub.repositories.get(repository, {}).get(file)
        if data is None or revision not in (*hub.revisions, *hub.revisions.values()):
            return self._answer(404, {"X-Error-Code": "EntryNotFound"})
        if len(data) > LARGE and hub.elsewhere:
            digest = hashlib.sha256(data).hexdigest()
            hub.elsewhere.repositories.setdefault("large", {})[digest] = data
            return self._answer(302, {"Location": f"{hub.elsewhere.url}/large/{digest}"})
        return self._send(data)

    def _large(self, digest):
        return (self.hub.repositories["large"][digest],)

    def _tell(self, path):
        """What the hub knows of a repository: its commit and its files."""
        repository, _, revision = path.partition("/revision/")
        files = self.hub.repositories.get(repository)
        if files is None:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        if revision and revision not in (*self.hub.revisions, *self.hub.revisions.values()):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        commit = self.hub.revisions.get(revision or "main", revision)
        told = {"id": repository, "sha": commit, "siblings": [self._sibling(n, d) for n, d in files.items()]}
        return self._answer(200, {"Content-Type": "application/json"}, json.dumps(told).encode())

    def _sibling(self, name, data):
        size, digest = self.hub.lies.get(name, (None, None))
        size = len(data) if size is None else size
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        told = {"rfilename": name, "size": size, "blobId": digest or git}
        if len(data) > LARGE:
            told["lfs"] = {"size": size, "sha256": digest or hashlib.sha256(data).hexdigest(), "pointerSize": 134}
        return told

    def _send(self, data):
        start, status = 0, 200
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes=") and self.hub.ranges:
            start, status = int(wanted[6:].split("-")[0]), 206
        body = data[start:]
        keep = self.hub.cut.pop(0) if self.hub.cut and len(data) > LARGE else None
        self._answer(status, {"Content-Length": str(len(body))}, body if keep is None else body[:keep])
        if keep is not None:
            self.close_connection = True
        return None

    def _answer(self, status, headers=None, body=b""):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815
