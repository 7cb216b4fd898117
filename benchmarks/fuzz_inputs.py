"""Read damaged files of every kind: no crash, no hanging, no memory without bound, no writing, no identity in a message.

    python benchmarks/fuzz_inputs.py                               10,000 NIfTI, 10,000 DICOM, 2,000 JSON, TSV and TOML
    python benchmarks/fuzz_inputs.py --nifti 500 --dicom 500 --text 200 --seed 3 --processes 1

Each input is a small sound file with random damage. It may be read, or refused with one of the package's typed errors,
within 10 s and 1 GiB. Anything else (another exception, a dead process, a message that names the patient, a file
written) is a fault: the input is kept, and the exit code is 1. Inputs are read in processes of their own, so that a
reader's crash is counted and the rest goes on. Needs the `dicom` extra.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from dicom_fuzz import TooSlowError, mutate, outcome, read_everything, write_small

import gliodil.planning
from gliodil.cohort.bids import find_subjects
from gliodil.cohort.inputs import find_rows
from gliodil.cohort.recipes import get_recipe, packaged
from gliodil.data.nifti import read_nifti
from gliodil.planning.rules import get_rule

LIMIT_S = 10.0
LIMIT_BYTES = 1 << 30
DEAD_S = 2 * LIMIT_S
"""Silence after which a process hangs in code that no alarm reaches."""
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
EXTREMES = (0, 1, 7, 127, 128, 255, 256, 32767, 65535, 1 << 30, (1 << 31) - 1, (1 << 32) - 1)

Random = np.random.Generator


@dataclass(frozen=True)
class Kind:
    """A kind of file: a sound one in a folder of its own, how it is damaged, and what reads it."""

    name: str
    target: Path
    content: bytes
    damage: Callable[[bytes, Random], bytes]
    read: Callable[[Path], Any]


def nifti_kinds(root: Path) -> list[Kind]:
    """Return NIfTI-1 and -2, plain and compressed, labels and scalars, either byte order."""
    voxels = np.random.default_rng(0).integers(0, 4, (9, 8, 7))
    images = {
        "labels.nii": nib.Nifti1Image(voxels.astype(np.uint8), AFFINE),
        "scalars.nii.gz": nib.Nifti1Image(voxels.astype(np.float32), AFFINE),
        "two.nii": nib.Nifti2Image(voxels.astype(np.int16), AFFINE),
        "swapped.nii.gz": nib.Nifti1Image(voxels.astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">")),
    }
    kinds = []
    for name, image in images.items():
        kind = "label" if name.startswith("labels") else "scalar"
        target = root / name.split(".")[0] / name
        target.parent.mkdir()
        nib.save(image, target)

        def read(path: Path, kind: Any = kind) -> None:
            assert read_nifti(path, kind=kind).data.ndim == 3

        kinds.append(Kind(f"nifti {name}", target, target.read_bytes(), _damaged_nifti, read))
    return kinds


def _damaged_nifti(content: bytes, random: Random) -> bytes:
    packed = content[:2] == b"\x1f\x8b"
    if packed and random.random() < 0.3:
        return mutate(content, random, first=0)
    plain = gzip.decompress(content) if packed else content
    if random.random() < 0.3:  # a whole number in the header
        place = int(random.integers(0, 352 // 2)) * 2
        size, letter = ((2, "H"), (4, "I"))[int(random.integers(2))]
        value = EXTREMES[int(random.integers(len(EXTREMES)))] & ((1 << 8 * size) - 1)
        plain = (
            plain[:place] + struct.pack("<>"[int(random.integers(2))] + letter, value) + plain[place + size :]
        )
    else:
        plain = mutate(plain, random, first=0, last=None if random.random() < 0.2 else 360)
    return gzip.compress(plain, compresslevel=1, mtime=0) if packed else plain


def dicom_kinds(root: Path) -> list[Kind]:
    """Return slices, enhanced images, PET, deflated and, where gdcm can write it, JPEG Lossless."""
    kinds = []
    for name in ("files", "enhanced", "pet", "deflated", "jpeg"):
        target = write_small(root / name, "files" if name == "jpeg" else name)[0]
        if name == "jpeg" and not _compressed(target):
            continue
        kinds.append(
            Kind(
                f"dicom {name}",
                target,
                target.read_bytes(),
                mutate,
                lambda path: read_everything(path.parent),
            )
        )
    return kinds


def _compressed(path: Path) -> bool:
    """Rewrite a file with JPEG Lossless; False without gdcm."""
    try:
        import gdcm
    except ImportError:
        return False
    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(path))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    return bool(writer.Write())


DATASET = {
    "root_dir": "/data",
    "patients": [
        {
            "patient_id": "1",
            "derivatives": {"tumor_seg": "/data/1/seg.nii.gz", "recurrence_seg": "1/rec.nii.gz"},
            "exams": [
                {"timepoint": "preop", "t1c": "/data/1/t1c.nii.gz"},
                {"timepoint": "followup", "t1c": None},
            ],
        },
        {"patient_id": "2", "exams": {"preop": {"files": {"t1c": "x.nii"}}}},
    ],
}
TABLE = "patient_id\tfolder\tseg\tlabel_convention\tdensity:other\nA\ta\t\tbrats-2023\td.nii\nB b\tb\tb/seg.nii\t\t\n"


def text_kinds(root: Path) -> list[Kind]:
    """Return a data set's JSON, a dataset_description.json, a table, a rule, and every packaged recipe's file."""
    recipes = Path(sys.modules[get_recipe.__module__].__file__ or "").parent / "recipes"
    description = json.dumps({"Name": "x", "BIDSVersion": "1.9.0"})
    rules = Path(gliodil.planning.__file__ or "").parent / "rules"
    rule = (rules / "benchmark-15mm.toml").read_text(encoding="utf-8")
    out = root / "out"
    given: list[tuple[str, str, Callable[[Path], Any]]] = [
        (
            "dataset.json",
            json.dumps(DATASET, indent=1),
            lambda path: [row.find() for row in find_rows(path, out)],
        ),
        ("dataset_description.json", description, lambda path: find_subjects(path.parent, out)),
        ("table.tsv", TABLE, lambda path: [row.find() for row in find_rows(path, out)]),
        ("rule.toml", rule.replace('name = "', 'name = "own-', 1), lambda path: get_rule(str(path))),
    ]
    for name in packaged():
        text = (recipes / f"{name}.toml").read_text(encoding="utf-8")
        given.append((f"{name}.toml", text, lambda path: get_recipe(str(path))))
    kinds = []
    for name, text, read in given:
        target = root / name.split(".")[0] / name
        (target.parent / "sub-01").mkdir(parents=True)
        target.write_text(text, encoding="utf-8")
        kinds.append(Kind(f"text {name}", target, target.read_bytes(), _damaged_text, read))
    return kinds


VALUES = (
    *(
        "null",
        "[]",
        "{}",
        "-1",
        "1e999",
        "NaN",
        "true",
        '""',
        '"\\u0000"',
        '"/dev/zero"',
        '"' + "x" * 5000 + '"',
    ),
    *(
        "9" * 5000,
        "[" * 3000 + "]" * 3000,
        "{a=" * 500 + "1" + "}" * 500,
        '"\\ud800"',
        "\t",
        '"',
        "\n",
        "..",
        "~",
    ),
)


def _damaged_text(content: bytes, random: Random) -> bytes:
    if random.random() < 0.4:
        return mutate(content, random, first=0)
    text = content.decode()
    start, end = sorted(int(place) for place in random.integers(0, len(text), 2))
    if random.random() < 0.5:  # one value, rather than any stretch
        end = next((i for i in range(start, len(text)) if text[i] in ",\n\t}]="), len(text))
    text = text[:start] + VALUES[int(random.integers(len(VALUES)))] + text[end:]
    return text.encode(("utf-8", "utf-8-sig", "utf-16", "latin-1")[int(random.integers(4))], "replace")


def make_kinds(root: Path) -> dict[str, list[Kind]]:
    """Write the sound files and return their kinds by group."""
    groups = {"nifti": nifti_kinds, "dicom": dicom_kinds, "text": text_kinds}
    for name in groups:
        (root / name).mkdir(parents=True)
    return {name: make(root / name) for name, make in groups.items()}


def work(connection: Connection, root: Path, seed: int, numbers: Sequence[tuple[str, int]]) -> None:
    """Read damaged inputs and send what came of each: its kind, how it ended, seconds, and bytes of a fault."""
    kinds = make_kinds(root)
    for group, number in numbers:
        kind = kinds[group][number % len(kinds[group])]
        random = np.random.default_rng([seed, sum(map(ord, group)), number])
        content = kind.damage(kind.content, random)
        kind.target.write_bytes(content)
        started, fault = time.perf_counter(), ""
        try:
            ended = outcome(lambda kind=kind: kind.read(kind.target), kind.target, limit_s=LIMIT_S)
        except TooSlowError:
            ended, fault = "too slow", f"more than {LIMIT_S:g} s"
        except BaseException as error:
            ended, fault = "crash", f"{type(error).__name__}: {str(error)[:200]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        if peak > LIMIT_BYTES and not fault:
            ended, fault = "too much memory", f"{peak / 2**20:.0f} MiB"
        kind.target.write_bytes(kind.content)
        connection.send(
            (kind.name, ended, time.perf_counter() - started, fault, content if fault else b"", peak)
        )
        if ended == "too much memory":
            return  # the peak stays: a fresh process goes on
    connection.close()


class Reader:
    """A process that works through numbers, and is started again after the one that killed it."""

    def __init__(self, root: Path, seed: int, numbers: Sequence[tuple[str, int]]) -> None:
        self.root, self.seed, self.left, self.started = root, seed, list(numbers), 0
        self.start()

    def start(self) -> None:
        """Start a process on what is left."""
        self.started += 1
        self.connection, theirs = multiprocessing.Pipe(duplex=False)
        place = self.root / str(self.started)
        self.process = multiprocessing.Process(target=work, args=(theirs, place, self.seed, tuple(self.left)))
        self.process.start()
        theirs.close()
        self.heard = time.monotonic()

    def again(self) -> None:
        """End the process, and start another one if there is anything left."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        if self.left:
            self.start()


