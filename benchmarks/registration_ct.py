"""Does the rigid registration of an MR and a planning CT find what is known, and refuse where it does not?

    python benchmarks/registration_ct.py DATA                    50 poses; resumable: rows are kept in --rows
    python benchmarks/registration_ct.py DATA --only pair        the simulated DICOM pair with its known answer
    python benchmarks/registration_ct.py DATA --only follow-up   native_01 against the follow-up given on the baseline

DATA holds ct/ and progression/. A pose turns the head by up to 20° and shifts it by up to 40 mm; CT and MR have random
voxels, fields of view (the MR down to a slab of 60 mm), tilt and noise (``simulated_ct``). The error is the largest in
the part of the brain that the MR shows, mm. An accepted answer that is more than 1 mm off is a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from simulated_ct import Scan, head_hu, planning_ct, random_motion

from gliodil.data.nifti import read_nifti
from gliodil.data.registration.rigid import align_rigidly
from gliodil.data.volume import Volume
from gliodil.errors import GliodilError

LARGEST_MM = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--poses", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="first pose, to share them out")
    parser.add_argument(
        "--rows", type=Path, help="file of finished poses, one JSON per line; continued if it exists"
    )
    parser.add_argument("--only", choices=["poses", "pair", "follow-up"])
    arguments = parser.parse_args()
    faults = 0
    if arguments.only in (None, "poses"):
        faults += poses(arguments.data, arguments.first, arguments.poses, arguments.rows)
    if arguments.only in (None, "pair"):
        faults += pair(arguments.data)
    if arguments.only in (None, "follow-up"):
        faults += follow_up(arguments.data)
    return int(faults > 0)


def poses(data: Path, first: int, count: int, rows: Path | None) -> int:
    """Print a line per pose and what they come to; return the number of accepted answers that are wrong."""
    done: dict[int, dict[str, Any]] = {}
    if rows is not None and rows.exists():
        done = {row["pose"]: row for line in rows.read_text().splitlines() if (row := json.loads(line))}
    folder = data / "ct" / "head_pair_nifti"
    t1 = read_nifti(folder / "t1.nii.gz", kind="scalar")
    brain = np.asarray(read_nifti(folder / "brain.nii.gz", kind="scalar").data > 0)
    head = head_hu(t1, brain)
    points = t1.to_world(np.argwhere(brain)[::199])
    for pose in range(first, first + count):
        if pose not in done:
            done[pose] = _pose(pose, t1, head, points)
            if rows is not None:
                with rows.open("a") as file:
                    file.write(json.dumps(done[pose]) + "\n")
        row = done[pose]
        said = row["refused"] or f"error {row['error_mm']:.2f} mm, spread {row['spread_mm']:.2f}"
        print(f"pose {pose:2d}  {row['what']:58s} {said}, {row['cpu_s']:.0f} s", flush=True)
    chosen = [done[pose] for pose in range(first, first + count)]
    answered = [row for row in chosen if not row["refused"]]
    wanted = round(0.96 * len(chosen))
    good = [row for row in answered if row["error_mm"] <= LARGEST_MM]
    seconds = [row["cpu_s"] for row in chosen]
    errors = [row["error_mm"] for row in answered] or [float("nan")]
    print(
        f"{len(good)} of {len(chosen)} within {LARGEST_MM:g} mm, {len(chosen) - len(answered)} refused, "
        f"{len(answered) - len(good)} accepted and wrong; error median {np.median(errors):.2f}, largest "
        f"{max(errors):.2f} mm; CPU median {np.median(seconds):.0f}, largest {max(seconds):.0f} s"
    )
    return len(answered) - len(good) + int(len(good) < wanted)


def _pose(pose: int, t1: Volume, head: Volume, points: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng([2026, pose])
    centre = points.mean(axis=0)
    motion = random_motion(rng, centre, degrees=20, mm=40)
    scan = Scan(
        pixel_mm=float(rng.uniform(0.7, 1.2)),
        slice_mm=float(rng.choice([1.0, 2.0, 3.0])),
        extent_mm=float(rng.choice([220.0, 180.0, 150.0])),
        middle_mm=float(rng.uniform(-15, 15)),
        tilt_deg=float(rng.choice([0.0, 0.0, -18.0, 15.0])),
        noise_hu=15.0,
    )
    ct = planning_ct(head, centre, motion, scan, rng)
    extent, thick = float(rng.choice([200.0, 200.0, 90.0, 60.0])), float(rng.choice([1.0, 2.0, 4.0]))
    slices = round(extent / thick)
    affine = np.diag([1.0, 1.0, thick, 1.0])
    affine[:3, 3] = centre - np.array([119.5, 119.5, (slices - 1) / 2 * thick])
    affine = random_motion(rng, centre, degrees=15, mm=0) @ affine
    mr = _scanned(t1, affine, slices, round(thick))
    index = mr.to_index(points)
    seen = points[((index > -0.5) & (index < np.asarray(mr.shape) - 0.5)).all(axis=1)]
    what = f"MR {extent:.0f} of {thick:g} mm, CT {scan.extent_mm:.0f} of {scan.slice_mm:g} mm, tilt {scan.tilt_deg:g}°"
    row: dict[str, Any] = {"pose": pose, "what": what, "refused": "", "error_mm": None, "spread_mm": None}
    started = time.process_time()
    try:
        found = align_rigidly(ct, mr, "MR", target=seen)
    except GliodilError as error:
        row["refused"] = f"refused: {error.problem}"
    else:
        change = found.link("mr", "ct").matrix - motion
        row["error_mm"] = float(np.linalg.norm(seen @ change[:3, :3].T + change[:3, 3], axis=1).max())
        row["spread_mm"] = found.spread_mm
    row["cpu_s"] = time.process_time() - started
    return row


def _scanned(t1: Volume, affine: np.ndarray, slices: int, parts: int) -> Volume:
    """Return a T1 image on other slices, each the mean over its thickness of so many parts."""
    thin = affine @ np.diag([1, 1, 1 / parts, 1])
    thin[:3, 3] -= thin[:3, 2] * (parts - 1) / 2
    found = t1.resample_to(Volume(np.zeros((240, 240, slices * parts), np.uint8), thin, kind="label"))
    return Volume(found.data.reshape(240, 240, slices, parts).mean(axis=-1), affine, kind="scalar")


def pair(data: Path) -> int:
    """The simulated DICOM pair: the product's registration against the map it was made with."""
    from gliodil.data.dicom.scan import find_series

    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(data / "ct" / "pair_mr_ct.tar.gz") as archive:
            archive.extractall(scratch, filter="data")
        (described,) = Path(scratch).rglob("truth.json")
        truth = json.loads(described.read_text())
        images = [series for series in find_series(scratch) if series.stack is not None]
        (ct,) = [series.volume() for series in images if series.modality == "CT"]
        (mr,) = [series.volume() for series in images if series.modality == "MR"]
        known = np.asarray(truth["mr_to_ct_ras"])
        found = align_rigidly(ct, mr, "MR").link("mr", "ct")
    middle = mr.to_world((np.asarray(mr.shape) - 1) / 2)
    ball = middle + 70.0 * np.concatenate([np.eye(3), -np.eye(3), np.zeros((1, 3))])
    change = found.matrix - known
    error = float(np.linalg.norm(ball @ change[:3, :3].T + change[:3, 3], axis=1).max())
    print(f"pair: {found.angle_deg:.2f}° found; {error:.2f} mm at most from the known map within 70 mm")
    return int(error > LARGEST_MM)


