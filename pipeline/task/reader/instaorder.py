"""InstaOrder: which thing is in front, from the orders that people gave to pairs of things in pictures of COCO.

The two things of a question are marked by a red and a blue box; who comes first is decided by a hash, so that both
answers are as frequent. Taken are pairs whose order the annotators agreed on: for depth those without a tie, for
occlusion those where one covers the other and not both. How the paper asks and marks is not known.

References
----------
Lee and Park, "Instance-wise Occlusion and Depth Orders in Natural Scenes", CVPR 2022: ``i<j`` says that instance i
covers j, or is closer than j; numbers are places in ``instance_ids``, which are ids of COCO's annotations.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import TaskError
from ...sample import ImageFile
from ..description import TaskDescription
from ..raw_sample import RawSample
from ..source import TaskSource
from . import Reading

if TYPE_CHECKING:
    from PIL.Image import Image

ANSWERS = {"occlusion": ("yes", "no"), "depth": ("red", "blue")}
"""By the kind of order, the answers where the red box's thing is in front and where the blue one's is."""

RED, BLUE = (255, 0, 0), (0, 0, 255)
ORDER = re.compile(r"\s*(\d+)\s*<\s*(\d+)\s*")

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True, slots=True)
class MarkedImage:
    """A picture with a box in red and one in blue."""

    source: ImageFile
    red: Box
    blue: Box

    def open(self) -> Image:
        """Return the picture in RGB, lines a hundredth of its shorter side wide."""
        import PIL.ImageDraw

        picture = self.source.open()
        draw = PIL.ImageDraw.Draw(picture)
        for (left, top, width, height), color in ((self.red, RED), (self.blue, BLUE)):
            corners = (left, top, left + width, top + height)
            draw.rectangle(corners, outline=color, width=max(2, min(picture.size) // 100))
        return picture


def read(description: TaskDescription, source: TaskSource) -> Reading:
    """Return the questions of one kind of order.

    Raises
    ------
    TaskError
        If the files are not there, or hold something else, or the description names no kind of order.
    """
    if description.dataset_name not in ANSWERS or description.question is None:
        raise TaskError(
            f"task {description.task}: expected a question, and dataset_name to be {' or '.join(ANSWERS)}, found "
            f"{description.question!r:.40} and {description.dataset_name!r}; correct them"
        )
    if source.data is None:
        raise TaskError(
            f"task {description.task}: expected the folder of COCO 2017 with InstaOrder's files, found none; give it "
            "(--data FOLDER)"
        )
    splits = [OrderReader(description, Path(source.data), split) for split in description.splits()]
    return Reading(
        f"files of InstaOrder {' '.join(description.splits())}", (sample for split in splits for sample in split.read())
    )


class OrderReader:
    """Makes samples of the annotations of a split."""

    def __init__(self, description: TaskDescription, folder: Path, split: str) -> None:
        self._description = description
        self._kind = description.dataset_name or ""
        self._published = description.splits()[split]
        self._pictures = folder / split
        self._file = folder / "annotations" / f"InstaOrder_{split}.json"
        self._boxes_file = folder / "annotations" / f"instances_{split}.json"

    def read(self) -> Iterator[RawSample]:
        """Return the samples, picture by picture."""
        coco = self._load(self._boxes_file)
        try:
            boxes = {entry["id"]: _parse_box(entry["bbox"]) for entry in coco["annotations"]}
            names = {entry["id"]: entry["file_name"] for entry in coco["images"]}
        except (KeyError, TypeError, ValueError) as error:
            raise self._fault(self._boxes_file, error) from error
        try:
            for entry in self._load(self._file)["annotations"]:
                yield from self._ask(entry, names[entry["image_id"]], [boxes[one] for one in entry["instance_ids"]])
        except (KeyError, TypeError, IndexError) as error:
            raise self._fault(self._file, error) from error

    def _ask(self, entry: dict[str, Any], name: str, boxes: list[Box]) -> Iterator[RawSample]:
        picture = self._pictures / name
        if not picture.is_file():
            raise TaskError(
                f"task {self._description.task}: expected a picture at {picture}, found none; put COCO's pictures there"
            )
        for pair in entry[self._kind]:
            order = ORDER.fullmatch(pair["order"])
            if order is None:
                continue  # a tie, or one covers the other and is covered
            front, behind = map(int, order.groups())
            key = f"{entry['image_id']}-{front}-{behind}"
            swap = hashlib.sha256(f"{self._kind}/{key}".encode()).digest()[0] % 2
            red, blue = (behind, front) if swap else (front, behind)
            marked = MarkedImage(ImageFile(picture), boxes[red], boxes[blue])
            yield RawSample(
                where=f"{self._file.name}, picture {entry['image_id']}",
                sample_id=f"instaorder-{self._kind}-{key}",
                question=str(self._description.question),
                answer=ANSWERS[self._kind][swap],
                images=(marked,),
                unmarked=(marked.source,),
                split=self._published,
            )

    def _load(self, file: Path) -> dict[str, Any]:
        try:
            content = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise self._fault(file, error) from error
        if not isinstance(content, dict):
            raise self._fault(file, "no object")
        return content

    def _fault(self, file: Path, found: object) -> TaskError:
        reason = getattr(found, "strerror", None) or (f"no {found}" if isinstance(found, KeyError) else str(found))
        return TaskError(f"task {self._description.task}, {file}: expected annotations, found: {reason}; check --data")


def _parse_box(found: Any) -> Box:
    left, top, width, height = (float(number) for number in found)
    return left, top, width, height
