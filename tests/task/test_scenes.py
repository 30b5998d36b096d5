"""The built-in world: its pictures show what its questions ask, and the questions alone give nothing away."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from pipeline.sample import Sample, hash_pixels
from pipeline.scenes.chance import Chance
from pipeline.scenes.drawing import MAX_SHIFT, PAINT
from pipeline.scenes.picture import ScenePicture
from pipeline.scenes.question import TASKS, Asked, ask_about, plural
from pipeline.scenes.scene import COLORS, KINDS, MIN_VISIBLE, OVERLAP_PIXELS, SHAPES, SIZE, Kind, Scene, make_scene
from pipeline.task import load_task
from storage.split import assign_split

N_SCENES = 300
N_TEXTS = 12_000


def asked_about(task: str, n_scenes: int = N_SCENES) -> list[tuple[Scene, Asked]]:
    scenes = [make_scene("tests", number) for number in range(n_scenes)]
    return [(scene, asked) for number, scene in enumerate(scenes) for asked in ask_about(task, "tests", number, scene)]


def named(scene: Scene, text: str) -> list[int]:
    """Return the places of the things that `text` names, in its order."""
    found = [(text.index(str(kind)), place) for place, kind in enumerate(scene.kinds) if str(kind) in text]
    return [place for _, place in sorted(found)]


def test_the_same_number_is_the_same_scene_whatever_was_made_before() -> None:
    make_scene.cache_clear()
    first = make_scene("world", 7)
    picture = ScenePicture("world", 7).open()
    make_scene.cache_clear()
    for number in range(7):
        make_scene("world", number)
    assert make_scene("world", 7) == first != make_scene("other", 7)
    assert ScenePicture("world", 7).open().tobytes() == picture.tobytes()


def test_the_world_is_the_one_whose_release_is_recorded() -> None:
    """Anything that changes a scene or a question changes `pipeline.task.reader.scenes.REVISION`, and this test."""
    scene = make_scene("test", 1)
    assert list(map(str, scene.kinds)) == ["gray rectangle", "brown rectangle", "yellow cross", "blue rectangle"]
    assert [round(thing.x, 6) for thing in scene.things] == [14.164223, 20.068634, 55.707468, 22.689554]
    (choice,) = ask_about("choice", "test", 1, scene)
    assert choice.choices == ("brown triangle", "brown rectangle", "yellow rectangle", "black circle")
    texts = [asked.question for task in TASKS for asked in ask_about(task, "test", 1, scene)]
    assert texts[:3] == [
        "is there a yellow cross?",
        "is there a gray cross?",
        "which is closer, the yellow cross or the gray rectangle?",
    ]


def test_random_choices_are_those_of_every_release_of_python() -> None:
    chance = Chance("a seed")
    assert [round(chance.fraction(), 12) for _ in range(2)] == [0.397825572666, 0.037242067665]
    assert sorted(chance.shuffled(range(9))) == list(range(9))


def test_pictures_show_what_scenes_hold() -> None:
    """The ground is the ground's, and of every thing's visible part much has its colour's paint, the rim aside."""
    for number in range(60):
        scene = make_scene("tests", number)
        shown = np.asarray(ScenePicture("tests", number).open()).astype(int)
        assert shown.shape == (SIZE, SIZE, 3)
        top = np.full((SIZE, SIZE), -1)
        for place, mask in enumerate(scene.masks):
            top[mask] = place
        assert (np.abs(shown[top == -1] - scene.ground).max(axis=1) == 0).mean() > 0.9
        for place, thing in enumerate(scene.things):
            off = np.abs(shown[top == place] - PAINT[thing.kind.color]).max(axis=1)
            assert (off <= MAX_SHIFT).mean() > 0.15, (number, thing.kind)


