"""Where a checkpoint lies and what identifies it: built-in models, folders, files for llama.cpp, and the hub."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import ModelNotFoundError
from .digest import digest_files
from .hub import SMALL_FILES, WEIGHTS, download

BUILTIN_MODELS = {
    file.parent.name: file.parent for file in sorted(Path(__file__).parents[1].glob("builtin/*/config.json"))
}

UNKNOWN_REVISION = "unknown: no weights were looked at"

CONFIG_FILES = ("config.json", "generation_config.json")

PROCESSOR_FILES = (
    "*.jinja",
    "*.txt",
    "*.model",
    "*token*.json",
    "*process*.json",
    "vocab*.json",
    "chat_template*.json",
)
"""What decides a prompt's tokens and a picture's pixels, as patterns within a checkpoint folder."""

Origin = Literal["built-in", "folder", "hub"]

HUB_ID = re.compile(r"(?P<model_id>[\w.-]+/[\w.-]+)(?:@(?P<revision>\S+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A checkpoint on this machine.

    Attributes
    ----------
    name
        What its runs are called by in the store.
    model_id, revision
        Its id, and what pins its weights: a commit of the hub, or a digest.
    origin, folder, gguf
        Where it came from, where it lies, and the file within that holds all of it, for llama.cpp.
    config, processor
        Digests of its configuration, and of what decides tokens and pixels.
    """

    name: str
    model_id: str
    revision: str
    origin: Origin
    folder: Path
    gguf: str | None = None
    config: str
    processor: str

    def identity(self) -> dict[str, str]:
        """Return what tells this model apart from any other."""
        return {
            "model_id": self.model_id,
            "revision": self.revision,
            "config": self.config,
            "processor": self.processor,
        }

    def loading_options(self) -> dict[str, Any]:
        """Return what every ``from_pretrained`` of transformers is to be told besides the folder."""
        return {"trust_remote_code": False} | ({} if self.gguf is None else {"gguf_file": self.gguf})

    def locate(self) -> ModelSource:
        """Return this checkpoint as it lies on this machine, which may be another than where it was found.

        The files of a folder must be in the same place on both. A checkpoint of the hub is downloaded if it is not.

        Raises
        ------
        ModelNotFoundError
            If it is not here, or what is here is another.
        """
        folder = self.folder
        if self.origin == "built-in":
            folder = BUILTIN_MODELS[self.model_id]
        elif self.origin == "hub" and not any(folder.glob("*.safetensors")):
            folder = download(self.model_id, revision=self.revision, patterns=(*SMALL_FILES, *WEIGHTS))
        if not (folder / (self.gguf or "config.json")).is_file():
            raise ModelNotFoundError(
                f"model {self.name!r}: expected it in {folder / (self.gguf or '')} on {platform.node()}, found none; "
                "put the checkpoint in the same place on every machine, or name it by its id on the hub"
            )
        known = self.revision if self.origin == "hub" else None
        here = _describe(
            folder, name=self.name, model_id=self.model_id, origin=self.origin, revision=known, gguf=self.gguf
        )
        differing = [part for part, value in self.identity().items() if here.identity()[part] != value]
        if differing:
            raise ModelNotFoundError(
                f"model {self.name!r}: expected the same checkpoint on every machine, found another "
                f"{' and '.join(differing)} in {folder} on {platform.node()}; copy the checkpoint there again"
            )
        return here


def find_model(model_id: str, *, with_weights: bool = True) -> ModelSource:
    """Return the checkpoint that `model_id` names: a built-in model, a local folder or .gguf file, or a hub id.

    A hub id is ``owner/name`` or ``owner/name@revision``. It is downloaded to the hub's own cache (safetensors and text
    files only) unless it is there already.

    Parameters
    ----------
    with_weights
        Without, no weights need to be there, and a folder's or built-in model's revision is `UNKNOWN_REVISION`.

    Raises
    ------
    ModelNotFoundError
        If it is none of these, or the hub does not have it or cannot be reached.
    """
    unknown = None if with_weights else UNKNOWN_REVISION
    if model_id in BUILTIN_MODELS:
        return _describe(
            BUILTIN_MODELS[model_id], name=model_id, model_id=model_id, origin="built-in", revision=unknown
        )
    path = Path(os.path.expanduser(model_id))  # noqa: PTH111 - Path's own raises where there is no such user
    if path.suffix == ".gguf" and path.is_file():
        name, path = _as_name(path.stem), path.resolve()
        return _describe(path.parent, name=name, model_id=name, origin="folder", revision=unknown, gguf=path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFoundError(
                f"model {model_id!r}: expected a checkpoint folder, found no config.json in it; check the path"
            )
        path = path.resolve()
        name = _as_name(path.name)
        return _describe(path, name=name, model_id=name, origin="folder", revision=unknown)
    if model_id.startswith((".", "/", "~")):
        raise ModelNotFoundError(f"model {model_id!r}: expected a checkpoint folder, found none there; check the path")
    if on_hub := HUB_ID.fullmatch(model_id):
        return _find_on_hub(on_hub["model_id"], on_hub["revision"], with_weights=with_weights)
    from storage.spelling import suggest_name

    raise ModelNotFoundError(
        f"model {model_id!r}: expected a built-in model ({', '.join(BUILTIN_MODELS)}), a local folder or a hub id "
        "owner/name, found none of them; " + suggest_name(model_id, BUILTIN_MODELS, otherwise="check the spelling")
    )


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text)


def _find_on_hub(model_id: str, revision: str | None, *, with_weights: bool) -> ModelSource:
    folder = download(model_id, revision=revision, patterns=(*SMALL_FILES, *(WEIGHTS if with_weights else ())))
    if not (folder / "config.json").is_file():
        raise ModelNotFoundError(
            f"model {model_id!r}: expected a checkpoint on the hub, found no config.json there; check the id"
        )
    name = model_id.replace("/", "--")
    return _describe(folder, name=name, model_id=model_id, origin="hub", revision=folder.name)


def _describe(
    folder: Path, *, name: str, model_id: str, origin: Origin, revision: str | None, gguf: str | None = None
) -> ModelSource:
    """Return the checkpoint in `folder`; without a `revision`, a digest of its weights takes its place."""
    if revision is None:
        weights = [folder / gguf] if gguf else list(folder.glob("*.safetensors"))
        if not weights:
            raise ModelNotFoundError(
                f"model {folder}: expected safetensors weights, found none; convert the checkpoint"
            )
        revision = digest_files(weights)

    def digest(patterns: tuple[str, ...]) -> str:
        return digest_files(path for pattern in (() if gguf else patterns) for path in folder.glob(pattern))

    return ModelSource(
        name=name,
        model_id=model_id,
        revision=revision,
        origin=origin,
        folder=folder,
        gguf=gguf,
        config=digest(CONFIG_FILES),
        processor=digest(PROCESSOR_FILES),
    )
