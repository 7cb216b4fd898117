"""A fit that was interrupted, once or twice, ends where an uninterrupted one ends, and leaves nothing behind."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliodil.data.patient import Patient
from gliodil.errors import InputError, NumericsError
from gliodil.inference import label_misfit, network_fit
from gliodil.inference.checkpoint import Checkpoint, read_states, write_states
from gliodil.inference.config import FitConfig
from gliodil.inference.fit import fit
from gliodil.inference.result import Fit

PatientFactory = Callable[..., Patient]
Interrupted = Callable[[FitConfig, Path, int], None]
TINY = FitConfig(cells=8, steps=16, max_evaluations=25, device="cpu")
FITS = {
    "exact": replace(TINY, physics="exact"),
    "free start": TINY,
    "soft": replace(TINY, physics="soft"),
    "gauss-newton": replace(TINY, physics="soft", optimizer="gauss-newton", max_evaluations=12),
    "public": replace(TINY, loss="reference", optimizer="adam-multigrid"),
    "nested": replace(TINY, cells=48, steps=16, physics="exact"),
}


class Crash(BaseException):
    """The power fails."""


@pytest.fixture(scope="module", autouse=True)
def _nothing_explains_the_labels() -> Iterator[None]:
    """Then further foci are looked for, and the start is freed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_misfit, "RESOLVED_CELLS", -1.0)
        yield


@pytest.fixture(scope="module")
def patient(make_patient: PatientFactory) -> Patient:
    return make_patient()


@pytest.fixture(scope="module")
def straight(patient: Patient) -> Callable[[FitConfig], Fit]:
    return cache(lambda config: fit(patient, config=config))


@pytest.fixture(scope="module")
def interrupted(patient: Patient) -> Interrupted:
    """Run a fit that keeps every state and crashes at the n-th entry of its loss curve."""

    def run(config: FitConfig, path: Path, after: int) -> None:
        seen = 0

        def count(*_: object) -> None:
            nonlocal seen
            seen += 1
            if seen == after:
                raise Crash

        with pytest.raises(Crash):
            fit(patient, config=config, progress=count, checkpoint=Checkpoint(path, interval_s=0))
        assert path.exists()

    return run


def assert_same(a: Fit, b: Fit) -> None:
    """Everything but the time it took."""
    assert np.array_equal(a.density.data, b.density.data)
    for name, parameter in a.parameters.items():
        assert np.array_equal(parameter.value, b.parameters[name].value), name
    assert (a.loss_total, a.loss_terms, a.label_misfit_mm) == (b.loss_total, b.loss_terms, b.label_misfit_mm)
    assert (a.status, a.message, a.evaluations, a.warnings) == (
        b.status,
        b.message,
        b.evaluations,
        b.warnings,
    )
    for name in ("evaluations", "total", "stage"):
        assert getattr(a.history, name) == getattr(b.history, name)
    assert list(b.history.seconds) == sorted(b.history.seconds)