def main(arguments: Sequence[str] | None = None) -> int:
    """Damage, read, count; 1 if there was a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nifti", type=int, default=10_000)
    parser.add_argument("--dicom", type=int, default=10_000)
    parser.add_argument("--text", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-faults"), help="folder for inputs with a fault"
    )
    options = parser.parse_args(arguments)
    numbers = [(group, n) for group in ("nifti", "dicom", "text") for n in range(getattr(options, group))]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gliodil-fuzz-") as scratch:
        readers = [
            Reader(Path(scratch) / f"p{n}", options.seed, numbers[n :: options.processes])
            for n in range(options.processes)
        ]
        ended, faults, slowest, peak = follow(readers, options.keep, options.seed)
    for (kind, how), count in sorted(ended.items()):
        print(f"{kind:<36}{how:<22}{count:6d}")
    for fault in faults:
        print(f"FAULT {fault}")
    total, seconds = sum(ended.values()), time.monotonic() - began
    print(
        f"{total} damaged files, {len(faults)} faults; slowest {slowest:.2f} s, "
        f"peak memory {peak / 2**20:.0f} MiB, {seconds:.0f} s in all"
    )
    return 1 if faults or total < len(numbers) else 0


def follow(
    readers: Sequence[Reader], keep: Path, seed: int
) -> tuple[Counter[tuple[str, str]], list[str], float, float]:
    """Return how often what came of which kind, the faults, the longest time and the highest peak of memory."""
    ended: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    slowest, peak = 0.0, 0.0

    def note(reader: Reader, what: str, content: bytes = b"") -> None:
        group, number = reader.left[0]
        faults.append(f"{group} {number} (seed {seed}): {what}")
        if content:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{group}-{seed}-{number}").write_bytes(content)

    while open_ := {reader.connection: reader for reader in readers if reader.left}:
        ready = wait(list(open_), timeout=1.0)
        for connection in ready:
            reader = open_[connection]  # type: ignore[index]
            try:
                name, how, seconds, fault, content, used = reader.connection.recv()
            except EOFError:
                note(reader, "the process died")
                ended[reader.left[0][0], "dead"] += 1
                reader.left.pop(0)
                reader.again()
                continue
            reader.heard = time.monotonic()
            ended[name, how] += 1
            slowest, peak = max(slowest, seconds), max(peak, used)
            if fault:
                note(reader, f"{name}: {fault}", content)
            reader.left.pop(0)
            if how == "too much memory":
                reader.again()
        for reader in open_.values():
            if reader.left and time.monotonic() - reader.heard > DEAD_S:
                note(reader, f"no answer within {DEAD_S:g} s")
                ended[reader.left[0][0], "hangs"] += 1
                reader.left.pop(0)
                reader.again()
    for reader in readers:
        reader.process.join()
    return ended, faults, slowest, peak


if __name__ == "__main__":
    sys.exit(main())
