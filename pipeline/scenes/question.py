"""What is asked about a scene.

Every question is drawn so that its words alone do not give the answer away: each scene that is asked at all is asked
for every answer that there is, or the answer is drawn before the words, and colours and shapes are alike in all rules.

References
----------
The tasks mirror those of "Taking Shortcuts for Categorical VQA Using Super Neurons" (arXiv 2603.10781): POPE,
InstaOrder (occlusion, depth), VizWiz, CLEVR, A-OKVQA and ScienceQA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations

from .chance import Chance
from .scene import COLORS, KINDS, SHAPES, Kind, Scene

N_CHOICES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question about a scene with its answer; of several ``choices``, the answer is the letter of one."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()


Ask = Callable[[Scene, Chance], Iterator[Asked]]
"""Yields the questions of one task about a scene, none where it does not fit."""


def ask_existence(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask for one thing that is there and one that is not, of random, popular or adversarial kind as in POPE."""
    yield Asked(question=_is_there(chance.pick(scene.kinds)), answer="yes")
    yield Asked(question=_is_there(draw_absent(scene, chance, adversarial=0.5)), answer="no")


def _is_there(kind: Kind) -> str:
    return f"is there a {kind}?"


def draw_absent(scene: Scene, chance: Chance, *, adversarial: float) -> Kind:
    """Return a kind that is not in the scene.

    It is as often a popular one as those that are there, so that popularity tells nothing. Of the others, a share of
    `adversarial` has its colour or shape in common with a thing that is there.
    """
    popular = chance.pick(scene.kinds).is_popular
    absent = [kind for kind in KINDS if kind.is_popular == popular and kind not in scene.kinds]
    if not popular and chance.happens(adversarial):
        return chance.pick([kind for kind in absent if any(kind.resembles(other) for other in scene.kinds)])
    return chance.pick(absent)


def ask_occlusion(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask of two things whether the first covers a part of the second: once yes, once no."""
    found = {(far, near): scene.covers(near, far) for far, near in scene.pairs}
    covering, apart = ([pair for pair, covers in found.items() if covers is wanted] for wanted in (True, False))
    if not covering:
        return
    far, near = chance.pick(covering)
    yield Asked(question=_covers(scene.kinds[near], scene.kinds[far]), answer="yes")
    if apart and chance.happens(0.5):
        first, second = chance.shuffled(chance.pick(apart))
    else:
        first, second = chance.pick(covering)
    yield Asked(question=_covers(scene.kinds[first], scene.kinds[second]), answer="no")


def _covers(first: Kind, second: Kind) -> str:
    return f"does the {first} cover the {second}?"


def ask_depth(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask which of two things is closer: once it is the first, once the second."""
    if len(scene.things) < 2:
        return
    for answer in ("first", "second"):
        far, near = chance.pick(scene.pairs)
        named = (near, far) if answer == "first" else (far, near)
        first, second = (scene.kinds[place] for place in named)
        yield Asked(question=f"which is closer, the {first} or the {second}?", answer=answer)


def ask_compare(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask of two shapes whether there are more, fewer or the same: each answer once, where all can be given."""
    count = Counter(kind.shape for kind in scene.kinds)
    pairs = list(permutations(SHAPES, 2))
    rules: dict[str, list[tuple[str, str]]] = {
        "more": [(a, b) for a, b in pairs if count[a] > count[b]],
        "fewer": [(a, b) for a, b in pairs if count[a] < count[b]],
        "same": [(a, b) for a, b in pairs if count[a] == count[b] > 0],
    }
    if not rules["same"]:
        return
    for answer, found in rules.items():
        if not found:  # every shape is there, once
            return
        a, b = chance.pick(found)
        yield Asked(question=f"are there more {plural(a)} than {plural(b)}, fewer or the same?", answer=answer)


def plural(shape: str) -> str:
    """Return the word for several."""
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def ask_attribute(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask what colour the largest and the smallest shape have."""
    del chance
    by_area = sorted(scene.things, key=lambda thing: thing.area)
    yield Asked(question="what color is the largest shape?", answer=by_area[-1].kind.color)
    yield Asked(question="what color is the smallest shape?", answer=by_area[0].kind.color)


def ask_choice(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask which of four kinds is in the picture.

    None of the wrong ones is adversarial: they would be like the right one, and that which is most like the others
    would be right more often.
    """
    wrong: list[Kind] = []
    while len(wrong) < N_CHOICES - 1:
        kind = draw_absent(scene, chance, adversarial=0)
        if kind not in wrong:
            wrong.append(kind)
    right = chance.pick(scene.kinds)
    order = chance.shuffled((right, *wrong))
    yield Asked(
        question="which of these is in the picture?",
        answer="ABCD"[order.index(right)],
        choices=tuple(map(str, order)),
    )


def ask_answerable(scene: Scene, chance: Chance) -> Iterator[Asked]:
    """Ask for the colour of a shape, or the shape of a colour, that is there once, and of one that is not there."""
    by_shape = chance.happens(0.5)
    count = Counter(kind.shape if by_shape else kind.color for kind in scene.kinds)
    names = SHAPES if by_shape else COLORS
    once, absent = ([name for name in names if count[name] == wanted] for wanted in (1, 0))
    if not once or not absent:
        return
    for answer, found in (("answerable", once), ("unanswerable", absent)):
        name = chance.pick(found)
        question = f"what color is the {name}?" if by_shape else f"what shape is the {name} one?"
        yield Asked(question=question, answer=answer)


TASKS: Mapping[str, Ask] = {
    "existence": ask_existence,
    "occlusion": ask_occlusion,
    "depth": ask_depth,
    "compare": ask_compare,
    "attribute": ask_attribute,
    "choice": ask_choice,
    "answerable": ask_answerable,
}
"""How each task asks, by its name."""


def ask_about(task: str, world: str, number: int, scene: Scene) -> list[Asked]:
    """Return the questions of a task about scene `number` of a world."""
    return list(TASKS[task](scene, Chance(f"{world}/{number}/{task}")))