@pytest.mark.parametrize("name", FITS)
def test_an_interrupted_fit_ends_where_another_does(
    name: str, patient: Patient, straight: Callable, interrupted: Interrupted, tmp_path: Path
) -> None:
    config, path = FITS[name], tmp_path / "checkpoint.npz"
    wanted = straight(config)
    entries = len(wanted.history.total)
    stages = dict.fromkeys(wanted.history.stage)
    assert len(stages) == {"exact": 1, "public": 1}.get(name, 2), stages
    interrupted(config, path, entries // 2)  # in the first loop or the second
    interrupted(config, path, max(2, entries // 3))  # later: the second run counts from where it goes on
    seen: list[int] = []
    found = fit(patient, config=config, checkpoint=path, progress=lambda _, n, __: seen.append(n))
    assert 0 < len(seen) < entries / 2
    assert_same(wanted, found)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def quick_network(monkeypatch: pytest.MonkeyPatch) -> FitConfig:
    """A network that stalls after a number of steps that no clock decides on."""
    monkeypatch.setattr(network_fit, "CONDITION_POINTS", 100)
    monkeypatch.setattr(network_fit, "PATIENCE", 6)
    monkeypatch.setattr(network_fit, "RESAMPLE", 3)
    monkeypatch.setattr(network_fit, "FLOW", {"steps": 3, "batch": 64, "pool": 256, "width": 8})
    return replace(TINY, method="pinn", network_width=4, network_depth=1, network_budget_s=1e4)


def test_an_interrupted_network_ends_where_another_does(
    quick_network: FitConfig, patient: Patient, interrupted: Interrupted, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.npz"
    wanted = fit(patient, config=quick_network)
    entries = len(wanted.history.total)
    assert wanted.status == "stalled"
    assert entries >= 5  # two updates of the flow at least
    interrupted(quick_network, path, entries - 3)
    interrupted(quick_network, path, 2)
    seen: list[int] = []
    found = fit(patient, config=quick_network, checkpoint=path, progress=lambda _, n, __: seen.append(n))
    assert len(seen) == 3  # what the second crash had not kept, and two draws more
    assert_same(wanted, found)
    assert list(tmp_path.iterdir()) == []


def test_the_seconds_a_network_had_are_counted(
    quick_network: FitConfig, patient: Patient, interrupted: Interrupted, tmp_path: Path
) -> None:
    """A budget of CPU seconds is that of all runs together: what was spent is not given again."""
    path = tmp_path / "checkpoint.npz"
    interrupted(quick_network, path, 4)
    with np.load(path) as members:
        header = members["header"].tobytes().decode()
    assert '"cpu_s"' in header
    checkpoint = Checkpoint(path, interval_s=0)
    key = header.split('"key": "')[1].split('"')[0]
    _, loops = read_states(path, key)
    loops[-1]["progress"]["cpu_s"] = 2e4
    write_states(path, key, loops)
    found = fit(patient, config=quick_network, checkpoint=checkpoint)
    assert len(found.history.total) == 3  # no further draw
    assert found.message == "Training stopped at its budget of 10000 CPU seconds."


def test_a_fit_that_had_ended_is_not_done_again(patient: Patient, straight: Callable, tmp_path: Path) -> None:
    """What comes after a fit can be interrupted too; a caller's own checkpoint is there until it removes it."""
    own = Checkpoint(tmp_path / "checkpoint.npz", interval_s=0)
    fit(patient, config=FITS["soft"], checkpoint=own)
    assert own.path.exists()
    seen: list[str] = []
    again = fit(
        patient, config=FITS["soft"], checkpoint=own.path, progress=lambda stage, *_: seen.append(stage)
    )
    assert seen == []
    assert_same(straight(FITS["soft"]), again)


@pytest.mark.parametrize("other", ["settings", "patient", "format"])
def test_what_another_fit_left_is_not_used(
    other: str, make_patient: PatientFactory, straight: Callable, interrupted: Interrupted, tmp_path: Path,
    patient: Patient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    path, config = tmp_path / "checkpoint.npz", FITS["exact"]
    interrupted(replace(config, duration_days=101.0) if other == "settings" else config, path, 5)
    wanted = straight(config)
    if other == "patient":
        grey = patient.volumes["gm"].data.copy()
        grey[3, 3, 3] += 1e-3
        patient = make_patient(gm=grey)
    if other == "format":
        monkeypatch.setattr("gliodil.inference.checkpoint.FORMAT", 99)
    found = fit(patient, config=config, checkpoint=path)
    assert "was not used" in found.warnings[-1]
    assert "was not used" in caplog.text
    assert found.history.total[0] == wanted.history.total[0] or other == "patient"
    assert found.evaluations == wanted.evaluations or other == "patient"
    assert not path.exists()


@pytest.mark.parametrize("kind", ["text", "archive"])
def test_a_file_of_another_kind_is_left_alone(kind: str, patient: Patient, tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    if kind == "text":
        path.write_text("years of work")
    else:
        np.savez(path, work=np.arange(3))
    with pytest.raises(InputError, match="something else"):
        fit(patient, config=FITS["exact"], checkpoint=tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="something else") as caught:
        fit(patient, config=FITS["exact"], checkpoint=path)
    assert path.name in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 100, 0.5, -1])
def test_a_truncated_file_is_not_used(
    size: float, patient: Patient, straight: Callable, interrupted: Interrupted, tmp_path: Path
) -> None:
    path, config = tmp_path / "checkpoint.npz", FITS["exact"]
    interrupted(config, path, 5)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(size * len(whole)) if 0 < size < 1 else int(size)])
    found = fit(patient, config=config, checkpoint=path)
    assert "is damaged" in found.warnings[-1]
    assert_same(straight(config), replace(found, warnings=found.warnings[:-1]))
    assert not path.exists()


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    loops = [{"loop": "a", "x": [torch.arange(50.0)], "value": math.inf, "words": "mm³", "none": None}]
    write_states(path, "key", loops)
    whole, dice = path.read_bytes(), random.Random(0)
    for _ in range(300):
        torn = bytearray(whole)
        torn[dice.randrange(len(torn))] ^= 1 << dice.randrange(8)
        path.write_bytes(torn)
        checkpoint = Checkpoint(path)
        checkpoint.open(lambda: "key")
        kept = checkpoint._left
        if kept:  # the bit belongs to nothing that is read, as dates of members do
            assert torch.equal(kept[0].pop("x")[0], torch.arange(50.0))
            assert kept[0] == {"loop": "a", "value": math.inf, "words": "mm³", "none": None}
        else:
            assert len(checkpoint.warnings) == 1


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_not_read(kind: str, patient: Patient, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("there are no pipes here")
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nothing")
    checkpoint = Checkpoint(path)
    checkpoint.open(lambda: "key")
    assert "is damaged" in checkpoint.warnings[0]
    if kind != "link":
        with pytest.raises(InputError, match="something else"):
            Checkpoint.at(path)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.text(), of, max_size=3),
    max_leaves=8,
)
DTYPES = (torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool)


@settings(max_examples=30, deadline=None)
@given(values, st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.integers(0, 1000))
def test_states_come_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, value: object, dtype: torch.dtype, shape: list[int], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "states.npz"
    tensor = (1e3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)
    turned = tensor.movedim(0, -1) if shape else tensor
    write_states(path, "key", [{"loop": "a", "value": value, "x": [tensor, turned]}])
    found, (state,) = read_states(path, "key")
    assert found
    assert state["value"] == value
    for before, after in zip((tensor, turned), state["x"], strict=True):
        assert after.dtype == dtype
        assert torch.equal(before, after)
    assert read_states(path, "another") == (False, [])


def test_a_short_fit_writes_nothing(
    patient: Patient, straight: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a minute has not passed")

    monkeypatch.setattr("gliodil.inference.checkpoint.write_states", never)
    assert_same(
        straight(FITS["soft"]), fit(patient, config=FITS["soft"], checkpoint=tmp_path / "checkpoint.npz")
    )


def test_a_folder_that_takes_no_file_does_not_stop_a_fit(
    patient: Patient, straight: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    checkpoint = Checkpoint(tmp_path / "file" / "checkpoint.npz", interval_s=0)
    assert_same(straight(FITS["exact"]), fit(patient, config=FITS["exact"], checkpoint=checkpoint))
    assert "cannot be continued" in caplog.text


def test_a_fit_that_fails_leaves_nothing(
    patient: Patient, interrupted: Interrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.npz"
    interrupted(FITS["exact"], path, 5)

    def fail(*_: object) -> None:
        raise NumericsError("The loss is not finite.")

    monkeypatch.setattr("gliodil.inference.fit._fit_nested", fail)
    with pytest.raises(NumericsError):
        fit(patient, config=FITS["exact"], checkpoint=path)
    assert not path.exists()


def test_a_learned_law_keeps_no_checkpoint(patient: Patient, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keeps no checkpoint"):
        fit(patient, growth="learned", checkpoint=tmp_path / "c.npz")  # type: ignore[call-overload]
