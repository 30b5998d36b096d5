"""As much of the Hugging Face hub as its own clients need to download a checkpoint or a dataset."""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from .static import StaticHandler, StaticServer


class HubServer(StaticServer):
    """Serve ``folder/owner/name`` at ``url``, checkpoint or dataset, all of them in the one commit `commit`.

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
        match _split(target, "datasets"):
            case [owner, name, "resolve", revision, *path] if revision in self.names:
                return super().find_file("/".join([owner, name, *path]))
        return None

    def describe(self, target: str, wanted: list[str] | None = None) -> object:
        """Return what a request to the interface is answered with, None where there is nothing.

        `wanted` are the paths that a POST asks about.
        """
        match _split(target, "api", "models", "datasets"):
            case [owner, name, "revision", revision] if revision in self.names:
                return {"id": f"{owner}/{name}", "sha": self.commit, "siblings": []}
            case [owner, name] if (self.folder / owner / name).is_dir():
                return {"id": f"{owner}/{name}", "sha": self.commit, "siblings": []}
            case [owner, name, "tree", revision, *under] if revision in self.names:
                place = self.folder.joinpath(owner, name, *under)
                deep = "recursive=true" in urlsplit(target).query.lower()
                return [
                    self._describe_path(found, owner, name) for found in sorted(place.glob("**/*" if deep else "*"))
                ]
            case [owner, name, "paths-info", revision] if revision in self.names:
                found = [self.folder / owner / name / path for path in wanted or []]
                return [self._describe_path(path, owner, name) for path in found if path.exists()]
        return None

    def _describe_path(self, path: Path, owner: str, name: str) -> dict[str, object]:
        told = {"path": path.relative_to(self.folder / owner / name).as_posix(), "oid": path.name}
        if path.is_dir():
            return told | {"type": "directory", "size": 0}
        return told | {"type": "file", "size": path.stat().st_size}


def _split(target: str, *leading: str) -> list[str]:
    """Return the parts of a path, without those in front that are `leading`."""
    parts = urlsplit(target).path.strip("/").split("/")
    while parts and parts[0] in leading:
        parts = parts[1:]
    return parts


class _HubHandler(StaticHandler):
    server: HubServer

    def do_GET(self) -> None:
        self._tell(self.server.describe(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._tell(self.server.describe(self.path, body["paths"]))

    def _tell(self, found: object) -> None:
        if found is None:
            super().do_GET()
            return
        self.server.count_request(self.command, self.path, None)
        body = json.dumps(found).encode()
        self._send_head(HTTPStatus.OK, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _send_head(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        repository = "/".join(_split(self.path, "api", "models", "datasets")[:2])
        what = "Entry" if any(f"/{name}/" in self.path for name in self.server.names) else "Revision"
        what = what if (self.server.folder / repository).is_dir() else "Repo"
        missing = {} if status < HTTPStatus.BAD_REQUEST else {"X-Error-Code": f"{what}NotFound"}
        super()._send_head(status, headers | missing | {"X-Repo-Commit": self.server.commit})
