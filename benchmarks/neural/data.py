"""What the experiments learn from: files the user names, or synthetic twins of the same shape.

MNIST       the four IDX files, gzipped or not, inside a tar archive or a folder
PhysioNet   the stays of the 2012 challenge as text files (time,parameter,value) inside a tar archive or a folder
digits      8 x 8 images that come with scikit-learn
spirals     solutions of a cubic ODE and SDE, computed here
"""

from __future__ import annotations

import gzip
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gliodil.errors import ImageFileError, InputError

STATIC = {"RecordID", "Age", "Gender", "Height", "ICUType"}
HOURS = 48


@dataclass(frozen=True)
class Labelled:
    """Inputs (n, d) in [0, 1] and labels (n,)."""

    x: torch.Tensor
    y: torch.Tensor

    def take(self, count: int) -> Labelled:
        """Return the first ``count`` of them."""
        return Labelled(self.x[:count], self.y[:count])


@dataclass(frozen=True)
class Series:
    """Values and masks of observation, both (n, times, features); values are 0 where the mask is."""

    values: torch.Tensor
    mask: torch.Tensor


def files_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every file in a folder or a tar archive, in the order of their names in a folder."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.name, file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield Path(member.name).name, content.read()
    except (OSError, tarfile.TarError, EOFError) as error:
        raise ImageFileError(
            "The data cannot be read.",
            file=path,
            expected="a folder or a tar archive",
            found=str(error) or type(error).__name__,
        ) from error


