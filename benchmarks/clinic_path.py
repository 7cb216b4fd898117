"""A clinic's path end to end: planning CT, MR, registration object or none, RTSTRUCT on either; RTSTRUCT on the CT out.

    python benchmarks/clinic_path.py                   all paths
    python benchmarks/clinic_path.py --only reg-ct tilted-reg-mr
    python benchmarks/clinic_path.py --keep DIR        keep inputs and results

A head is drawn from ellipsoids: brain, ventricles, bone with an opening, skin, one ear; the tumour is a ball that stands
as a formula, so that the truth has no voxels. Both images show it, each in its own frame of reference and on its own
slices. The result is read by this file alone (pydicom, polygons, own rasterisation), and by rt-utils and
dcmrtstruct2nii where they are installed.

Faults (exit code 1): contours of the GTV off the truth by more than half a pixel of the CT on average, or by more than
the larger slice distance anywhere; a contour on no slice of the CT; another frame of reference; model and standard CTV
that enclose different volumes; a foreign reader that finds another mask.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from dicom_series import write_series
from planning import CT_FRAME, MR_FRAME, THIRD_FRAME, rigid, write_reg, write_structures

from gliodil.cli import main as gliodil
from gliodil.data import Volume, write_nifti

MR_TO_CT = rigid(9.0, (13.0, -21.0, 34.0), (0.5, -0.3, 1.0))
CENTRE = np.array([27.0, -14.0, 18.0])
RADIUS = 15.0
MR_SPACING, CT_SPACING = (1.5, 1.5, 1.5), (1.2, 1.2, 2.0)
TILT = 0.3

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """One path: which registration there is, what the tumour was drawn on, how the gantry stood."""

    registration: str
    drawn: str
    tilt: float = 0.0

    @property
    def same(self) -> bool:
        """Whether MR and CT share a frame."""
        return self.registration == "same"


WAYS = {
    "same-mr": Way("same", "MR"),
    "same-ct": Way("same", "CT"),
    "reg-mr": Way("usual", "MR"),
    "reg-ct": Way("usual", "CT"),
    "reverse-mr": Way("reverse", "MR"),
    "third-ct": Way("third", "CT"),
    "tilted-reg-mr": Way("usual", "MR", TILT),
    "none-mr": Way("none", "MR"),
    "none-ct": Way("none", "CT"),
    "tilted-none-mr": Way("none", "MR", TILT),
}


def inside(world: Points, radii: Sequence[float], centre: Sequence[float] = (0, 0, 0)) -> NDArray[np.bool_]:
    """Where points lie in an ellipsoid."""
    return np.asarray((((world - centre) / radii) ** 2).sum(axis=-1) < 1)


def head(world: Points) -> dict[str, NDArray[np.float32]]:
    """What the head is made of at points of the MR's world [mm]: masks, the T1 image, Hounsfield units."""
    brain = inside(world, (66, 82, 60)) & ~inside(world, (60, 40, 30), (0, 60, -60))
    skull = (
        inside(world, (74, 90, 69))
        & ~inside(world, (69, 85, 63.5))
        & ~inside(world, (20, 20, 40), (0, -30, -62))
    )
    skin = inside(world, (79, 95, 74))
    nose, ear = inside(world, (11, 17, 19), (0, 100, -25)), inside(world, (8, 13, 17), (80, -8, -20))
    ventricles = inside(world, (7, 24, 9), (11, 4, 12)) | inside(world, (6, 20, 11), (-10, 2, 12))
    sinus = inside(world, (16, 9, 11), (3, 78, -22))
    ripple = np.sin(world[..., 0] / 5.1) * np.sin(world[..., 1] / 4.3) * np.sin(world[..., 2] / 4.7)
    white = brain & ~ventricles & (inside(world, (52, 66, 46)) | (ripple > 0.25))
    tumour = np.linalg.norm(world - CENTRE, axis=-1) <= RADIUS
    body = skin | nose | ear
    t1 = np.select(
        [sinus, tumour, ventricles, white, brain, skull, body], [10, 900, 130, 600, 450, 40, 700], 5
    )
    hu = np.select(
        [sinus, tumour, ventricles, white, brain, skull, body], [-900, 45, 8, 28, 38, 950, 30], -1000
    )
    grey = brain & ~white & ~ventricles
    parts = {"brain": brain, "wm": white, "gm": grey, "csf": ventricles & brain, "t1": t1, "hu": hu}
    return {name: np.asarray(part, np.float32) for name, part in parts.items()}


