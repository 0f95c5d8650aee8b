"""A hub on loopback, as far as pushing models and loading them asks for one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_loopback"
Files = dict[str, bytes]


@dataclass
class Repo:
    """A repository: branches of commits, each with all of its files."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, list[str]] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        number = hashlib.sha1(f"{branch}{len(self.commits)}".encode()).hexdigest()
        self.commits[number] = files
        self.branches.setdefault(branch, []).append(number)
        return number

    def oid(self, revision: str) -> str | None:
        if revision in self.branches:
            return self.branches[revision][-1]
        return revision if revision in self.commits else None

    def files(self, revision: str = "main") -> Files:
        return self.commits[self.oid(revision) or ""]


@dataclass
class Hub:
    """What the server holds, and what it was asked for."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)

    def repo(self, name: str, files: Files | None = None) -> Repo:
        """Make a repository."""
        made = self.repos[name] = Repo()
        made.commit("main", {".gitattributes": b"", **(files or {})})
        return made


def card_faults(content: str) -> list[str]:
    """Return what the hub would refuse in a model card's metadata, by its published rules."""
    block = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if block is None:
        return ["no metadata"]
    data = yaml.safe_load(block[1])
    faults = []
    texts = ("license", "license_name", "license_link", "library_name", "pipeline_tag")
    faults += [key for key in texts if not isinstance(data.get(key, ""), str)]
    lists = ("tags", "metrics", "datasets")
    faults += [k for k in lists if not all(isinstance(each, str) for each in data.get(k, []))]
    for name in [data.get("base_model", "a/b"), *data.get("datasets", [])]:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
            faults.append(f"{name!r} is no id of the hub")
    for model in data.get("model-index", []):
        faults += [] if isinstance(model["name"], str) and model["name"] else ["model-index.name"]
        for result in model["results"]:
            needed = (result["task"]["type"], result["dataset"]["type"], result["dataset"]["name"])
            faults += (
                [] if all(isinstance(text, str) and text for text in needed) else [str(needed)]
            )
            for metric in result["metrics"]:
                right = isinstance(metric["type"], str) and isinstance(metric["value"], float | int)
                faults += [] if right else [str(metric)]
    return faults


@contextmanager
def hub() -> Iterator[Hub]:
    """Serve an empty hub."""
    state = Hub()
    handler = type("Handler", (_Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        for pattern, (code, message) in self.hub.refuse.items():
            if re.search(pattern, f"{self.command} {path}"):
                return self._send(code, {"error": message}, {"X-Error-Message": message})
        open_to_all = self.command != "POST" or path == "/api/validate-yaml"
        if not open_to_all and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            said = "Invalid username or password."
            return self._send(401, {"error": said}, {"X-Error-Message": said})
        for method, pattern, action in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and self.command in method:
                return action(self, *found.groups())
        return self._send(404, {"error": f"no {path}"})

    def _send(self, code: int, data: Any, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _found(self, name: str, revision: str) -> tuple[Repo, str] | None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        oid = repo.oid(revision)
        if oid is None:
            self._send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo, oid

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        made = self.hub.repo(name)
        made.private = asked.get("visibility") == "private"
        self._send(200, {"url": f"{self.hub.url}/{name}", "id": name, "name": name})

    def _info(self, name: str, revision: str | None = None) -> None:
        if (found := self._found(name, revision or "main")) is not None:
            repo, oid = found
            siblings = [{"rfilename": path} for path in repo.commits[oid]]
            known = {"id": name, "sha": oid, "private": repo.private, "siblings": siblings}
            self._send(200, {**known, "tags": [], "downloads": 0, "likes": 0})

    def _tree(self, name: str, revision: str) -> None:
        if (found := self._found(name, revision)) is not None:
            repo, oid = found
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": _sha(data)[:40]}
                for path, data in repo.commits[oid].items()
            ]
            self._send(200, entries)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        repo, oid = found
        if path not in repo.commits[oid]:
            self._send(
                404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": oid}
            )
            return
        data = repo.commits[oid][path]
        self._send(200, data, {"ETag": f'"{_sha(data)}"', "X-Repo-Commit": oid})

    def _validate(self) -> None:
        faults = card_faults(json.loads(self.body)["content"])
        told = [{"message": fault} for fault in faults]
        self._send(400 if faults else 200, {"errors": told, "warnings": []})

    def _branch(self, name: str, branch: str) -> None:
        if (found := self._found(name, "main")) is not None:
            repo, oid = found
            if branch in repo.branches:
                return self._send(409, {"error": "Reference already exists"})
            repo.branches[branch] = [oid]
            self._send(200, {})
        return None

    def _preupload(self, name: str, revision: str) -> None:
        if self._found(name, revision) is not None:
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith("safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._send(200, {"files": files})

    def _batch(self, _: str) -> None:
        objects = json.loads(self.body)["objects"]
        for each in objects:
            if each["oid"] not in self.hub.blobs:
                href = f"{self.hub.url}/lfs/{each['oid']}"
                each["actions"] = {"upload": {"href": href}}
        self._send(200, {"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        assert _sha(self.body) == oid
        self.hub.blobs[oid] = self.body
        self._send(200, {})

    def _commit(self, name: str, revision: str) -> None:
        if (found := self._found(name, revision)) is None:
            return
        repo, oid = found
        files = dict(repo.commits[oid])
        for line in self.body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        number = repo.commit(revision, files)
        url = f"{self.hub.url}/{name}/commit/{number}"
        self._send(200, {"success": True, "commitOid": number, "commitUrl": url})


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_NAME = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/api/repos/create", _Handler._create),
    ("POST", "/api/validate-yaml", _Handler._validate),
    ("GET", f"/api/models/{_NAME}", _Handler._info),
    ("GET", f"/api/models/{_NAME}/revision/(.+)", _Handler._info),
    ("GET", f"/api/models/{_NAME}/tree/([^/]+)", _Handler._tree),
    ("POST", f"/api/models/{_NAME}/branch/(.+)", _Handler._branch),
    ("POST", f"/api/models/{_NAME}/preupload/(.+)", _Handler._preupload),
    ("POST", f"/api/models/{_NAME}/commit/(.+)", _Handler._commit),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("PUT", "/lfs/([0-9a-f]+)", _Handler._store),
    ("GET HEAD", f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
]
