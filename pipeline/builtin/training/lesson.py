"""What the models are taught: pictures of the world and of easy-VQA's train split, each with its questions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...sample import ImageFile, ImageSource, Sample
from ...scenes.chance import Chance
from ...scenes.picture import ScenePicture
from ...scenes.question import TASKS, Asked, ask_about, plural
from ...scenes.scene import SHAPES, Scene, make_scene
from .vocabulary import NUMBERS

if TYPE_CHECKING:
    from PIL.Image import Image

WORLD = "train"
"""The scenes of training; tasks ask about others."""

WORDINGS = ("{}", "{}", "{}", "{}", "please answer: {}", "look at the picture. {}")
"""Around every question of the tasks; of the prompt variants, others are never seen in training."""

NEGATIONS = {"existence": ("is there a", "is there not a"), "occlusion": (" cover ", " not cover ")}
NEGATED_FRACTION = 0.15
N_RANKED = 2
N_EASY_QUESTIONS = 7
"""A lesson holds many pictures rather than all questions about a few."""

ANSWERABLE = "{} answerable or unanswerable?"


@dataclass(frozen=True, slots=True)
class MirroredImage:
    """A picture, left and right exchanged."""

    source: ImageSource

    def open(self) -> Image:
        """Return the picture in RGB."""
        import PIL.ImageOps

        return PIL.ImageOps.mirror(self.source.open())


def teach_scene(number: int) -> list[Sample]:
    """Return one question of each task about scene `number`, and some of those that are asked in training alone."""
    scene, chance = make_scene(WORLD, number), Chance(f"{WORLD}/{number}/lesson")
    pairs = []
    for task in TASKS:
        asked = ask_about(task, WORLD, number, scene)
        if asked:
            pairs.append(_phrase(task, chance.pick(asked), chance))
    pairs += [*_place(scene, chance), *_describe(scene, chance)]
    return _as_samples(ScenePicture(WORLD, number), pairs)


def _phrase(task: str, asked: Asked, chance: Chance) -> tuple[str, str]:
    question, answer = asked.question, asked.answer
    if task in NEGATIONS and chance.happens(NEGATED_FRACTION):
        question, answer = question.replace(*NEGATIONS[task]), {"yes": "no", "no": "yes"}[answer]
    if task == "answerable":
        question = ANSWERABLE.format(question)
    if asked.choices:
        question += "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", asked.choices, strict=True))
    return chance.pick(WORDINGS).format(question), answer


def _place(scene: Scene, chance: Chance) -> list[tuple[str, str]]:
    """Return questions about where single things are: what has to be known of each before two can be compared."""
    kinds = [str(kind) for kind in scene.kinds]
    one = chance.pick(range(len(kinds)))
    over = [kinds[near] for far, near in scene.pairs if far == one and scene.covers(near, far)]
    return [
        *(
            (f"how many shapes are closer than the {kinds[place]}?", NUMBERS[len(kinds) - 1 - place])
            for place in chance.shuffled(range(len(kinds)))[:N_RANKED]
        ),
        (f"what covers the {kinds[one]}?", ", ".join(over) or "nothing"),
    ]


def _describe(scene: Scene, chance: Chance) -> list[tuple[str, str]]:
    """Return questions whose answers are whole descriptions: they teach what the tasks' one word hardly does."""
    kinds = [str(kind) for kind in scene.kinds]
    covers = [f"{kinds[near]} covers {kinds[far]}" for far, near in scene.pairs if scene.covers(near, far)]
    count = Counter(kind.shape for kind in scene.kinds)
    others = [
        ("what covers what?", ", ".join(covers) or "nothing"),
        ("how many of which shapes?", ", ".join(f"{NUMBERS[count[name]]} {plural(name)}" for name in SHAPES)),
    ]
    return [("list the shapes by depth.", ", ".join(reversed(kinds))), chance.pick(others)]


def teach_easy_vqa(number: int) -> list[Sample]:
    """Return some of easy-VQA's questions about a picture of its train split, every second time mirrored.

    `number` counts on over all rounds through the split, each in an order of its own.
    """
    pictures, questions = _read_easy_vqa()
    round_number, place = divmod(number, len(pictures))
    picture = _order(len(pictures), round_number)[place]
    source: ImageSource = pictures[picture]
    if (number + round_number) % 2:
        source = MirroredImage(source)
    chosen = Chance(f"easy-vqa/{number}").shuffled(questions[picture])[:N_EASY_QUESTIONS]
    return _as_samples(source, chosen)


@cache
def _order(n_pictures: int, round_number: int) -> list[int]:
    return Chance(f"easy-vqa/{round_number}").shuffled(range(n_pictures))


@cache
def _read_easy_vqa() -> tuple[list[ImageFile], list[list[tuple[str, str]]]]:
    import easy_vqa

    asked: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for question, answer, number in zip(*easy_vqa.get_train_questions(), strict=True):
        asked[number].append((question, answer))
    paths = easy_vqa.get_train_image_paths()
    return [ImageFile(Path(paths[number])) for number in sorted(asked)], [asked[number] for number in sorted(asked)]


def _as_samples(source: ImageSource, pairs: Sequence[tuple[str, str]]) -> list[Sample]:
    """Return samples whose only option is the answer."""
    return [
        Sample(
            sample_id=question,
            image_id="",
            question=question,
            options=(answer,),
            label=0,
            images=(source,),
            split_key="",
        )
        for question, answer in pairs
    ]
