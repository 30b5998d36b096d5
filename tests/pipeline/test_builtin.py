"""The built-in models and the training that made them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForImageTextToText

from pipeline.builtin.training import __main__ as training
from pipeline.builtin.training.accuracy import CONTROLS, measure
from pipeline.builtin.training.course import IGNORED, Student, encode_lesson, measure_loss
from pipeline.builtin.training.lesson import teach_easy_vqa, teach_scene
from pipeline.builtin.training.vocabulary import WORDS
from pipeline.demo import TASKS
from pipeline.errors import PipelineError
from pipeline.model import BUILTIN_MODELS, find_model, load_family, load_model, load_processor
from pipeline.sample import hash_pixels
from pipeline.task import load_task

CLASSES = {
    "tiny-llava": ("LlavaForConditionalGeneration", 12),
    "tiny-llava-seed1": ("LlavaForConditionalGeneration", 12),
    "tiny-qwen3vl": ("Qwen3VLForConditionalGeneration", 10),
}
TRAINED = sorted(BUILTIN_MODELS)


def find_student(name: str) -> Student:
    """Return a built-in model with what it reads by."""
    source = find_model(name)
    return Student(
        model=load_model(source, weights_dtype="float32"), processor=load_processor(source), family=load_family(source)
    )


def begin(name: str, folder: Path) -> Student:
    """Return an untrained model of the same shape, from seed 0."""
    folder.mkdir()
    torch.manual_seed(0)
    shape, _ = training.MODELS[name]
    shape.write_untrained(folder)
    return find_student(str(folder))


def without_dtype(config: dict[str, Any]) -> dict[str, Any]:
    """Return what does not depend on how the weights were loaded before they were saved."""
    return {key: value for key, value in config.items() if key not in ("dtype", "transformers_version")}


@pytest.mark.parametrize("name", TRAINED)
def test_it_loads_with_the_auto_class_and_is_small(name: str) -> None:
    folder = BUILTIN_MODELS[name]
    model = AutoModelForImageTextToText.from_pretrained(folder)
    class_name, n_layers = CLASSES[name]
    assert type(model).__name__ == class_name
    assert model.config.get_text_config().num_hidden_layers == n_layers
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10e6
    processor = load_processor(find_model(name))
    assert processor.tokenizer.is_fast and type(processor.image_processor).__name__.endswith("Pil")
    assert set(WORDS) <= set(processor.tokenizer.get_vocab())


def test_tiny_qwen3vl_has_deep_features_and_positions_in_three_dimensions() -> None:
    config = json.loads((BUILTIN_MODELS["tiny-qwen3vl"] / "config.json").read_text())
    assert config["vision_config"]["deepstack_visual_indexes"] == [0, 1]
    assert config["text_config"]["rope_parameters"]["mrope_section"] == [4, 2, 2]


@pytest.mark.parametrize("name", TRAINED)
def test_its_card_says_what_it_is(name: str) -> None:
    card = (BUILTIN_MODELS[name] / "README.md").read_text()
    n_parameters = sum(parameter.numel() for parameter in find_student(name).model.parameters())
    assert f"{n_parameters:,} parameters" in card
    stated = dict(re.findall(r"^\| ([a-z.-]+) \| [\d,]+ \| ([\d.]+) \|", card, re.MULTILINE))
    assert set(stated) == set(TASKS)
    assert sum(float(accuracy) >= 75 for accuracy in stated.values()) >= 6


def test_the_other_seed_differs_in_its_weights_alone() -> None:
    one, other = BUILTIN_MODELS["tiny-llava"], BUILTIN_MODELS["tiny-llava-seed1"]
    own = {"README.md", "model.safetensors"}
    files = {file.name for file in one.iterdir()}
    assert files == {file.name for file in other.iterdir()} and own < files
    for name in files - own:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert {name: array.shape for name, array in weights.items()} == {
        name: array.shape for name, array in others.items()
    }
    matrices = [name for name, array in weights.items() if array.ndim > 1]
    correlations = [float(np.corrcoef(weights[name].ravel(), others[name].ravel())[0, 1]) for name in matrices]
    assert max(map(abs, correlations)) < 0.5


def test_the_other_seed_is_as_right_as_its_card_says() -> None:
    """Within four standard errors; that the others are, the tests of the demo tell."""
    card = (BUILTIN_MODELS["tiny-llava-seed1"] / "README.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z.-]+) \| [\d,]+ \| (.*) \|$", card, re.MULTILINE))
    for task, n_samples, right, _, controls in measure("tiny-llava-seed1", n_samples=200):
        accuracy, _, *stated = rows[task].split(" | ")
        found = [controls.get(control) for control in CONTROLS]
        for share, told in zip([right, *found], [accuracy, *stated], strict=True):
            assert (share is None) == (not told.strip())
            if share is not None:
                expected = float(told) / 100
                error = np.sqrt(expected * (1 - expected) / n_samples) + 0.005
                assert abs(share - expected) < 4 * error, (task, told)


@pytest.mark.parametrize("name", TRAINED)
def test_it_knows_every_word_of_its_tasks(name: str) -> None:
    tokenizer = load_processor(find_model(name)).tokenizer
    for task in (load_task(task, limit=60) for task in TASKS):
        words = {
            word
            for prompt in (task.prompt, "please answer: {question}", "look at the picture. {question}")
            for sample in task.samples
            for word in tokenizer.tokenize(prompt.format(question=sample.text))
        }
        assert tokenizer.unk_token not in words


@pytest.mark.parametrize("name", sorted(training.MODELS))
def test_the_script_builds_what_was_trained(name: str, tmp_path: Path) -> None:
    fresh, trained = begin(name, tmp_path / "fresh"), find_student(name)
    assert fresh.processor.tokenizer.get_vocab() == trained.processor.tokenizer.get_vocab()
    shapes = [
        {key: parameter.shape for key, parameter in student.model.named_parameters()} for student in (fresh, trained)
    ]
    assert shapes[0] == shapes[1]
    folders = (tmp_path / "fresh", BUILTIN_MODELS[name])
    configs = [json.loads((folder / "config.json").read_text(), object_hook=without_dtype) for folder in folders]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("name", sorted(training.MODELS))
def test_a_packed_question_is_taught_as_it_would_be_alone(name: str) -> None:
    student = find_student(name)
    taught = teach_scene(7)
    packed = encode_lesson(student, taught)
    assert len(packed.batch.token_ids) == 1 < len(taught)  # one row for the picture
    alone = [encode_lesson(student, [sample]) for sample in taught]
    counted = [float(lesson.weights.sum()) for lesson in alone]
    assert float(packed.weights.sum()) == pytest.approx(sum(counted))
    assert int((packed.targets != IGNORED).sum()) == sum(int((lesson.targets != IGNORED).sum()) for lesson in alone)
    with torch.inference_mode():
        together = measure_loss(student.model, packed)[0]
        apart = [measure_loss(student.model, lesson)[0] for lesson in alone]
    mean = sum(loss * weight for loss, weight in zip(apart, counted, strict=True)) / sum(counted)
    torch.testing.assert_close(together, mean, rtol=1e-4, atol=1e-5)


def test_training_asks_about_other_pictures_than_the_tasks() -> None:
    shown = {sample.image_id for name in TASKS for sample in load_task(name, limit=300).samples}
    taught = [sample.images[0] for number in range(40) for sample in (*teach_scene(number), *teach_easy_vqa(number))]
    assert not shown & {hash_pixels(source.open()) for source in set(taught)}


RECIPE = training.Recipe(seed=3, tower_steps=4, tower_pictures=2, steps=4, n_scenes=1, n_easy=1)


def weights(student: Student) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights."""
    return {key: value.clone() for key, value in student.model.state_dict().items()}