def read_idx(content: bytes) -> np.ndarray:
    """Decode an IDX file of unsigned bytes: two zeros, type 8, number of axes, their lengths, the values."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ImageFileError("Not an IDX file of unsigned bytes.", found=content[:4].hex())
    axes = content[3]
    shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if values.size != np.prod(shape):
        raise ImageFileError("The IDX file is cut short.", expected=str(shape), found=f"{values.size} values")
    return values.reshape(shape)


def read_mnist(path: Path, *, pool: int = 1) -> tuple[Labelled, Labelled]:
    """Return training and test images, averaged over ``pool`` x ``pool`` pixels and flattened."""
    wanted = {
        "train-images": "train x",
        "train-labels": "train y",
        "t10k-images": "test x",
        "t10k-labels": "test y",
    }
    found: dict[str, np.ndarray] = {}
    for name, content in files_in(path):
        for prefix, role in wanted.items():
            if name.startswith(prefix):
                found[role] = read_idx(content)
    if missing := sorted(set(wanted.values()) - set(found)):
        raise InputError(
            "MNIST is not complete.", file=path, expected=", ".join(wanted), found=f"no {', '.join(missing)}"
        )
    sets = []
    for part in ("train", "test"):
        x = torch.from_numpy(found[f"{part} x"].astype(np.float32) / 255)[:, None]
        x = torch.nn.functional.avg_pool2d(x, pool).flatten(1)
        sets.append(Labelled(x.double(), torch.from_numpy(found[f"{part} y"].astype(np.int64))))
    return sets[0], sets[1]


def synthetic_images(count: int, side: int, seed: int) -> tuple[Labelled, Labelled]:
    """Ten smooth random templates, shifted, scaled and noisy: images that can be told apart, but not linearly."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand(10, 1, 4, 4, generator=source)
    templates = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0]
    sets = []
    for n in (count, max(10, count // 3)):
        y = torch.randint(10, (n,), generator=source)
        shift = torch.randint(-1, 2, (n, 2), generator=source).tolist()
        x = torch.stack([torch.roll(templates[k], s, (0, 1)) for k, s in zip(y.tolist(), shift, strict=True)])
        x = x * (0.6 + 0.4 * torch.rand(n, 1, 1, generator=source))
        x = (x + 0.1 * torch.randn(x.shape, generator=source)).clamp(0, 1)
        sets.append(Labelled(x.flatten(1).double(), y))
    return sets[0], sets[1]


def read_digits(seed: int) -> tuple[Labelled, Labelled]:
    """Return scikit-learn's digits, 64 pixels in [0, 1], split 80 : 20."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    every = Labelled(torch.from_numpy(x / 16)[order], torch.from_numpy(y)[order])
    cut = len(y) * 4 // 5
    return every.take(cut), Labelled(every.x[cut:], every.y[cut:])


def read_physionet(path: Path) -> Series:
    """Average every stay's measurements within hours 0 to 48: 49 bins of 37 features, before normalization.

    Times are rounded to the nearest hour. The four descriptors of a stay are dropped; -1 means not measured.
    """
    stays: list[list[tuple[int, str, float]]] = []
    for name, content in files_in(path):
        lines = content.decode("utf-8", "replace").splitlines()
        if not name.endswith(".txt") or not lines or not lines[0].startswith("Time,Parameter,Value"):
            continue
        stay = []
        for line in lines[1:]:
            time, parameter, value = line.split(",")
            if parameter and parameter not in STATIC and float(value) != -1:
                hours, minutes = time.split(":")
                stay.append((round(int(hours) + int(minutes) / 60), parameter, float(value)))
        stays.append(stay)
    if not stays:
        raise InputError("There are no stays of the PhysioNet challenge.", file=path)
    features = {name: i for i, name in enumerate(sorted({p for stay in stays for _, p, _ in stay}))}
    total = np.zeros((len(stays), HOURS + 1, len(features)))
    count = np.zeros_like(total)
    for n, stay in enumerate(stays):
        for hour, parameter, value in stay:
            if 0 <= hour <= HOURS:
                total[n, hour, features[parameter]] += value
                count[n, hour, features[parameter]] += 1
    mask = count > 0
    values = np.divide(total, count, out=np.zeros_like(total), where=mask)
    return Series(torch.from_numpy(values), torch.from_numpy(mask).double())


def synthetic_stays(count: int, seed: int, features: int = 37) -> Series:
    """Damped oscillations of three hidden variables seen through random features, sparse in time."""
    source = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, HOURS + 1, dtype=torch.float64)
    rate = 1 + 3 * torch.rand(count, 3, 1, generator=source, dtype=torch.float64)
    phase = 6.28 * torch.rand(count, 3, 1, generator=source, dtype=torch.float64)
    hidden = torch.exp(-t) * torch.sin(6.28 * rate * t + phase)
    mixing = torch.randn(3, features, generator=source, dtype=torch.float64)
    values = hidden.transpose(1, 2) @ mixing
    mask = (torch.rand(values.shape, generator=source) < 0.2).double()
    return Series(values * mask, mask)


def split_series(every: Series, seed: int, *, stays: int | None, every_hours: int) -> tuple[Series, Series]:
    """Split stays 80 : 20, pool hours, and scale every feature by the training part's range to [0, 1]."""
    order = torch.randperm(len(every.values), generator=torch.Generator().manual_seed(seed))[:stays]
    values, mask = every.values[order], every.mask[order]
    if every_hours > 1:
        values, mask = _pool(values, mask, every_hours)
    cut = len(order) * 4 // 5
    inside = mask[:cut].bool()
    low = torch.where(inside, values[:cut], torch.inf).amin((0, 1))
    high = torch.where(inside, values[:cut], -torch.inf).amax((0, 1))
    seen = high > low
    low, width = torch.where(seen, low, 0.0), torch.where(seen, high - low, 1.0)
    mask = mask * seen
    values = (values - low) / width * mask
    return Series(values[:cut], mask[:cut]), Series(values[cut:], mask[cut:])


def _pool(values: torch.Tensor, mask: torch.Tensor, hours: int) -> tuple[torch.Tensor, torch.Tensor]:
    bins = (values.shape[1] - 1) // hours + 1
    short = bins * hours - values.shape[1]
    pad = (0, 0, 0, short)
    values = torch.nn.functional.pad(values * mask, pad).unflatten(1, (bins, hours)).sum(2)
    count = torch.nn.functional.pad(mask, pad).unflatten(1, (bins, hours)).sum(2)
    return values / count.clamp_min(1), (count > 0).to(mask.dtype)
