"""The driver of a job of three blocks: a picture of one holds its worker until it is released, one of another kills."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from pipeline.engine import crew
from pipeline.engine.inquest import Inquest
from pipeline.engine.job import BlockJob, Engine
from pipeline.engine.ray_engine import RayEngine
from pipeline.sample import ImageFile, ImageSource
from pipeline.settings import ExtractionSettings
from tests.pipeline.killer import Holder, Killer
from tests.pipeline.test_engine import ask, extract, load_task

SETTINGS = ExtractionSettings(block=4, batch_size=8, dtype="float32")
HELD, DEADLY = 0, 1
"""Blocks whose first picture is out of the ordinary."""


def extract_blocks(store: Path, engine: Engine, *, held: ImageSource, deadly: ImageSource) -> None:
    """Compute three blocks, two with a picture that is given."""
    samples = list(load_task("easy-vqa.shape").samples[: 3 * SETTINGS.block])
    for block, picture in ((HELD, held), (DEADLY, deadly)):
        place = block * SETTINGS.block
        samples[place] = replace(samples[place], images=(picture,))
    extract(store, ask([replace(load_task("easy-vqa.shape"), samples=tuple(samples))], SETTINGS), engine=engine)


def find_picture() -> ImageFile:
    """Return a picture that is nothing out of the ordinary."""
    (picture,) = load_task("easy-vqa.shape").samples[0].images
    assert isinstance(picture, ImageFile)
    return picture


class Impartial(Inquest):
    """An inquest that nobody holds of the block whose machines were taken away."""

    def __init__(self, job: BlockJob) -> None:
        assert job.block.index == DEADLY
        super().__init__(job)


def main() -> None:
    """Take as arguments the store, and the folder that holds the first block while it is there."""
    vars(crew)["Inquest"] = Impartial
    store, folder = map(Path, sys.argv[1:])
    held, deadly = Holder(find_picture(), folder), Killer(find_picture(), store)
    extract_blocks(store, RayEngine(n_workers=1, address="auto"), held=held, deadly=deadly)


if __name__ == "__main__":
    main()
