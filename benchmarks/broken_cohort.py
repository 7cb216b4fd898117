"""A cohort of 40 with every kind of broken patient mixed in: exactly those must fail, each with a sentence that fits.

    python benchmarks/broken_cohort.py [--patients 40] [--cells 8] [--processes 2]

Every patient is a copy of one small synthetic one (6 mm); `KINDS` says how the broken ones are broken and what has to
be said of them. `gliodil cohort OUT participant` runs on all, and the table of what it made of each is printed. The exit
code is 1 if a sound patient was not planned, a broken one was, or what is said does not fit. Needs the `dicom` extra.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from dicom_series import write_series

from gliodil.data.synthetic import simulate

ODD_NAMES = ("odd name", "Ümläut", "br[a]cket", "-dash")
"""Names of sound patients' folders that must not stop anything."""


def _voxels(role: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / f"{role}.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)

    return damage


def _affine(role: str, change: np.ndarray) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / f"{role}.nii.gz"
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), change @ image.affine), path)

    return damage


def _bytes(role: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / f"{role}.nii.gz"
        path.write_bytes(change(path.read_bytes()))

    return damage


def _header(place: int, value: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        plain = gzip.decompress(content)
        return gzip.compress(plain[:place] + value + plain[place + len(value) :])

    return change


def _link(role: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / f"{role}.nii.gz").unlink()
        os.symlink("../.git/annex/objects/x", folder / f"{role}.nii.gz")

    return damage


def _dicom(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """Replace the T1 by a DICOM series, and change what is in its folder."""

    def damage(folder: Path) -> None:
        (folder / "t1.nii.gz").unlink()
        (folder / "pet.nii.gz").unlink(missing_ok=True)
        image = nib.load(folder / "brain.nii.gz")
        voxels = 200 * np.asarray(image.dataobj, np.int16)
        write_series(folder / "t1", voxels, image.affine)
        change(folder / "t1")

    return damage


def _gap(folder: Path) -> None:
    sorted(folder.iterdir())[7].unlink()


def _emptied(folder: Path) -> None:
    for path in sorted(folder.iterdir())[-4:]:
        path.write_bytes(b"")


def _halved(folder: Path) -> None:
    for path in sorted(folder.iterdir())[10:]:
        path.unlink()
        os.symlink("/nowhere/slice", path)


def _short(folder: Path) -> None:
    path = sorted(folder.iterdir())[5]
    path.write_bytes(path.read_bytes()[:-200])


def _doubled(folder: Path) -> None:
    path = sorted(folder.iterdir())[5]
    shutil.copy(path, folder / "copy.dcm")


def _strangers(folder: Path) -> None:
    for path in sorted(folder.iterdir())[::2]:
        path.write_bytes(path.read_bytes().replace(b"PLANTEDID-4711", b"PLANTEDID-4712"))


def _remove(*roles: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for role in roles:
            (folder / f"{role}.nii.gz").unlink()

    return damage


def _pipe(folder: Path) -> None:
    (folder / "seg.nii.gz").unlink()
    os.mkfifo(folder / "seg.nii.gz")


TURNED = np.eye(4)
TURNED[:3, 3] = 400.0
SHEARED = np.eye(4)
SHEARED[0, 2] = 0.6
KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no segmentation": (_remove("seg"), "segmentation is missing"),
    "no tissue maps": (_remove("wm", "gm"), "wm|white matter|tissue"),
    "an empty folder": (lambda f: [p.unlink() for p in f.iterdir()] and None, "no images"),
    "a file cut short": (_bytes("wm", lambda b: b[: len(b) // 2]), "wm.nii.gz"),
    "an empty file": (_bytes("seg", lambda b: b""), "seg.nii.gz"),
    "no NIfTI": (
        _bytes("seg", lambda b: b"version https://git-lfs.github.com/spec/v1\n"),
        "not a readable|NIfTI",
    ),
    "a damaged checksum": (_bytes("gm", lambda b: b[:-8] + bytes(4) + b[-4:]), "gm.nii.gz"),
    "a header that promises 140 TB": (
        _bytes("seg", _header(40, b"\3\0\xff\x7f\xff\x7f\xff\x7f")),
        "seg.nii.gz",
    ),
    "an unknown type": (_bytes("wm", _header(70, b"\x63\x63")), "wm.nii.gz"),
    "NaN in a map": (_voxels("wm", lambda a: np.full(a.shape, np.nan, np.float32)), "NaN|number"),
    "NaN in the segmentation": (
        _voxels("seg", lambda a: np.where(a > 0, np.nan, a).astype(np.float32)),
        "seg|label",
    ),
    "fractions as labels": (_voxels("seg", lambda a: a.astype(np.float32) * 0.37), "fraction|whole|integer"),
    "unknown labels": (_voxels("seg", lambda a: (a * 17).astype(np.int16)), "label"),
    "an empty segmentation": (_voxels("seg", np.zeros_like), "empty|no tumour|only background|label"),
    "only oedema": (_voxels("seg", lambda a: (2 * (a > 0)).astype(np.uint8)), "core"),
    "four dimensions": (_voxels("seg", lambda a: np.stack([a, a], -1)), "3-D|three|dimension"),
    "one slice": (_voxels("seg", lambda a: a[:, :, :1]), "slice|thin|voxel|small"),
    "a map 400 mm away": (_affine("wm", TURNED), "overlap|cover|grid|space"),
    "a sheared segmentation": (_affine("seg", SHEARED), "shear"),
    "a map of percentages": (
        _voxels("wm", lambda a: (a * 100).astype(np.float32)),
        "0 to 1|between 0 and 1|fraction",
    ),
    "a link to nothing": (_link("seg"), "link to nothing"),
    "a link to nothing for a map": (_link("csf"), "link to nothing"),
    "a pipe": (_pipe, "a pipe"),
    "two segmentations": (
        lambda f: shutil.copy(f / "seg.nii.gz", f / "segm.nii.gz") and None,
        "Several files",
    ),
    "a slice missing": (_dicom(_gap), "gaps"),
    "slices that are empty": (_dicom(_emptied), "cannot be read"),
    "half a series": (_dicom(_halved), "cannot be read"),
    "a slice cut short": (_dicom(_short), "cannot be read"),
    "a slice twice": (_dicom(_doubled), "one position"),
    "two patients in one series": (_dicom(_strangers), "several patients|Several patients"),
}
"""Kind to how it is made, and a pattern of what must be said."""


def build(root: Path, patients: int) -> dict[str, str]:
    """Write the cohort and return each folder's kind ("" if it is sound)."""
    sound = simulate(resolution_mm=6).save(root / "sound")
    kinds: dict[str, str] = {}
    for number, kind in enumerate(KINDS):
        kinds[f"p{number:02d}"] = kind
    for name in (*ODD_NAMES, *(f"p{number:02d}" for number in range(len(KINDS), 1000))):
        if len(kinds) >= max(patients, len(KINDS) + 1):
            break
        kinds[name] = ""
    for name, kind in kinds.items():
        folder = root / "patients" / name
        folder.mkdir(parents=True)
        for path in sound.glob("*.nii.gz"):
            shutil.copy(path, folder)
        (folder / ("._seg.nii.gz")).write_bytes(b"\0\5\x16\7" + bytes(100))
        if kind:
            for path in folder.glob("._*"):
                path.unlink()
            KINDS[kind][0](folder)
    for clutter in ("__MACOSX", "@eaDir", ".git"):
        (root / "patients" / clutter).mkdir()
    return kinds


def read_checks(out: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the cohort's check by patient."""
    with (out / "cohort_check.tsv").open(encoding="utf-8", newline="") as stream:
        return {row["patient_id"]: row for row in csv.DictReader(stream, delimiter="\t")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, run, compare; 1 if any patient ended otherwise than its kind says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gliodil-broken-") as scratch:
        root = Path(scratch)
        kinds = build(root, options.patients)
        out = root / "results"
        words = ["cohort", str(root / "patients"), str(out), "participant", "--cells", str(options.cells)]
        words += ["--device", "cpu", "--labels", "brats-2023", "--n-procs", str(options.processes)]
        done = subprocess.run(
            [sys.executable, "-m", "gliodil", *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if not (out / "cohort_check.tsv").is_file():
            print(done.stdout, done.stderr)
            return 1
        wrong = judge(kinds, read_checks(out), out)
        if "Traceback" in done.stdout + done.stderr:
            wrong.append("a traceback was printed")
        if done.returncode != 2:
            wrong.append(f"exit code {done.returncode}, not 2")
    broken = sum(map(bool, kinds.values()))
    print(*(f"WRONG {line}" for line in wrong), sep="\n")
    print(
        f"{len(kinds)} patients, {broken} of them broken, {len(wrong)} wrong; {time.monotonic() - began:.0f} s"
    )
    return 1 if wrong else 0


def judge(kinds: dict[str, str], rows: dict[str, dict[str, str]], out: Path) -> list[str]:
    """Print what became of each patient, and return what should not have."""
    from gliodil.cohort.rows import safe_name

    wrong = []
    for name, kind in kinds.items():
        identity = safe_name(name)
        row = rows.get(identity, {})
        said = " | ".join(row.get(key) or "" for key in ("problem", "file", "expected", "found"))
        failed, planned = row.get("valid") == "no", (out / identity / "metrics.json").is_file()
        print(
            f"{identity:<12}{kind or 'sound':<34}{row.get('problem') if failed else 'planned' if planned else '-'}"
        )
        if bool(kind) != failed or planned == bool(kind):
            wrong.append(
                f"{identity} ({kind or 'sound'}): {'failed' if failed else 'passed'}, planned: {planned}. {said}"
            )
        elif kind and not re.search(KINDS[kind][1], said):
            wrong.append(f"{identity} ({kind}): {said}")
    if extra := set(rows) - {safe_name(name) for name in kinds}:
        wrong.append(f"no patients: {sorted(extra)}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
