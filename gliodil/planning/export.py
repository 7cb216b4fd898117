"""Plans as DICOM for planning systems, on the slices of a reference series, read back before they count.

Three files: `rtstruct.dcm` (contours), `seg.dcm` (the same masks, pixel for pixel) and `density_seg.dcm` (the
density, fractional). Each mask must come back from both of its files voxel for voxel, and the polygons must
enclose what its outlines do: that volume is what planning systems integrate. It differs from the volume of the
voxels by half a pixel per contour at most (`data/dicom/contours.py`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gliodil.data.dicom.reference import Reference, read_reference
from gliodil.data.dicom.rtstruct import encode_rtstruct, write_rtstruct
from gliodil.data.dicom.rtstruct_reader import enclosed_areas, read_rtstruct
from gliodil.data.dicom.seg import FRACTION_STEP, encode_seg, write_fractional_seg, write_seg
from gliodil.data.dicom.seg_reader import read_fractional_seg, read_segments
from gliodil.data.dicom.structures import outlined_pixels, place
from gliodil.data.volume import Volume
from gliodil.errors import MissingExtraError, OutputError
from gliodil.planning.plans import Plans

FILES = ("rtstruct.dcm", "seg.dcm", "density_seg.dcm")
NOTABLE_CHANGE = 0.01
NOTABLE_ML = 0.1
"""Relative and absolute change of a volume, from the grid of the plan to the series, that deserve a warning."""
POLYGON_TOLERANCE = 1e-4
"""Relative error that writing positions to 0.0001 mm may leave in an area."""


@dataclass(frozen=True)
class RoundTrip:
    """What came back from the files for one structure.

    Attributes
    ----------
    dice, seg_dice
        Overlap of the mask on the series with what the RTSTRUCT and the SEG hold: 1.
    plan_ml
        Volume on the grid of the plan [mL].
    voxel_ml
        Volume of its voxels on the series [mL].
    polygon_ml
        Volume inside its contours [mL].
    difference_percent
        Polygons against voxels [%].
    contours
        Number of contours.
    """

    dice: float
    seg_dice: float
    plan_ml: float
    voxel_ml: float
    polygon_ml: float
    difference_percent: float
    contours: int


@dataclass(frozen=True)
class Exported:
    """The files written, what came back from them, and what to know about them."""

    files: tuple[Path, ...]
    structures: Mapping[str, RoundTrip]
    density_error: float
    """Largest difference between the density on the series and what its file holds."""
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as they stand in `metrics.json`; files by name."""
        return {
            "files": [path.name for path in self.files],
            "structures": {name: asdict(trip) for name, trip in self.structures.items()},
            "density_error": self.density_error,
        }


def plan_structures(plans: Plans) -> dict[str, Volume]:
    """Return the masks of a plan under the names they have in planning systems; empty ones are left out."""
    ctv = {"standard": plans.standard, "trimmed": plans.trimmed, "model": plans.model}
    masks = _targets("", plans.gtv, ctv, plans.ptv)
    if (initial := plans.initial) is not None:
        masks |= _targets("initial ", initial.gtv, initial.ctv, initial.ptv)
    return {name: mask for name, mask in masks.items() if mask.data.any()}


def structure_name(file: str) -> str:
    """Return the name of a target in planning systems from that of its file: `ctv_initial_model`, `gtv`, ..."""
    kind, *rest = file.split("_")
    return " ".join((kind.upper(), *rest))


def _targets(
    phase: str, gtv: Volume, ctv: Mapping[str, Volume], ptv: Mapping[str, Volume]
) -> dict[str, Volume]:
    """Return the targets of one phase as `GTV`, `CTV standard`, ..., `PTV standard`, ..."""
    kinds = {"CTV": ctv, "PTV": ptv}
    named = {f"{kind} {phase}{name}": mask for kind, masks in kinds.items() for name, mask in masks.items()}
    return {f"GTV {phase}".strip(): gtv, **named}


def check_export(files: Sequence[Path | str], gtv: Volume) -> None:
    """Raise what `export_plan` and `export_structures` would refuse, given the GTV; write nothing."""
    for library in ("pydicom", "highdicom"):
        if find_spec(library) is None:
            raise MissingExtraError(library, "dicom")
    reference = read_reference(files)
    placed = place({"GTV": gtv}, reference)
    # What headers do not allow, their character set for one, shows when the objects are made.
    encode_rtstruct(placed, reference)
    encode_seg(placed, reference)


def export_plan(
    folder: Path | str,
    plans: Plans,
    files: Sequence[Path | str],
    *,
    keyholes: bool = False,
    created: datetime | None = None,
) -> Exported:
    """Write the plans as DICOM on a series, read them back, and return how they compare; see `export_structures`."""
    return export_structures(
        folder, plan_structures(plans), plans.density, files, keyholes=keyholes, created=created
    )