def on_grid(
    shape: tuple[int, ...], affine: NDArray[np.float64], to_mr: NDArray[np.float64], seed: int
) -> dict:
    """Return the head on a grid, each voxel the mean of eight points in it, with the scanner's noise."""
    total: dict[str, NDArray[np.float32]] = {}
    whole = to_mr @ affine
    index = np.moveaxis(np.indices(shape), 0, -1)
    for corner in np.ndindex(2, 2, 2):
        points = index + np.array(corner) / 2 - 0.25
        for name, part in head(points @ whole[:3, :3].T + whole[:3, 3]).items():
            total[name] = total.get(name, np.float32(0)) + part / 8
    noise = np.random.default_rng(seed).normal(size=shape)
    return total | {"t1": total["t1"] + 12 * noise, "hu": total["hu"] + 8 * noise}


def geometry(spacing: Sequence[float], span: Sequence[float], centre: Points, tilt: float = 0.0) -> tuple:
    """Return shape and affine (RAS) of an axial stack about a centre, sheared by `tilt`."""
    shape = tuple(int(np.ceil(length / step)) for length, step in zip(span, spacing, strict=True))
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    affine[1, 2] = tilt * spacing[2]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return shape, affine


def make(folder: Path, way: Way) -> list[str]:
    """Write the inputs of a path; return the arguments of `gliodil plan`."""
    link = np.eye(4) if way.same else MR_TO_CT
    frame = MR_FRAME if way.same else CT_FRAME
    shape, affine = geometry(MR_SPACING, (176, 216, 168), np.zeros(3))
    mr = on_grid(shape, affine, np.eye(4), 1)
    series = write_series(
        folder / "P" / "MR", mr["t1"], affine, description="t1 mprage +C", frame_of_reference=MR_FRAME
    )
    for role in ("wm", "gm", "csf", "brain"):
        data = mr[role] if role != "brain" else (mr[role] > 0.5).astype(np.uint8)
        kind = "label" if role == "brain" else "scalar"
        write_nifti(Volume(data, affine, kind=kind), folder / "P" / f"{role}.nii.gz")
    middle = (link @ [0, 0, 0, 1])[:3]
    ct_shape, ct_affine = geometry(CT_SPACING, (240, 240, 190), middle + np.array([4, -6, 5]), way.tilt)
    ct = on_grid(ct_shape, ct_affine, np.linalg.inv(link), 2)
    ct_series = write_series(
        folder / "P" / "CT", ct["hu"], ct_affine, modality="CT", description="planning CT", number=7,
        frame_of_reference=frame,
    )  # fmt: skip
    half = rigid(25.0, (7, 8, -40), (1, 0.4, 0))
    if way.registration == "usual":
        write_reg(folder / "P" / "RE.dcm", CT_FRAME, [(CT_FRAME, [np.eye(4)]), (MR_FRAME, [link])])
    elif way.registration == "reverse":
        write_reg(folder / "P" / "RE.dcm", MR_FRAME, [(CT_FRAME, [np.linalg.inv(link)]), (MR_FRAME, [])])
    elif way.registration == "third":
        write_reg(folder / "P" / "RE.dcm", THIRD_FRAME, [(MR_FRAME, [half @ link]), (CT_FRAME, [half])])
    if way.drawn == "CT":
        write_structures(folder / "P" / "RS.dcm", ct_series, (link @ [*CENTRE, 1])[:3], RADIUS, frame)
    else:
        write_structures(folder / "P" / "RS.dcm", series, CENTRE, RADIUS, MR_FRAME)
    return ["plan", str(folder / "P"), "--out", str(folder / "out"), "--cells", "16"]


def polygons(path: Path) -> dict[str, list[Points]]:
    """Return the contours of each structure, LPS mm."""
    data = pydicom.dcmread(path)
    names = {int(roi.ROINumber): str(roi.ROIName) for roi in data.StructureSetROISequence}
    return {
        names[int(roi.ReferencedROINumber)]: [
            np.array(contour.ContourData, float).reshape(-1, 3) for contour in roi.ContourSequence
        ]
        for roi in data.ROIContourSequence
    }


