"""A local server with the protocol of the Hugging Face Hub, for its real client."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as hub
import pytest


@dataclass
class Repository:
    """Branch -> commit, and commit -> path -> content."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    configs: list[object] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        names = [f"{path} {hashlib.sha1(content).hexdigest()}" for path, content in sorted(files.items())]
        commit = hashlib.sha1("\n".join([branch, *names]).encode()).hexdigest()
        self.branches[branch] = commit
        self.commits[commit] = files
        return commit


class HubServer(ThreadingHTTPServer):
    """Serves the repositories of datasets; counts requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        is_api = parts[0] == "api"
        owner, name, _, *rest = [*(parts[2:] if is_api else parts[1:]), "", "", ""]
        rest = [part for part in rest if part]
        repo = f"{owner}/{name}"
        repository = self.server.repositories.get(repo)
        if repository is None:
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"}, body)
        if repo in self.server.gated and not is_api:
            return self.send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
        split = (
            len(rest) if is_api else next(n for n in range(1, len(rest)) if self.find(repository, rest[:n]))
        )
        commit = self.find(repository, rest[:split])
        if commit is None:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        files = repository.commits[commit]
        if is_api:
            siblings = [{"rfilename": path, "size": len(content)} for path, content in files.items()]
            info = {
                "id": repo,
                "sha": commit,
                "siblings": siblings,
                "cardData": {"configs": repository.configs},
            }
            return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        content = files.get("/".join(rest[split:]))
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        tag = hashlib.sha256(content).hexdigest()
        return self.send(200, content, {"X-Repo-Commit": commit, "ETag": f'"{tag}"'}, body)

    def find(self, repository: Repository, parts: list[str]) -> str | None:
        revision = "/".join(parts)
        commit = repository.branches.get(revision, revision)
        return commit if commit in repository.commits else None

    def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def hub_server(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubServer]:
    """Start a server, and point the Hub's client to it and to an empty cache."""
    with HubServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        monkeypatch.setattr(hub, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(hub, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield server
        server.shutdown()
        thread.join()