def export_structures(
    folder: Path | str,
    structures: Mapping[str, Volume],
    density: Volume,
    files: Sequence[Path | str],
    *,
    keyholes: bool = False,
    created: datetime | None = None,
) -> Exported:
    """Write masks and a density as DICOM on a series, read them back, and return how they compare.

    All three files appear, or none.

    Parameters
    ----------
    folder
        Where to write; created if need be.
    structures, density
        What to write, in the frame of the series; on another grid it is resampled.
    files
        DICOM files of the reference series.
    keyholes
        Tie holes to their island by cuts of no width, for systems that do not understand holes.
    created
        Date and time in the files; by default those of the study.

    Raises
    ------
    OutputError
        If the folder cannot be written to, or a file does not hold what it should.
    InputError
        If a structure lies outside the series altogether.
    ImageFileError, GeometryError
        If the series cannot be referred to.
    MissingExtraError
        If pydicom or highdicom is not installed.
    """
    reference = read_reference(files)
    placed = place(structures, reference)
    density = density.resample_to(reference.grid)
    with _together(Path(folder)) as partial:
        contours, masks, map_file = (partial / name for name in FILES)
        write_rtstruct(contours, placed, reference, keyholes=keyholes, created=created)
        write_seg(masks, placed, reference, created=created)
        write_fractional_seg(map_file, density, reference, created=created)
        trips = _round_trips(structures, placed, reference, contours, masks)
        error = float(np.abs(_onto(read_fractional_seg(map_file), reference) - density.data).max())
        if error > 0.501 * FRACTION_STEP:
            raise _not_what_was_written(map_file, f"a density off by {error:.2g}")
    warnings = [*_cut_off(structures, reference), *_changed(trips)]
    paths = tuple(Path(folder) / name for name in FILES)
    return Exported(paths, trips, error, tuple(warnings))


def _round_trips(
    structures: Mapping[str, Volume],
    placed: Mapping[str, Volume],
    reference: Reference,
    contours: Path,
    masks: Path,
) -> dict[str, RoundTrip]:
    """Compare every structure with what the files hold; refuse if a voxel differs."""
    drawn = read_rtstruct(contours, reference.grid, frame_of_reference=reference.frame_of_reference)
    areas = enclosed_areas(contours)
    segments = read_segments(masks)
    stored = {segments.names[number]: mask for number, mask in segments.masks.items()}
    trips = {}
    for name, mask in placed.items():
        if name not in drawn or name not in stored:
            raise _not_what_was_written(contours if name not in drawn else masks, f"no structure {name}")
        voxels = int(np.count_nonzero(mask.data))
        count, area = areas[name]
        polygon_ml = area * reference.slice_distance / 1000
        trip = RoundTrip(
            dice=_dice(drawn[name].data, mask.data),
            seg_dice=_dice(_onto(stored[name], reference), mask.data),
            plan_ml=int(np.count_nonzero(structures[name].data)) * structures[name].voxel_volume_ml,
            voxel_ml=voxels * mask.voxel_volume_ml,
            polygon_ml=polygon_ml,
            difference_percent=100 * (polygon_ml / (voxels * mask.voxel_volume_ml) - 1),
            contours=count,
        )
        if trip.dice < 1:
            raise _not_what_was_written(contours, f"{name} with Dice {trip.dice:.6f}")
        if not np.isclose(area, outlined_pixels(mask) * reference.pixel_area, rtol=POLYGON_TOLERANCE):
            raise _not_what_was_written(contours, f"{name} with {polygon_ml:.4f} mL inside its polygons")
        if trip.seg_dice < 1:
            raise _not_what_was_written(masks, f"{name} with Dice {trip.seg_dice:.6f}")
        trips[name] = trip
    return trips


def _onto(volume: Volume, reference: Reference) -> Any:
    return volume.resample_to(reference.grid).data


def _dice(a: Any, b: Any) -> float:
    a, b = a != 0, b != 0
    return 2 * int(np.count_nonzero(a & b)) / (int(np.count_nonzero(a)) + int(np.count_nonzero(b)))


def _cut_off(structures: Mapping[str, Volume], reference: Reference) -> Iterator[str]:
    """Say which structures reach beyond the field of view of the series."""
    low, high = -0.5, np.asarray(reference.shape) - 0.5
    for name, mask in structures.items():
        index = reference.grid.to_index(mask.to_world(np.argwhere(mask.data)))
        beyond = int(np.count_nonzero(((index < low) | (index > high)).any(axis=1)))
        if beyond:
            yield (
                f"{name} reaches beyond the reference series: {beyond * mask.voxel_volume_ml:.2f} mL of it "
                "are missing in the DICOM files"
            )


def _changed(trips: Mapping[str, RoundTrip]) -> Iterator[str]:
    for name, trip in trips.items():
        change = trip.voxel_ml / trip.plan_ml - 1
        if abs(change) > NOTABLE_CHANGE and abs(trip.voxel_ml - trip.plan_ml) > NOTABLE_ML:
            yield (
                f"{name} has {trip.voxel_ml:.1f} mL on the slices of the reference series and "
                f"{trip.plan_ml:.1f} mL on the grid of the plan ({100 * change:+.1f} %)"
            )


@contextmanager
def _together(folder: Path) -> Iterator[Path]:
    """Yield a hidden folder; move `FILES` from it into `folder` if the block ends well."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".dicom-", dir=folder) as scratch:
            yield Path(scratch)
            for name in FILES:
                os.replace(Path(scratch) / name, folder / name)
    except OSError as error:
        raise OutputError(
            "The DICOM files could not be written.",
            file=folder,
            expected="a folder that can be written to, with room left",
            found=error.strerror or str(error),
            remedy="choose another output folder",
        ) from error


def _not_what_was_written(path: Path, found: str) -> OutputError:
    return OutputError(
        "A DICOM file does not give back what was written into it; none was kept.",
        file=path.name,
        expected="every structure voxel for voxel",
        found=found,
        remedy="report this, with the geometry of the series",
    )
