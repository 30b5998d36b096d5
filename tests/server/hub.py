"""As much of the Hugging Face hub as its own client needs to download a checkpoint."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from .static import StaticHandler, StaticServer


class HubServer(StaticServer):
    """Serve checkpoints at ``url``: the files of ``folder/owner/name``, all of them in the one commit `commit`.

    References
    ----------
    Endpoints, headers and fields as huggingface_hub's ``hf_api.py`` and ``file_download.py`` ask for them.
    """

    def __init__(self, folder: Path, *, commit: str, names: tuple[str, ...] = ("main",)) -> None:
        super().__init__(folder, ranges=True)
        self.RequestHandlerClass = _HubHandler
        self.commit = commit
        self.names = {*names, commit}

    def find_file(self, target: str) -> Path | None:
        """Return the file that a request to resolve one names."""
        match urlsplit(target).path.strip("/").split("/"):
            case [owner, name, "resolve", revision, *path] if revision in self.names:
                return super().find_file("/".join([owner, name, *path]))
        return None

    def describe(self, target: str) -> object:
        """Return what a request to the interface is answered with, None where there is nothing."""
        match urlsplit(target).path.strip("/").split("/"):
            case ["api", "models", owner, name, "revision", revision] if revision in self.names:
                return {"id": f"{owner}/{name}", "sha": self.commit, "siblings": []}
            case ["api", "models", owner, name, "tree", revision] if revision in self.names:
                files = sorted(path for path in (self.folder / owner / name).rglob("*") if path.is_file())
                return [
                    {
                        "type": "file",
                        "path": path.relative_to(self.folder / owner / name).as_posix(),
                        "size": path.stat().st_size,
                        "oid": path.name,
                    }
                    for path in files
                ]
        return None


class _HubHandler(StaticHandler):
    server: HubServer

    def do_GET(self) -> None:
        found = self.server.describe(self.path)
        if found is None:
            super().do_GET()
            return
        self.server.count_request(self.command, self.path, None)
        body = json.dumps(found).encode()
        self._send_head(HTTPStatus.OK, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _send_head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        missing = {} if status < HTTPStatus.BAD_REQUEST else {"X-Error-Code": "RevisionNotFound"}
        super()._send_head(status, headers | missing | {"X-Repo-Commit": self.server.commit})
