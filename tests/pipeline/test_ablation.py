"""Ablation: in a model whose answer hangs on one known unit, what is replaced and what flips is known in advance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
from safetensors.torch import load_file, save_file

from pipeline.ablation.condition import (
    AblationSpec,
    Neuron,
    collect_scores,
    find_others,
    match_scores,
    plan_bundles,
    plan_conditions,
    plan_replacements,
    rank_super_neurons,
)
from pipeline.ablation.study import ablate_run, read_means, rebuild_request, validate_request
from pipeline.ablation.trial import judge_claim
from pipeline.cli import main
from pipeline.engine.job import BlockJob, BlockReport, Compute, Engine, OnReport
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.serial import SerialEngine
from pipeline.errors import ModelNotFoundError, PipelineError
from pipeline.extraction import extract
from pipeline.inference.extractor import Extractor, Question, Reading
from pipeline.inference.recorder import Replacement
from pipeline.model import BUILTIN_MODELS, find_model, load_family, load_model, load_processor
from pipeline.request import RunRequest
from pipeline.settings import ExtractionSettings
from pipeline.task import Task, load_task
from search.scan import read_block
from search.searched_run import SearchedRun, choose_neurons
from search.selection import Selection
from storage import Dataset, Run, open_dataset
from storage.errors import RunMismatchError
from storage.ledger import read_entries
from storage.schema import SITES
from tests.search.planted import make_planted_run

from .engine import compute
from .test_extractor import encode_alone

N, LAST = 100, 11
SPEC = AblationSpec(n_draws=2, max_neurons=1)
CONTROLS = ("layer_matched-0", "layer_matched-1", "score_matched")


@dataclass(frozen=True)
class Planted:
    """A store with one run, of a model that answers by the sign of `unit` of the last layer's residual stream."""

    store: Path
    folder: Path
    task: Task
    unit: int

    @property
    def dataset(self) -> Dataset:
        return open_dataset(self.store)

    @property
    def run(self) -> Run:
        return self.dataset.run(f"planted/{self.task.name}")

    @property
    def request(self) -> RunRequest:
        return replace(rebuild_request(self.run, model=str(self.folder)), task=self.task)

    def search(self) -> SearchedRun:
        best = Selection(select="top_k", n_neurons=1, max_q=None)
        return choose_neurons(self.run, rule="zero", selection=best)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Compute here as a worker does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    source = find_model("tiny-llava")
    model = load_model(source, weights_dtype="float32")
    return Extractor(model, load_processor(source), load_family(source), reading=Reading(sites=SITES))


@pytest.fixture(scope="module")
def task() -> Task:
    """Return one question about each of some pictures, so that answers are independent."""
    whole = load_task("easy-vqa.yes-no")
    first = {sample.image_id: sample for sample in reversed(whole.samples)}
    return replace(whole, samples=tuple(reversed(first.values()))).head(N)


@pytest.fixture(scope="module")
def question(task: Task) -> Question:
    return Question(template=task.prompt, options=task.options, greedy=False)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, extractor: Extractor, task: Task, question: Question) -> Planted:
    """Cut the built-in model's output down to one unit, and call right what that unit says."""
    folder = tmp_path_factory.mktemp("planted")
    residual = extractor.extract(task.samples, question, batch_size=32).values["residual"][:, 0]
    differs = (np.sign(residual[:, LAST]) != np.sign(residual[:, LAST - 1])).sum(axis=0)
    balance = np.abs((residual[:, LAST] > 0).mean(axis=0) - 0.4) + (differs < 10)
    unit = int(np.argmin(balance))
    checkpoint = shutil.copytree(BUILTIN_MODELS["tiny-llava"], folder / "planted")
    weights = load_file(checkpoint / "model.safetensors")
    (norm,) = [name for name in weights if name.endswith("model.norm.weight")]
    (head,) = [name for name in weights if name.endswith("lm_head.weight")]
    (no,), (yes,) = option_tokens(extractor, task)
    weights[norm] = torch.zeros_like(weights[norm])
    weights[norm][unit] = 1
    weights[head][:, unit] = 0
    weights[head][no, unit], weights[head][yes, unit] = -1, 1
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    says = (residual[:, LAST, unit] > 0).astype(int).tolist()
    samples = [replace(sample, label=label) for sample, label in zip(task.samples, says, strict=True)]
    own = replace(task, samples=tuple(samples))
    settings = ExtractionSettings(sites=("residual",), lens=False, greedy=False, batch_size=32, dtype="float32")
    request = RunRequest(source=find_model(str(checkpoint)), task=own, settings=settings)
    extract(folder / "store", [request], engine=SerialEngine())
    return Planted(folder / "store", checkpoint, own, unit)