def crossings(loop: Points, x: Points, y: Points) -> NDArray[np.bool_]:
    """Return which points of the plane (x by y) an odd number of edges lies to the right of."""
    odd = np.zeros((len(x), len(y)), bool)
    for (x0, y0), (x1, y1) in zip(loop, np.roll(loop, -1, axis=0), strict=True):
        rows = (y0 <= y) != (y1 <= y)
        if rows.any():
            odd[:, rows] ^= x[:, None] < (x0 + (y[rows] - y0) * (x1 - x0) / (y1 - y0))[None, :]
    return odd


def rasterised(loops: Sequence[Points], headers: Sequence[pydicom.Dataset]) -> NDArray[np.bool_]:
    """Return a structure on the slices of an axial series, (columns, rows, slices), by the even-odd rule."""
    mask = np.zeros((headers[0].Columns, headers[0].Rows, len(headers)), bool)
    for loop in loops:
        k = int(np.argmin([abs(float(h.ImagePositionPatient[2]) - loop[0, 2]) for h in headers]))
        x0, y0, _ = (float(v) for v in headers[k].ImagePositionPatient)
        dy, dx = (float(v) for v in headers[k].PixelSpacing)
        mask[:, :, k] ^= crossings(
            loop[:, :2], x0 + dx * np.arange(mask.shape[0]), y0 + dy * np.arange(mask.shape[1])
        )
    return mask


def ball_mask(headers: Sequence[pydicom.Dataset], centre: Points) -> NDArray[np.bool_]:
    """Return the tumour (centre: LPS mm) on the slices of an axial series, (columns, rows, slices)."""
    x, y = np.indices((headers[0].Columns, headers[0].Rows))
    planes = []
    for header in headers:
        place, (dy, dx) = np.array(header.ImagePositionPatient, float) - centre, header.PixelSpacing
        planes.append((place[0] + dx * x) ** 2 + (place[1] + dy * y) ** 2 + place[2] ** 2 <= RADIUS**2)
    return np.stack(planes, axis=-1)


def faults(folder: Path, way: Way) -> tuple[dict[str, float], list[str]]:
    """Return figures of a result, and what is wrong with it."""
    link = np.eye(4) if way.same else MR_TO_CT
    wrong: list[str] = []
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in (folder / "P" / "CT").iterdir()]
    headers.sort(key=lambda h: float(h.ImagePositionPatient[2]))
    slices = {str(h.SOPInstanceUID): float(h.ImagePositionPatient[2]) for h in headers}
    path = folder / "out" / "ct" / "rtstruct.dcm"
    data = pydicom.dcmread(path)
    if {str(data.FrameOfReferenceUID)} != {str(h.FrameOfReferenceUID) for h in headers}:
        wrong.append("another frame of reference")
    for roi in data.ROIContourSequence:
        for contour in roi.ContourSequence:
            height = np.array(contour.ContourData[2::3], float)
            named = slices.get(str(contour.ContourImageSequence[0].ReferencedSOPInstanceUID), np.inf)
            if np.abs(height - named).max() > 1e-3:
                wrong.append("a contour on no slice of the CT")
                break
    drawn = polygons(path)
    truth = (link @ [*CENTRE, 1])[:3] * (-1, -1, 1)
    # In its plane a contour should be the circle in which the plane cuts the ball.
    off = []
    for loop in drawn["GTV"]:
        reach = np.sqrt(max(RADIUS**2 - (loop[0, 2] - truth[2]) ** 2, 0))
        centre_off = np.linalg.norm(loop[:, :2] - truth[:2], axis=1) - reach
        off.append(centre_off if reach > RADIUS / 2 else np.linalg.norm(loop - truth, axis=1) - RADIUS)
    error = np.abs(np.concatenate(off))
    pixel = float(headers[0].PixelSpacing[0])
    masks = {name: rasterised(loops, headers) for name, loops in drawn.items()}
    x, y = np.indices(masks["GTV"].shape[:2])
    exact = np.zeros_like(masks["GTV"])
    for k, header in enumerate(headers):
        x0, y0, z0 = (float(v) for v in header.ImagePositionPatient)
        dy, dx = (float(v) for v in header.PixelSpacing)
        exact[:, :, k] = (x0 + dx * x - truth[0]) ** 2 + (y0 + dy * y - truth[1]) ** 2 + (
            z0 - truth[2]
        ) ** 2 <= RADIUS**2
    if error.mean() > pixel / 2:
        wrong.append(f"contours {error.mean():.2f} mm off")
    if error.max() > max(MR_SPACING[2], CT_SPACING[2]):
        wrong.append(f"a contour {error.max():.2f} mm off")
    if masks["CTV model"].sum() != masks["CTV standard"].sum():
        wrong.append("CTVs of different volumes")
    # Neither foreign reader knows slices that a tilted gantry shifts.
    foreign = dict.fromkeys(READERS, np.nan) if way.tilt else foreign_dice(folder, masks)
    wrong += [f"{name} reads Dice {value:.3f}" for name, value in foreign.items() if value < FOREIGN_DICE]
    metrics = json.loads((folder / "out" / "metrics.json").read_text())
    return {
        "mean": float(error.mean()),
        "max": float(error.max()),
        "dice": dice(exact, masks["GTV"]),
        "spread": metrics["ct"]["spread_mm"] or np.nan,
        "difference": metrics["ct"]["difference_mm"] or np.nan,
        **foreign,
    }, wrong