@pytest.mark.parametrize("name", sorted(training.MODELS))
def test_training_is_seeded_and_goes_on_where_it_was_stopped(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY", 1)
    first = begin(name, tmp_path / "first")
    before = weights(first)
    training.Training(first, RECIPE, tmp_path / "first").run()
    for stage in ("_train_tower", "_train_model"):
        second = begin(name, tmp_path / stage)
        stopped = training.Training(second, RECIPE, tmp_path / stage)
        save, n_saved = stopped._save, 0

        def save_and_stop(number: int, step: int, **parts: Any) -> None:
            nonlocal n_saved
            save(number, step, **parts)  # noqa: B023 - called within this turn
            n_saved += 1
            if step == 2 and ("reader" in parts) == (stage == "_train_tower"):  # noqa: B023
                raise PipelineError("stopped")

        stopped._save = save_and_stop  # type: ignore[method-assign]
        with pytest.raises(PipelineError, match="stopped"):
            stopped.run()
        again = begin(name, tmp_path / f"{stage}-again")
        training.Training(again, RECIPE, tmp_path / stage).run()
        assert all(torch.equal(value, weights(again)[key]) for key, value in weights(first).items())
    assert not all(torch.equal(value, before[key]) for key, value in weights(first).items())
    other = begin(name, tmp_path / "other")
    training.Training(other, replace(RECIPE, seed=4), tmp_path / "other").run()
    assert not all(torch.equal(value, weights(other)[key]) for key, value in weights(first).items())


def test_a_few_steps_lower_the_loss(tmp_path: Path) -> None:
    student = begin("tiny-llava", tmp_path / "fresh")
    lesson = encode_lesson(student, teach_scene(0))
    descent = training.Descent((student.model.parameters(), 1e-3), n_steps=40)
    losses = []
    for step in range(4):
        loss, _ = measure_loss(student.model, lesson)
        descent.step(step, loss)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