def option_tokens(extractor: Extractor, task: Task) -> list[list[int]]:
    from pipeline.inference.encoding import Encoder
    from pipeline.inference.prompt import find_option_tokens

    encoder = Encoder(extractor.model, extractor.family, extractor.processor, template=task.prompt)
    return find_option_tokens(extractor.processor.tokenizer, encoder.render(task.samples[0]), task.options)


@pytest.fixture
def own_copy(planted: Planted, tmp_path: Path) -> Planted:
    """Return the planted store in a place where this test alone writes."""
    return replace(planted, store=shutil.copytree(planted.store, tmp_path / "store"))


@pytest.fixture(scope="module")
def study(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> xarray.Dataset:
    return ablate(replace(planted, store=shutil.copytree(planted.store, tmp_path_factory.mktemp("study") / "store")))


def ablate(planted: Planted, engine: Engine | None = None, *, save: bool = False) -> xarray.Dataset:
    searched = planted.search()
    engine = engine or SerialEngine()
    return ablate_run(planted.dataset, searched, planted.request, engine=engine, spec=SPEC, save=save)


def test_evidence_equals_that_of_hooks_made_by_hand(extractor: Extractor, task: Task, question: Question) -> None:
    """Each sample alone through the model's own classes, the last position changed by plain hooks."""
    neurons = [Neuron("residual", 4, 3), Neuron("residual", 4, 60), Neuron("mlp", 2, 200), Neuron("heads", 7, 11)]
    values = dict(zip(neurons, (0.0, 0.7, -1.5, 0.0), strict=True))
    change = plan_replacements(neurons, values, where="last")
    few = task.samples[:6]
    found = extractor.answer(few, question, ablations=[(), change], batch_size=4).values
    assert found["valid"].all() and found["evidence"].shape == (6, 2, 2)
    layers: Any = extractor.model.get_decoder().layers
    modules = {"mlp": lambda layer: layer.mlp.down_proj, "heads": lambda layer: layer.self_attn.o_proj}
    for row, sample in enumerate(few):
        for column, changed in enumerate(([], neurons)):
            with ExitStack() as hooks:
                for neuron in changed:
                    change_by_hand(hooks, layers[neuron.layer], modules, neuron, values[neuron])
                with torch.inference_mode():
                    logits = extractor.model(**encode_alone(extractor, task, sample)).logits[0, -1]
            expected = [logits.log_softmax(-1)[ids].logsumexp(-1).item() for ids in option_tokens(extractor, task)]
            np.testing.assert_allclose(found["evidence"][row, column], expected, atol=1e-5)
    assert np.abs(found["evidence"][:, 0] - found["evidence"][:, 1]).max() > 1e-2


def change_by_hand(hooks: ExitStack, layer: Any, modules: Any, neuron: Neuron, value: float) -> None:
    def on_output(_module: Any, _inputs: Any, output: Any) -> None:
        (output[0] if isinstance(output, tuple) else output)[:, -1, neuron.unit] = value

    def on_input(_module: Any, inputs: Any) -> None:
        inputs[0][:, -1, neuron.unit] = value

    if neuron.site == "residual":
        handle = layer.register_forward_hook(on_output)
    else:
        handle = modules[neuron.site](layer).register_forward_pre_hook(on_input)
    hooks.callback(handle.remove)


def test_the_model_as_it_is_answers_as_when_it_is_recorded(
    extractor: Extractor, task: Task, question: Question
) -> None:
    recorded = extractor.extract(task.samples[:40], question, batch_size=8).values["option_logit"]
    asked = extractor.answer(task.samples[:40], question, ablations=[()], batch_size=8).values["evidence"]
    np.testing.assert_array_equal(asked[:, 0], recorded)


@pytest.mark.parametrize("site", SITES)
def test_own_values_change_nothing(extractor: Extractor, task: Task, question: Question, site: Any) -> None:
    sample = task.samples[5:6]
    own = extractor.extract(sample, question, batch_size=1).values[site][0, 0, 6]
    change = Replacement(site=site, layer=6, units=tuple(range(len(own))), values=tuple(own.tolist()))
    evidence = extractor.answer(sample, question, ablations=[(), (change,)], batch_size=1).values["evidence"]
    np.testing.assert_allclose(evidence[0, 1], evidence[0, 0], atol=1e-6)


def test_an_excluded_sample_has_no_evidence(extractor: Extractor, task: Task, question: Question) -> None:
    few = task.samples[:3]
    found = extractor.answer(few, question, ablations=[()], batch_size=4, excluded={few[1].sample_id: "it kills"})
    assert found.quarantined == {few[1].sample_id: "it kills"}
    assert np.isnan(found.values["evidence"]).any(axis=(1, 2)).tolist() == [False, True, False]
    assert found.values["valid"].tolist() == [True, False, True]


def test_the_unit_that_the_answer_hangs_on_is_the_super_neuron(planted: Planted) -> None:
    searched = planted.search()
    assert rank_super_neurons(searched) == [("residual", LAST, planted.unit)]
    assert searched.super_neurons.contrasts[0].score.tolist() == [1.0]


def test_what_flips_without_the_planted_unit_is_known_in_advance(planted: Planted, study: xarray.Dataset) -> None:
    """Zero ties all options, and the first one wins; a mean answers by its sign; other units only scale the norm."""
    supervision = planted.search().supervision
    test, probe = supervision.rows("test"), supervision.rows("probe")
    says_yes = (supervision.labels[test] == 1).mean()
    mean = planted.run.read_columns("residual", layer=LAST, units=slice(planted.unit, planted.unit + 1))[probe].mean()
    expected = {"zero": says_yes, "mean": 1 - says_yes if mean > 0 else says_yes}
    assert 0.1 < says_yes < 0.9
    assert study["condition"].values.tolist() == [
        "none",
        *(f"{group}/{value}" for value in ("mean", "zero") for group in ("super_neurons", *CONTROLS)),
    ]
    none = study.sel(condition="none")
    assert (none.accuracy, none.n_neurons, none.n) == (1, 0, len(test))
    assert np.isnan([none.flipped, none.margin, none.more_flips]).all()
    for value, share in expected.items():
        own = study.sel(condition=f"super_neurons/{value}")
        assert own.flipped == own.right_to_wrong == share and own.wrong_to_right == 0
        assert own.accuracy == pytest.approx(1 - share)
        assert own.flipped_low < share < own.flipped_high
        assert own.margin < 0 and own.score == 1 and np.isnan(own.more_flips)
        for control in CONTROLS:
            other = study.sel(condition=f"{control}/{value}")
            assert other.flipped == 0 and other.accuracy == 1 and other.n_neurons == 1
            assert other.more_flips == other.more_wrong == share
            assert other.more_flips_low > 0 and other.more_flips_p < 0.05
            assert other.score < 1
    claim = judge_claim(study)
    assert (claim.n_controls, claim.n_beaten, claim.n_short, claim.holds) == (6, 6, 0, True)


def test_one_control_that_is_not_beaten_or_not_fair_forbids_the_word(study: xarray.Dataset) -> None:
    for name, value in (("more_flips_p", 0.06), ("more_flips", -0.5), ("n_neurons", 0)):
        other = study.copy(deep=True)
        other[name].loc["score_matched/zero"] = value
        assert not judge_claim(other).holds
    assert not judge_claim(study.sel(condition=["none", "super_neurons/mean"])).holds


def test_ray_and_this_process_give_the_same_figures(
    ray_session: None, own_copy: Planted, study: xarray.Dataset
) -> None:
    xarray.testing.assert_identical(ablate(own_copy, RayEngine(n_workers=2)), study)


class Watch:
    """An engine that computes in this process, tells of its jobs, and is cut off after some."""

    def __init__(self, *, n_jobs: int | None = None) -> None:
        self.jobs: list[BlockJob] = []
        self._n_jobs = n_jobs

    @contextmanager
    def open(self) -> Iterator[Compute]:
        yield self._compute

    def _compute(self, jobs: Sequence[BlockJob], on_report: OnReport) -> None:
        self.jobs += jobs
        compute(SerialEngine(), jobs[: self._n_jobs], on_report)
        if self._n_jobs is not None:
            raise KeyboardInterrupt


def test_a_condition_that_is_kept_is_not_computed_again(own_copy: Planted, study: xarray.Dataset) -> None:
    cut = Watch(n_jobs=1)
    with pytest.raises(KeyboardInterrupt):
        ablate(own_copy, cut, save=True)
    assert [len(job.ablations) for job in cut.jobs] == [3, 4, 2]
    rest = Watch()
    finished = ablate(own_copy, rest, save=True)
    assert [len(job.ablations) for job in rest.jobs] == [3, 4, 2]  # the first are what the others are compared with
    xarray.testing.assert_equal(finished, study)
    again = Watch()
    xarray.testing.assert_equal(ablate(own_copy, again, save=True), study)
    assert again.jobs == []
    assert [entry["study"] for entry in read_entries(own_copy.run)] == [finished.attrs["path"]] * 2
    kept = xarray.open_zarr(own_copy.dataset.store, group=f"{finished.attrs['path']}/figures", consolidated=False)
    np.testing.assert_array_equal(kept["flipped"], study["flipped"])


def test_only_what_is_pending_is_bundled_behind_what_it_is_compared_with(planted: Planted) -> None:
    conditions = plan_conditions(planted.search(), SPEC)
    assert plan_bundles(conditions, [0, 1, 2]) == [(0, 1), (2,)]
    assert plan_bundles(conditions, [8]) == [(0, 5), (8,)]
    assert plan_bundles(conditions, [3, 4, 6, 7, 8]) == [(0, 1, 5), (3, 4, 6, 7), (8,)]


def test_another_model_task_or_setting_is_refused(planted: Planted) -> None:
    with pytest.raises(ModelNotFoundError, match="run planted/easy-vqa.yes-no: model 'planted'.*or say with --model"):
        rebuild_request(planted.run)
    request = planted.request
    for other, named in (
        (rebuild_request(planted.run, model="tiny-llava"), "model_id = 'planted', asked for model_id = 'tiny-llava'"),
        (replace(request, task=load_task("easy-vqa.yes-no", limit=N)), f"samples 0 to {N} = "),
        (replace(request, settings=replace(request.settings, batch_size=7)), "batch_size = 32, asked for batch_size"),
    ):
        with pytest.raises(RunMismatchError, match=named):
            ablate_run(planted.dataset, planted.search(), other, engine=SerialEngine())
    validate_request(planted.dataset, planted.run, request)


@dataclass(frozen=True)
class Answers:
    """An engine that computes nothing and answers what the run holds, changed; a report for each job."""

    planted: Planted
    change: Callable[[BlockReport], BlockReport]

    @contextmanager
    def open(self) -> Iterator[Compute]:
        yield self._compute

    def _compute(self, jobs: Sequence[BlockJob], on_report: OnReport) -> None:
        run = self.planted.run
        stored, ids = run.read_samples("option_logit"), run.read_samples("sample_id").tolist()
        for job in jobs:
            own = stored[[ids.index(sample.sample_id) for sample in job.samples]]
            evidence = np.repeat(own[:, None], len(job.ablations), axis=1)
            report = BlockReport(
                run=job.run, block=job.block.index, n_samples=len(own), compute_s=0, pid=0, evidence=evidence
            )
            on_report(self.change(report))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda report: replace(report, evidence=report.evidence[..., ::-1]), "expected the answer '.*' that the run"),
        (lambda report: replace(report, evidence=report.evidence * np.nan), "condition none: expected evidence, found"),
        (lambda report: replace(report, evidence=None), "expected evidence of .* samples under 3 conditions, found"),
        (lambda report: replace(report, quarantined={"x": "torn"}), "sample x: expected an answer, .* found: torn"),
    ],
)
def test_answers_that_cannot_be_are_refused(own_copy: Planted, change: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        ablate(own_copy, Answers(own_copy, change))


def test_rounding_is_no_other_model(own_copy: Planted) -> None:
    def round_off(report: BlockReport) -> BlockReport:
        assert report.evidence is not None
        return replace(report, evidence=report.evidence + np.float32(1e-5))

    study = ablate(own_copy, Answers(own_copy, round_off))
    assert np.nanmax(study["flipped"]) == 0 and (study["accuracy"] == 1).all()


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_planted_run(tmp_path_factory.mktemp("noise"), options=("a", "b", "c"), n_samples=300)


def test_controls_are_of_the_same_layers_and_near_in_score(noise: Run) -> None:
    many = Selection(select="top_k", n_neurons=9, max_q=None)
    searched = choose_neurons(noise, selection=many)
    spec = AblationSpec(values=("mean",), n_draws=3, max_neurons=9)
    _, own, *controls = plan_conditions(searched, spec)
    ranked, scores = rank_super_neurons(searched), collect_scores(searched)
    assert own.neurons == tuple(ranked[:9]) and len(set(ranked)) == len(ranked) > 9
    assert {neuron.unit for neuron in own.neurons[:3]} == {600, 601, 602}  # the best of each contrast comes first
    assert [control.name for control in controls] == [f"layer_matched-{d}/mean" for d in range(3)] + [
        "score_matched/mean"
    ]
    for control in controls:
        assert sorted(n[:2] for n in control.neurons) == sorted(n[:2] for n in own.neurons)
        assert not set(control.neurons) & set(ranked) and len(set(control.neurons)) == 9
    assert len({control.neurons for control in controls}) == 4
    assert plan_conditions(searched, spec)[2:] == controls
    assert plan_conditions(searched, replace(spec, seed=1))[2].neurons != controls[0].neurons
    matched = controls[-1]
    left = find_others(scores, ranked)
    for place in {n[:2] for n in own.neurons}:
        known = scores[place]
        best = max(known[n.unit] for n in own.neurons if n[:2] == place)
        nearest = np.abs(known[left[place]] - best).min()
        assert any(abs(known[n.unit] - best) == nearest for n in matched.neurons if n[:2] == place)


def test_a_neuron_is_matched_once_and_ties_go_to_the_lower_unit() -> None:
    scores = {("mlp", 0): np.array([0.9, 0.8, 0.5, 0.6, 0.7, np.nan, 0.6])}
    chosen = [Neuron("mlp", 0, 1), Neuron("mlp", 0, 0)]
    others = find_others(scores, chosen)  # type: ignore[arg-type]
    assert others["mlp", 0].tolist() == [2, 3, 4, 6]
    assert match_scores(chosen, scores, others) == [Neuron("mlp", 0, 4), Neuron("mlp", 0, 3)]  # type: ignore[arg-type]


def test_a_layer_without_enough_others_gives_those_it_has(noise: Run) -> None:
    """Sites of 4 and 6 units, most of which are chosen."""
    searched = choose_neurons(
        noise, sites=("residual", "heads"), selection=Selection(select="top_k", n_neurons=8, max_q=None)
    )
    ranked = rank_super_neurons(searched)
    n_left = {place: len(units) for place, units in find_others(collect_scores(searched), ranked).items()}
    expected = sum(min(n, sum(r[:2] == place for r in ranked)) for place, n in n_left.items())
    _, own, *controls = plan_conditions(searched, AblationSpec(values=("zero",), n_draws=1))
    assert len(own.neurons) == len(ranked) > expected > 0
    assert [len(control.neurons) for control in controls] == [expected, expected]


def test_without_a_super_neuron_there_is_nothing_to_ablate(noise: Run) -> None:
    searched = choose_neurons(noise, sites=("heads",))
    with pytest.raises(
        PipelineError, match="run planted/task: expected Super Neurons of token 0 to replace, found none"
    ):
        plan_conditions(searched, AblationSpec())


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_means_are_those_of_the_columns_each_block_read_once(
    noise: Run, monkeypatch: pytest.MonkeyPatch, scheduler: str
) -> None:
    """Noise is centred at 0, but unit 600 is 10 higher for one label of three."""
    seen = []

    def count(run: Run, block: Any) -> Any:
        seen.append(block)
        return read_block(run, block)

    monkeypatch.setattr("pipeline.ablation.study.read_block", count)
    rows = np.flatnonzero(noise.read_samples("valid"))[::2]
    neurons = [Neuron("mlp", 1, 600), Neuron("mlp", 1, 3), Neuron("mlp", 1, 699), Neuron("heads", 2, 0)]
    means = read_means(noise, neurons, rows, scheduler=scheduler)
    for neuron, mean in means.items():
        column = noise.read_columns(neuron.site, layer=neuron.layer, units=slice(neuron.unit, neuron.unit + 1))
        assert mean == pytest.approx(column[rows, 0].astype(np.float64).mean(), abs=1e-12)
    assert means.keys() == set(neurons) and len(seen) == len(set(seen)) == 3
    share = (noise.read_samples("label")[rows] == 0).mean()
    assert abs(means[neurons[0]] - 10 * share) < 0.4 and abs(means[neurons[1]]) < 0.4
    assert means[neurons[1]] == read_means(noise, neurons[1:2], rows)[neurons[1]]  # whatever else is asked for


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["superneurons", "ablate", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def words(own_copy: Planted, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what names the planted run on a command line; its task is known by the labels that were planted."""
    monkeypatch.setattr("pipeline.ablation.study.load_task", lambda *_, limit: own_copy.task.head(limit))
    run = f"planted/{own_copy.task.name}"
    return [str(own_copy.store), "--run", run, "--draws", "2", "--max-neurons", "1", "--max-q", "1", "--serial"]


def test_the_command_prints_a_table_and_the_word_that_is_earned(
    words: list[str],
    own_copy: Planted,
    study: xarray.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words += ["--model", str(own_copy.folder)]
    assert call(monkeypatch, *words) == 0
    printed = capfd.readouterr().out
    share = float(study["flipped"].sel(condition="super_neurons/zero"))
    (line,) = [line for line in printed.splitlines() if line.startswith("super neurons") and "zero" in line]
    assert f"{100 * share:.1f} (" in line and f"{100 - 100 * share:.1f} (" in line
    assert "planted/easy-vqa.yes-no uses its Super Neurons: replacing 1 of " in printed
    assert "flips more answers than each of 6 matched controls (p <= 0.05)." in printed
    assert call(monkeypatch, *words, "--json") == 0
    (told,) = json.loads(capfd.readouterr().out)["runs"]
    assert told["claim"] == {"n_controls": 6, "n_beaten": 6, "n_short": 0, "uses": True}
    assert [row["condition"] for row in told["conditions"]] == study["condition"].values.tolist()
    assert told["conditions"][0]["flipped"] is None and told["conditions"][5]["flipped"] == share
    assert len(list((own_copy.store / "_transfer" / "planted").iterdir())) == 2  # its document, and one study


def test_without_flips_the_word_is_not_said(
    words: list[str], own_copy: Planted, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = Answers(own_copy, lambda report: report)
    monkeypatch.setattr("pipeline.command.extract.make_engine", lambda *_, **__: engine)
    assert call(monkeypatch, *words, "--model", str(own_copy.folder), "--value", "mean", "--no-save") == 0
    printed = capfd.readouterr().out
    assert "flips more answers than 0 of 3 matched controls (p <= 0.05); that is no ground to say more." in printed
    assert "uses" not in printed
    assert not (own_copy.store / "_transfer").exists() and not (own_copy.store / "_search").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--value", "median"], "value 'median': expected one of mean, zero"),
        (["--where", "first"], "where 'first': expected one of last, everywhere"),
        (["--model", "tiny-llava"], "made with model_id = 'planted', asked for model_id = 'tiny-llava'"),
        ([], "or say with --model where its model is"),
        (["--run", "planted/other"], "expected one of its runs"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    words: list[str],
    more: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if "--run" in more:
        words = [word for word in words if not word.startswith("planted/") and word != "--run"]
    assert call(monkeypatch, *words, *more) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.strip()]
    assert line.startswith("superneurons: ") and expected in line