Masks = dict[str, NDArray[np.bool_]]

FOREIGN_DICE = 0.95
"""What a foreign reader must reach: both round contours to whole pixels, which half a pixel is enough for in the GTV."""


def rt_utils(folder: Path, names: Sequence[str]) -> Masks | None:
    """Return the masks of rt-utils; None if it is not installed."""
    try:
        from rt_utils import RTStructBuilder
    except ImportError:
        return None
    # Its masks of images that are not square are wrong; the CT here is square.
    found = RTStructBuilder.create_from(str(folder / "P" / "CT"), str(folder / "out" / "ct" / "rtstruct.dcm"))
    return {name: found.get_roi_mask_by_name(name).transpose(1, 0, 2) for name in names}


def dcmrtstruct2nii(folder: Path, names: Sequence[str]) -> Masks | None:
    """Return the masks of dcmrtstruct2nii; None if it is not installed."""
    try:
        from dcmrtstruct2nii import dcmrtstruct2nii as convert
    except ImportError:
        return None
    import nibabel as nib

    pydicom.read_file = pydicom.dcmread  # what pydicom 3 took out, and it still calls
    out, path = folder / "foreign", folder / "out" / "ct" / "rtstruct.dcm"
    convert(str(path), str(folder / "P" / "CT"), str(out), convert_original_dicom=False)
    images = {name: nib.load(out / f"mask_{name.replace(' ', '-')}.nii.gz") for name in names}
    return {name: np.asarray(image.dataobj) > 0 for name, image in images.items()}


READERS: dict[str, Callable[[Path, Sequence[str]], Masks | None]] = {
    "rt-utils": rt_utils,
    "dcmrtstruct2nii": dcmrtstruct2nii,
}


def foreign_dice(folder: Path, masks: Masks) -> dict[str, float]:
    """Return the smallest Dice of any structure, by reader; nan if it is not installed."""
    found = {}
    for reader, read in READERS.items():
        with contextlib.redirect_stdout(io.StringIO()):
            other = read(folder, list(masks))
        found[reader] = (
            np.nan if other is None else min(dice(other[name], mask) for name, mask in masks.items())
        )
    return found


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks."""
    return 2 * float((a & b).sum() / (a.sum() + b.sum()))


def main() -> int:
    """Run the paths and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    print(
        f"{'path':<16}{'mean':>6}{'max':>7}{'Dice':>8}{'spread':>8}{'differ':>8}{'rt-utils':>10}{'rtstruct2nii':>14}{'s':>6}"
    )
    bad = 0
    for name in arguments.only:
        way, started = WAYS[name], time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) if arguments.keep is None else arguments.keep / name
            words, said = make(folder, way), io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = gliodil([*words, "--overwrite"])
            if code:
                print(f"{name:<16}exit code {code}\n{said.getvalue()}")
                bad += 1
                continue
            figures, wrong = faults(folder, way)
        seconds = time.perf_counter() - started
        foreign = f"{figures['rt-utils']:10.3f}{figures['dcmrtstruct2nii']:14.3f}"
        print(
            f"{name:<16}{figures['mean']:6.2f}{figures['max']:7.2f}{figures['dice']:8.3f}{figures['spread']:8.2f}"
            f"{figures['difference']:8.2f}{foreign}{seconds:6.0f}  {'; '.join(wrong)}",
            flush=True,
        )
        bad += bool(wrong)
    print(
        f"{len(arguments.only)} paths, {bad} with a fault; mm, half a pixel of the CT is {CT_SPACING[0] / 2} mm"
    )
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
