"""As much more of the Hugging Face hub as its own client needs to make a repository and to commit files to it."""

from __future__ import annotations

import base64
import hashlib
import json
from http import HTTPStatus
from pathlib import Path

from storage.schema import is_shard_key

from .hub import HubServer, _HubHandler, _split


class UploadHub(HubServer):
    """A hub whose dataset repositories can be made and written; every file is a regular one, sent with its commit.

    ``committed`` lists the paths of each commit, ``tokens`` the tokens that came along. A repository has the one commit
    `commit`, whatever it holds; a commit that was made for another is refused. Listings tell the SHA-256 of shards, as
    they do of large files, and what git names the others. With ``refuses`` nothing is taken.

    References
    ----------
    Endpoints and fields as huggingface_hub's ``hf_api.py`` and ``_commit_api.py`` use them.
    """

    def __init__(self, folder: Path, *, commit: str) -> None:
        super().__init__(folder, commit=commit)
        self.RequestHandlerClass = _UploadHandler
        self.committed: list[list[str]] = []
        self.tokens: set[str | None] = set()
        self.private: list[bool] = []
        self.refuses = False

    def _describe_path(self, path: Path, owner: str, name: str) -> dict[str, object]:
        told = super()._describe_path(path, owner, name)
        if told["type"] == "directory":
            return told
        if not is_shard_key(str(told["path"])):
            return told | {"oid": self.find_oid(f"{owner}/{name}", str(told["path"]))}
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return told | {"lfs": {"oid": digest, "size": told["size"], "pointerSize": 134}}

    def find_oid(self, repository: str, path: str) -> str | None:
        """Return the id that git gives a file, None where there is none."""
        file = self.folder / repository / path
        if not file.is_file():
            return None
        content = file.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def add_files(self, repository: str, lines: list[dict[str, object]]) -> None:
        """Write the files that a commit names."""
        paths: list[str] = []
        for line in lines:
            value = line["value"]
            assert isinstance(value, dict)
            if line["key"] == "file":
                target = self.folder / repository / value["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(value["content"]))
                paths.append(value["path"])
            else:
                assert line["key"] == "header", line
        self.committed.append(paths)


class _UploadHandler(_HubHandler):
    server: UploadHub

    def do_POST(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization"))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match _split(self.path, "api", "datasets"):
            case _ if self.server.refuses:
                self._answer_json({"error": "not allowed"}, HTTPStatus.FORBIDDEN)
            case ["repos", "create"]:
                self._create(json.loads(body))
            case ["validate-yaml"]:
                self._answer_json({"errors": [], "warnings": []})
            case [owner, name, "preupload", "main"]:
                self._answer_json(
                    {
                        "files": [
                            {
                                "path": file["path"],
                                "uploadMode": "regular",
                                "shouldIgnore": False,
                                "oid": self.server.find_oid(f"{owner}/{name}", file["path"]),
                            }
                            for file in json.loads(body)["files"]
                        ]
                    }
                )
            case [owner, name, "commit", "main"]:
                lines = [json.loads(line) for line in body.splitlines()]
                if lines[0]["value"].get("parentCommit", self.server.commit) != self.server.commit:
                    self._answer_json({"error": "A commit has happened since"}, HTTPStatus.PRECONDITION_FAILED)
                    return
                self.server.add_files(f"{owner}/{name}", lines)
                url = f"{self.server.url}/datasets/{owner}/{name}/commit/{self.server.commit}"
                self._answer_json({"success": True, "commitOid": self.server.commit, "commitUrl": url})
            case _:
                self._answer_json({"error": f"nothing at {self.path}"}, HTTPStatus.NOT_FOUND)

    def _create(self, wanted: dict[str, object]) -> None:
        repository = f"{wanted.get('organization', 'somebody')}/{wanted['name']}"
        self.server.private.append(wanted.get("visibility") == "private" or wanted.get("private") is True)
        made = not (self.server.folder / repository).is_dir()
        (self.server.folder / repository).mkdir(parents=True, exist_ok=True)
        told = {"url": f"{self.server.url}/datasets/{repository}", "name": repository}
        self._answer_json(told, HTTPStatus.OK if made else HTTPStatus.CONFLICT)

    def _answer_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(value).encode()
        self._send_head(status, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body)