def follow_up(data: Path) -> int:
    """native_01: the follow-up's labels carried by the product's registration, against those given on the baseline."""
    native, given = data / "progression" / "native_01", data / "progression" / "01"
    reference = read_nifti(native / "t1c.nii.gz", kind="scalar")
    image = read_nifti(native / "followup_t1c.nii.gz", kind="scalar")
    found = align_rigidly(reference, image, "follow-up")
    labels = read_nifti(native / "followup.nii.gz", kind="label")
    known = read_nifti(next(given.glob("followup_on_baseline.nii*")), kind="label")
    there = np.asarray(known.data != 0)
    matrix = np.asarray(np.linalg.inv(found.transform.matrix))  # both baselines lie in one world
    here = np.asarray(labels.carried(matrix, "").resample_to(known).data != 0)
    dice = _dice(ndimage.binary_dilation(here), ndimage.binary_dilation(there))
    as_given = _motion_of(labels, known)
    ours, theirs = (_correlation(reference, image, one) for one in (matrix, as_given))
    shown = labels.carried(as_given, "").resample_to(known).data != 0
    print(
        f"follow-up of 01: {found.shift_mm:.1f} mm, {found.angle_deg:.1f}°, spread {found.spread_mm:.2f} mm; Dice of "
        f"masks dilated by a voxel {dice:.3f}\n  the images correlate by {ours:.3f} so, by {theirs:.3f} under the "
        f"motion that takes the labels onto the given ones (Dice {_dice(shown, there):.3f}), by "
        f"{_correlation(reference, image, np.eye(4)):.3f} unmoved"
    )
    return int(dice < 0.85 and ours <= theirs)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other)))


def _motion_of(labels: Volume, known: Volume) -> np.ndarray:
    """Return the rigid map, world to world, that brings labels onto given ones best."""
    there = np.asarray(known.data != 0)
    near = np.argwhere(ndimage.binary_dilation(there, iterations=6))
    wanted, points = there[tuple(near.T)].astype(float), known.to_world(near)
    centre = known.to_world(np.argwhere(there).mean(axis=0))
    soft = ndimage.gaussian_filter((labels.data != 0).astype(np.float32), (1, 1, 0.3))

    def back(x: np.ndarray) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_rotvec(np.radians(x[:3])).as_matrix()
        matrix[:3, 3] = centre - matrix[:3, :3] @ centre + x[3:]
        return matrix

    def misfit(x: np.ndarray) -> float:
        matrix = back(x)
        index = labels.to_index(points @ matrix[:3, :3].T + matrix[:3, 3])
        return float(((ndimage.map_coordinates(soft, index.T, order=1) - wanted) ** 2).sum())

    x = minimize(misfit, np.zeros(6), method="Powell").x
    return np.asarray(np.linalg.inv(back(minimize(misfit, x, method="Nelder-Mead").x)))


def _correlation(reference: Volume, image: Volume, matrix: np.ndarray) -> float:
    head = reference.data > np.percentile(reference.data, 60)
    moved = image.carried(matrix, "").resample_to(reference)
    return float(np.corrcoef(moved.data[head], reference.data[head])[0, 1])


if __name__ == "__main__":
    sys.exit(main())
