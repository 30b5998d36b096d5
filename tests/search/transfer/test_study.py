from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from search.errors import SearchError
from search.transfer.study import Figure, StudyPlan, Values, identify_runs, make_study, open_study
from storage import Run, open_dataset
from storage.errors import BlockDamagedError
from tests.server.static import StaticServer

from .world import draw_labels, plant_run, search_best


def make_plan(**identity: Any) -> StudyPlan:
    return StudyPlan(
        kind="squares",
        owner="m",
        cell_dims=("row", "column"),
        coordinates={"row": np.array(["a", "b"]), "column": np.arange(3), "power": np.array([1, 2])},
        figures={
            "value": Figure(description="a number to a power", dims=("power",)),
            "count": Figure(description="how many", dtype="i4", fill=-1),
        },
        identity=identity,
    )


def compute(place: tuple[int, ...]) -> Values:
    row, column = place
    return {"value": [row + column, (row + column) ** 2], "count": column}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study") / "store"


@pytest.fixture(scope="module")
def home(folder: Path) -> Run:
    return plant_run(folder, "m/a", labels=draw_labels(2), signals={})


def test_cells_are_put_in_their_places_and_labelled(home: Run) -> None:
    study = make_study(make_plan(), compute, home=home, save=False)
    assert dict(study.sizes) == {"row": 2, "column": 3, "power": 2}
    assert study.value.dims == ("row", "column", "power")
    assert study.value.sel(row="b", column=2, power=2) == 9
    assert study["count"].values.tolist() == [[0, 1, 2]] * 2
    assert study["count"].dtype == np.int32
    assert study.value.attrs == {"description": "a number to a power"}
    assert study.attrs == {"kind": "squares", "owner": "m"}


def test_figures_that_a_cell_does_not_tell_are_empty_and_strange_ones_are_refused(home: Run) -> None:
    study = make_study(make_plan(), lambda _: {}, home=home, save=False)
    assert np.isnan(study.value).all()
    assert (study["count"] == -1).all()
    with pytest.raises(SearchError, match="study squares: expected figures .*found \\['other'\\]"):
        make_study(make_plan(), lambda _: {"other": 1}, home=home, save=False)
    with pytest.raises(SearchError, match="study squares, value: expected shape \\(2,\\), found \\(3,\\)"):
        make_study(make_plan(), lambda _: {"value": [1, 2, 3]}, home=home, save=False)


def test_a_study_that_was_interrupted_goes_on_cell_by_cell(folder: Path, home: Run) -> None:
    plan, asked = make_plan(test="interrupted"), []

    def compute_some(place: tuple[int, ...]) -> Values:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(place)
        return compute(place)

    with pytest.raises(KeyboardInterrupt):
        make_study(plan, compute_some, home=home, save=True)
    first = list(asked)
    asked.clear()
    study = make_study(plan, compute_some, home=home, save=True)
    assert len(first) == 4
    assert sorted(first + asked) == [(row, column) for row in range(2) for column in range(3)]
    xarray.testing.assert_equal(study, make_study(plan, compute, home=home, save=False))
    assert study.attrs["path"].startswith("_transfer/m/squares-")
    opened = open_study(open_dataset(folder), study.attrs["path"])
    xarray.testing.assert_equal(opened.load(), study)


def test_a_study_is_opened_from_a_web_server_that_lists_nothing(folder: Path, home: Run) -> None:
    study = make_study(make_plan(test="web"), compute, home=home, save=True)
    with StaticServer(folder, ranges=True) as server:
        opened = open_study(open_dataset(server.url), study.attrs["path"]).load()
    xarray.testing.assert_identical(opened, study)


def test_a_study_that_is_kept_is_read_where_nothing_can_be_written(folder: Path, home: Run) -> None:
    plan = make_plan(test="read only")
    study = make_study(plan, compute, home=home, save=True)

    def refuse(place: tuple[int, ...]) -> Values:
        raise AssertionError(f"computed {place} again")

    with StaticServer(folder, ranges=True) as server:
        home_there = open_dataset(server.url).run("m/a")
        xarray.testing.assert_identical(make_study(plan, refuse, home=home_there, save=False), study)
        with pytest.raises(AssertionError, match="computed"):
            make_study(make_plan(test="not kept"), refuse, home=home_there, save=False)


def test_studies_of_other_identity_are_others(home: Run) -> None:
    paths = {make_plan(seed=seed).path for seed in (0, 1)} | {make_plan(seed=0).path}
    more = replace(make_plan(seed=0), figures={**make_plan().figures, "other": Figure(description="more")})
    assert len(paths | {more.path}) == 3


def test_what_was_altered_in_the_store_is_no_study(folder: Path, home: Run) -> None:
    plan = make_plan(test="altered")
    study = make_study(plan, compute, home=home, save=True)
    pieces = folder / study.attrs["path"] / "figures" / "value" / "c"
    shard = next(path for path in sorted(pieces.rglob("*")) if path.is_file())
    shard.chmod(0o644)
    content = bytearray(shard.read_bytes())
    content[3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BlockDamagedError, match="move the folder _transfer"):
        make_study(plan, compute, home=home, save=True)


def test_identity_tells_selections_apart(home: Run) -> None:
    told = [identify_runs([search_best(home, count=count)])["m/a"] for count in (1, 2)]
    assert told[0]["scan"] == told[1]["scan"]
    assert told[0]["selection"] != told[1]["selection"]
