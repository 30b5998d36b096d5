"""Pictures that do something to the process that opens them: kill it, as a fault in a decoder would, or hold it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import ray

from pipeline.sample import ImageFile


@dataclass(frozen=True)
class Killer:
    """The picture in a file; but while `armed` is there, opening it is the end."""

    picture: ImageFile
    armed: Path

    def open(self) -> PIL.Image.Image:
        if self.armed.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.picture.open()


@dataclass(frozen=True)
class Holder:
    """The picture in a file; but while `folder` is there, opening it leaves the node's id in it and does not end."""

    picture: ImageFile
    folder: Path

    def open(self) -> PIL.Image.Image:
        if self.folder.exists():
            (self.folder / ray.get_runtime_context().get_node_id()).touch()
        while self.folder.exists():
            threading.Event().wait(0.1)
        return self.picture.open()