def test_scenes_are_clear() -> None:
    scenes = [make_scene("tests", number) for number in range(N_SCENES)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    assert all(len(set(scene.kinds)) == len(scene.things) for scene in scenes)
    assert min(min(scene.visible_fractions()) for scene in scenes) >= MIN_VISIBLE
    bottoms = [[thing.bottom for thing in scene.things] for scene in scenes]
    assert all(ordered == sorted(ordered) for ordered in bottoms)
    everywhere = Counter(kind for scene in scenes for kind in scene.kinds)
    popular = sum(count for kind, count in everywhere.items() if kind.is_popular)
    assert popular / sum(everywhere.values()) == pytest.approx(1 / 3, abs=0.06)
    assert Counter(kind.color for kind in KINDS if kind.is_popular) == dict.fromkeys(COLORS, 1)
    assert Counter(kind.shape for kind in KINDS if kind.is_popular) == dict.fromkeys(SHAPES, 2)


def test_existence_is_answered_right() -> None:
    absent = []
    for scene, asked in asked_about("existence"):
        there = [str(kind) for kind in scene.kinds]
        name = asked.question.removeprefix("is there a ").removesuffix("?")
        assert asked.answer == ("yes" if name in there else "no")
        if asked.answer == "no":
            (kind,) = (kind for kind in KINDS if str(kind) == name)
            absent.append((kind.is_popular, any(kind.resembles(other) for other in scene.kinds)))
    assert min(Counter(absent).values()) > 20  # random, popular and adversarial ones are among them


def test_occlusion_is_answered_right() -> None:
    covered = Counter[bool]()
    for scene, asked in asked_about("occlusion", 3 * N_SCENES):
        first, second = named(scene, asked.question)
        near, far = max(first, second), min(first, second)
        common = int((scene.masks[near] & scene.masks[far]).sum())
        assert common == 0 or common >= OVERLAP_PIXELS
        assert asked.answer == ("yes" if first == near and common else "no")
        if asked.answer == "no":
            covered[common > 0] += 1
    assert min(covered.values()) > 20  # both ways to be wrong are among them


def test_depth_is_answered_right() -> None:
    for scene, asked in asked_about("depth"):
        first, second = named(scene, asked.question)
        assert asked.answer == ("first" if scene.things[first].bottom > scene.things[second].bottom else "second")


def test_compare_is_answered_right() -> None:
    for scene, asked in asked_about("compare"):
        words = asked.question.replace(",", "").split()
        first, second = (sum(plural(kind.shape) == words[place] for kind in scene.kinds) for place in (3, 5))
        assert asked.answer == ("more" if first > second else "fewer" if first < second else "same")


def test_attribute_is_answered_right() -> None:
    for scene, asked in asked_about("attribute"):
        by_size = sorted(scene.things, key=lambda thing: thing.width * thing.height)
        assert asked.answer == by_size[-1 if "largest" in asked.question else 0].kind.color


def test_choice_is_answered_right() -> None:
    for scene, asked in asked_about("choice"):
        there = [choice in map(str, scene.kinds) for choice in asked.choices]
        assert there == ["ABCD"[place] == asked.answer for place in range(4)]
        assert len(set(asked.choices)) == 4


def test_answerable_is_answered_right() -> None:
    for scene, asked in asked_about("answerable"):
        words = asked.question.removesuffix("?").split()
        name = words[-2] if words[-1] == "one" else words[-1]
        n_named = sum(name in (kind.color, kind.shape) for kind in scene.kinds)
        assert n_named == (asked.answer == "answerable")


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    return [make_scene("words", number) for number in range(N_TEXTS)]


@pytest.mark.parametrize("task", TASKS)
def test_the_words_of_a_question_do_not_give_its_answer_away(task: str, many_scenes: list[Scene]) -> None:
    """Labels are balanced, and a bag of words stays within 3 points of chance on unseen questions."""
    stream = (
        (f"{asked.question} {' '.join(asked.choices)}", asked.answer)
        for number, scene in enumerate(many_scenes)
        for asked in ask_about(task, "words", number, scene)
    )
    texts, answers = zip(*islice(stream, N_TEXTS), strict=True)
    count = Counter(answers)
    chance = 1 / len(count)
    assert all(n / len(answers) == pytest.approx(chance, abs=0.02) for n in count.values())
    bags = CountVectorizer(token_pattern=r"\w+", ngram_range=(1, 2)).fit_transform(texts)
    half = len(answers) // 2
    model = LogisticRegression(max_iter=300).fit(bags[:half], answers[:half])
    assert model.score(bags[half:], answers[half:]) == pytest.approx(chance, abs=0.03)


def test_how_choices_are_alike_does_not_give_the_right_one_away(many_scenes: list[Scene]) -> None:
    """Neither the place of a choice nor what it has in common with the others is worth more than 3 points."""
    told: list[list[list[int]]] = []
    right: list[list[bool]] = []
    for number, scene in enumerate(many_scenes):
        for asked in ask_about("choice", "words", number, scene):
            kinds = [Kind(*choice.split()) for choice in asked.choices]
            told.append([_compare_kinds(place, kinds) for place in range(len(kinds))])
            right.append([letter == asked.answer for letter in "ABCD"])
    features, answers = np.array(told), np.array(right)
    half = len(answers) // 2
    model = HistGradientBoostingClassifier().fit(features[:half].reshape(-1, 5), answers[:half].ravel())
    likely = model.predict_proba(features[half:].reshape(-1, 5))[:, 1].reshape(-1, 4)
    n_alike = features[half:, :, 1] + features[half:, :, 2]
    for guess in (likely, n_alike, -n_alike):
        best = guess == guess.max(axis=1, keepdims=True)  # several of them: as a guess among them
        share = (best & answers[half:]).sum(axis=1) / best.sum(axis=1)
        assert share.mean() == pytest.approx(1 / 4, abs=0.03)


def _compare_kinds(place: int, kinds: list[Kind]) -> list[int]:
    """Return the place, how many others share a kind's colour and shape or are popular, and whether it is."""
    kind, others = kinds[place], kinds[:place] + kinds[place + 1 :]
    n_color = sum(other.color == kind.color for other in others)
    n_shape = sum(other.shape == kind.shape for other in others)
    n_popular = sum(other.is_popular for other in others)
    return [place, n_color, n_shape, n_popular, int(kind.is_popular)]


@pytest.mark.parametrize("task", TASKS)
def test_more_samples_change_none_of_those_before(task: str) -> None:
    few, many = load_task(f"scenes.{task}", limit=40), load_task(f"scenes.{task}", limit=90)
    assert len(few.samples) == 40
    assert len(many.samples) == 90
    assert few.fingerprint(0, 40) == many.fingerprint(0, 40)
    assert many.samples[:40] == few.samples


def test_tasks_share_pictures_and_splits() -> None:
    splits: dict[str, set[str]] = {}
    shown: list[set[str]] = []
    for task in TASKS:
        samples: tuple[Sample, ...] = load_task(f"scenes.{task}", limit=150).samples
        shown.append({sample.image_id for sample in samples})
        for sample in samples:
            splits.setdefault(sample.image_id, set()).add(sample.split)
            assert sample.split == assign_split(sample.image_id)
        assert hash_pixels(samples[0].images[0].open()) == samples[0].image_id
    assert all(len(found) == 1 for found in splits.values())
    assert len(set.intersection(*shown)) > 5
