"""Train a built-in model: seeded, on a CPU, in about an hour and a half of one core; stopped, it goes on where it was.

The first stage teaches the vision tower to see: from answers alone it hardly learns to. The second teaches the whole
model to answer, and to describe, what the tasks of the built-in world and easy-VQA's train split ask.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...model import find_model, load_family, load_model, load_processor
from . import tiny_llava, tiny_qwen3vl
from .course import Student, measure_loss, plan_lesson
from .optimization import Descent
from .tower import Reader, plan_look, read_features, tower_parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The settings of a training."""

    seed: int
    tower_steps: int
    tower_pictures: int
    tower_rate: float = 2e-3
    steps: int = 3000
    n_scenes: int = 12
    n_easy: int = 3
    rate: float = 1e-3
    taught_rate: float = 4e-4
    """Of the tower in the second stage: a larger one makes it forget shapes before the decoder reads them."""


MODELS = {
    "tiny-llava": (tiny_llava, {"tower_steps": 1200, "tower_pictures": 48}),
    "tiny-qwen3vl": (tiny_qwen3vl, {"tower_steps": 800, "tower_pictures": 32}),
}
SAVE_EVERY = 100


class Training:
    """One training, of which every step depends on its number alone, so that it may be stopped and gone on with."""

    def __init__(self, student: Student, recipe: Recipe, folder: Path) -> None:
        self.student = student
        self.recipe = recipe
        self._state_file = folder / "training.pt"

    def run(self) -> None:
        """Do what is left of both stages."""
        state = torch.load(self._state_file) if self._state_file.exists() else {"stage": 0, "step": 0}
        stages = (self._train_tower, self._train_model)
        for number in range(state["stage"], len(stages)):
            stages[number](state if state["stage"] == number else {"step": 0})
        self._state_file.unlink(missing_ok=True)

    def _train_tower(self, state: dict[str, Any]) -> None:
        student, recipe, model = self.student, self.recipe, self.student.model
        reader = Reader(model.config.get_text_config().hidden_size)
        learning = [*tower_parameters(model), *reader.parameters()]
        descent = Descent((learning, recipe.tower_rate), n_steps=recipe.tower_steps)
        self._restore(state, model=model, reader=reader, descent=descent)
        for step in range(state["step"], recipe.tower_steps):
            images, seen = plan_look(student, step, n_pictures=recipe.tower_pictures, seed=recipe.seed)
            loss, right = reader.measure_loss(read_features(model, images), seen)
            descent.step(step, loss)
            self._report("tower", step, recipe.tower_steps, loss, right)
            self._save(0, step + 1, model=model, reader=reader, descent=descent)

    def _train_model(self, state: dict[str, Any]) -> None:
        student, recipe, model = self.student, self.recipe, self.student.model
        tower = tower_parameters(model)
        taught = {id(parameter) for parameter in tower}
        decoder = [parameter for parameter in model.parameters() if id(parameter) not in taught]
        descent = Descent((decoder, recipe.rate), (tower, recipe.taught_rate), n_steps=recipe.steps)
        self._restore(state, model=model, descent=descent)
        for step in range(state["step"], recipe.steps):
            lesson = plan_lesson(student, step, n_scenes=recipe.n_scenes, n_easy=recipe.n_easy, seed=recipe.seed)
            loss, right = measure_loss(model, lesson)
            descent.step(step, loss)
            self._report("model", step, recipe.steps, loss, right)
            self._save(1, step + 1, model=model, descent=descent)

    @staticmethod
    def _restore(state: dict[str, Any], **parts: Any) -> None:
        for name, part in parts.items():
            if name in state:
                part.load_state_dict(state[name])

    def _save(self, stage: int, step: int, **parts: Any) -> None:
        if step % SAVE_EVERY == 0:
            partial = self._state_file.with_suffix(".partial")
            torch.save(
                {"stage": stage, "step": step} | {name: part.state_dict() for name, part in parts.items()}, partial
            )
            partial.replace(self._state_file)

    @staticmethod
    def _report(stage: str, step: int, n_steps: int, loss: torch.Tensor, right: torch.Tensor) -> None:
        if step % 50 == 0 or step == n_steps - 1:
            print(f"{stage} step {step}/{n_steps}: loss {loss.item():.4f}, right {right.item():.3f}", flush=True)


def main() -> None:
    """Train and write the checkpoint folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("out", type=Path, help="the folder to write the checkpoint to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape, settings = MODELS[arguments.model]
    out: Path = arguments.out
    if not (out / "config.json").exists():
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(arguments.seed)
        shape.write_untrained(out)
    source = find_model(str(out))
    student = Student(
        model=load_model(source, weights_dtype="float32").train(),
        processor=load_processor(source),
        family=load_family(source),
    )
    print(json.dumps({"n_parameters": sum(p.numel() for p in student.model.parameters())}), flush=True)
    torch.manual_seed(arguments.seed)
    Training(student, Recipe(seed=arguments.seed, **settings), out).run()
    student.model.eval().save_pretrained(out)


if __name__ == "__main__":
    main()
