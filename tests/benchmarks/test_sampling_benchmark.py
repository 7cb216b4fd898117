"""Other libraries get gliodil's problems as they are; runs are told apart by their settings."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gliodil.sampling.derivatives import coordinates
from gliodil.sampling.domain import Box
from gliodil.sampling.problems.catalogue import PROBLEMS
from gliodil.sampling.problems.problem import Problem

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def sampling() -> ModuleType:
    import sampling

    return sampling


def points(box: Box, count: int = 50) -> torch.Tensor:
    unit = torch.rand(count, box.dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return box.from_unit(unit)


def test_jets_by_autograd_and_at_a_point_are_those_of_jet_arithmetic() -> None:
    from peers.statement import jet_at, jet_of

    problem = Problem(
        name="rows",
        box=Box((-1.0, 0.0), (1.0, 2.0)),
        second_order=((1.0, 0.0), (2.0, -1.0)),
        residual=lambda x, u, scalars: u.value,
    )
    x = points(problem.box).requires_grad_()
    a, b = coordinates(x.detach(), problem.second_order)
    expected = ((a * b).sin() * b.exp()).streams

    def function(y: torch.Tensor) -> torch.Tensor:
        return (y[..., 0] * y[..., 1]).sin() * y[..., 1].exp()

    by_autograd = jet_of(problem, x, function(x)[:, None]).streams
    at_points = torch.func.vmap(lambda y: jet_at(problem, y, function).streams[:, 0])(x.detach()).T
    assert torch.allclose(by_autograd, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(at_points, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["poisson", "ring-layer", "helmholtz", "disk", "moving-peak"])
def test_the_exact_solution_has_no_residual_as_peers_state_it(name: str) -> None:
    from peers.statement import interior, jet_of

    problem = PROBLEMS[name]()
    assert problem.exact is not None
    x = points(problem.box, 400).requires_grad_()
    right = problem.exact(x)[:, None]
    residual = interior(problem, x, jet_of(problem, x, right))
    wrong = interior(problem, x, jet_of(problem, x, right + x.sin().prod(1, keepdim=True)))
    assert residual.abs().max() < 1e-9 * wrong.abs().max()
    if problem.inside is not None:
        assert not wrong[~problem.inside(x)].any()


def test_hard_conditions_hold_whatever_the_network_says() -> None:
    from peers.statement import harden

    problem = PROBLEMS["burgers"]()
    assert problem.exact is not None
    x = points(problem.box)
    at_first = torch.stack([x[:, 0], torch.zeros_like(x[:, 1])], 1)
    u = harden(problem, at_first, torch.randn(50, 1, dtype=torch.float64))[:, 0]
    assert torch.allclose(u, -(torch.pi * x[:, 0]).sin(), atol=1e-12)


def test_looking_takes_no_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from peers import Task, watch

    now = [0.0]
    monkeypatch.setattr(watch.time, "process_time", lambda: now[0])

    def predict(x: torch.Tensor) -> torch.Tensor:
        now[0] += 100.0
        return torch.zeros_like(x[:, 0])

    running = watch.Watch(Task(PROBLEMS["poisson"](), (4,), 60.0, 0), predict)
    over = []
    for _ in range(4):
        now[0] += 0.5
        over.append(running.tick(until=2.0))
    assert over == [False, False, False, True]
    # One look a second at this budget, the first at once; zero is wrong by all of the solution.
    assert [round(record[0], 9) for record in running.history] == [0.5, 1.5]
    assert [record[1] for record in running.history] == pytest.approx([1.0, 1.0])


def options(**changed: object) -> argparse.Namespace:
    asked = {"seeds": 1, "problems": ["poisson"], "quick": True, "budget_s": None, "samplers": ["uniform"]}
    return argparse.Namespace(**(asked | {"optimizers": ["lm"], "peers": ["deepxde-adam"]} | changed))


def test_a_peer_that_is_not_installed_is_left_out_and_named(
    sampling: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = replace(sampling.PEERS["deepxde-adam"], needs="no_such_library")
    monkeypatch.setitem(sampling.PEERS, "deepxde-adam", absent)
    assert [job["method"] for job in sampling.jobs(options())] == ["uniform + lm"]
    said = capsys.readouterr().err
    assert said == "deepxde-adam is left out: no_such_library is not installed (pip install deepxde)\n"


def test_runs_with_other_settings_are_other_runs(
    sampling: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sampling.PEERS, "deepxde-adam", replace(sampling.PEERS["deepxde-adam"], needs="sys"))
    asked = options(optimizers=["lm", "local"])

    def keys() -> dict[str, object]:
        return {job["method"]: sampling.key(job) for job in sampling.jobs(asked)}

    def changed(before: dict[str, object]) -> set[str]:
        after = keys()
        return {method for method in before if before[method] != after[method]}

    before = keys()
    assert changed(before) == set()
    setting = sampling.SETTINGS["poisson"]
    with monkeypatch.context() as patch:
        patch.setitem(sampling.SETTINGS, "poisson", replace(setting, first_scale=7.0))
        assert changed(before) == {"uniform + lm"}
    with monkeypatch.context() as patch:
        patch.setitem(sampling.RESAMPLE, "lm", 3)
        assert changed(before) == {"uniform + lm"}
    with monkeypatch.context() as patch:
        patch.setitem(sampling.SETTINGS, "poisson", replace(setting, hidden=(5,)))
        assert changed(before) == {"uniform + lm", "deepxde-adam"}
    with monkeypatch.context() as patch:
        # What is run if nothing is named is no setting of a run.
        patch.setitem(sampling.SETTINGS, "poisson", replace(setting, samplers=("rad",), budget_s=1.0))
        assert changed(before) == set()


def test_runs_are_kept_and_older_lines_are_read_but_match_none(tmp_path: Path) -> None:
    old = {"problem": "poisson", "method": "uniform + lm", "seed": 0, "budget_s": 0.2, "status": "budget"}
    old |= {"message": "", "size": 9, "history": [[0.1, 0.5, 0.25, 1.0]]}
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(old) + "\n")
    asked = "--problems poisson --samplers uniform --optimizers lm --peers --seeds 1 --budget-s 0.2 --out"
    command = [sys.executable, str(ROOT / "benchmarks" / "sampling.py"), *asked.split(), str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stderr == "poisson uniform + lm seed 0\n"
    assert "| uniform + lm | 1 | 337 |" in first.stdout
    assert "| uniform + lm [settings unknown] | 1 | 9 | 5.0e-01" in first.stdout
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert second.stderr == ""
    assert second.stdout == first.stdout
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "name", ["deepxde-adam", "deepxde-lbfgs", "pina-lbfgs", "scimba-eng", "scimba-ssbroyden"]
)
@pytest.mark.parametrize("problem", ["poisson", "fisher-kpp"])
def test_an_installed_peer_runs(name: str, problem: str) -> None:
    from peers import PEERS, Task

    if PEERS[name].missing:
        pytest.skip(PEERS[name].missing)
    found = PEERS[name].run(Task(PROBLEMS[problem](), (4, 4), 1.0, 0))
    assert found["status"] == "budget"
    assert found["size"] == 2 * 4 + 4 + 4 * 4 + 4 + 4 + 1
    assert all(0 < record[1] < 100 for record in found["history"])
    assert torch.get_default_dtype() == torch.float32
