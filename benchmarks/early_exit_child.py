"""What is measured in a process of its own: the memory of loading a model and answering one question.

It prints one line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.extraction_child import pin_process
from benchmarks.storage_child import ROOT, read_memory

Answering = Callable[[], object]


def run_child(**arguments: Any) -> dict[str, float]:
    """Return what `measure_memory` returns in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.early_exit_child", json.dumps(arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own file
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def answer_early(*, model: str, classifier: str, picture: str, question: str) -> Answering:
    """Return what loads the classifier with the first layers of a model and answers."""
    from pipeline.early_exit.classifier import EarlyExitClassifier

    return lambda: EarlyExitClassifier.load(classifier, model=model).classify(picture, question)


def answer_fully(*, model: str, classifier: str, picture: str, question: str) -> Answering:
    """Return what loads the whole model and finds the first token of its answer; the classifier gives the prompt."""
    from benchmarks.early_exit_peer import FullModel
    from pipeline.early_exit.question import as_source, make_samples
    from pipeline.model import find_model
    from search.classifier_file import read_classifier

    portable = read_classifier(classifier)
    samples = make_samples([as_source(picture)], [question], options=portable.options)
    return lambda: FullModel(find_model(model), prompt=str(portable.prompt)).answer(samples)


WAYS = {"early": answer_early, "full": answer_fully}


def measure_memory(*, way: str, threads: int, model: str, **asked: str) -> dict[str, float]:
    """Answer in this process; return its largest resident memory, and that less the memory before it loads the model.

    Before, everything is imported. The kernel's high-water mark is used (VmHWM): ``ru_maxrss`` would begin with the
    parent's own peak.
    """
    import torch

    from pipeline.model import find_model, load_empty_model

    pin_process(threads)
    torch.set_num_threads(threads)
    answer = WAYS[way](model=model, **asked)
    load_empty_model(find_model(model))  # the classes of the model are imported by this
    Path("/proc/self/clear_refs").write_text("5")  # sets the mark back to what is resident now
    before = read_memory("VmRSS")
    answer()
    peak = read_memory("VmHWM")
    return {"peak_bytes": peak, "growth_bytes": peak - before}


if __name__ == "__main__":
    print(json.dumps(measure_memory(**json.loads(sys.argv[1]))))
