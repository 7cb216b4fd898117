"""Maps made elsewhere against the plans of one patient, at equal volume.

    CTV(map)   the k voxels of the brain that the map puts first, k = |standard CTV|
    gained     CTV(map) outside the standard CTV        given up    the standard CTV outside CTV(map)        in mL

and at the volumes of isotropic margins how much of all and of new later tumour each ranking covers (`equal_volume`).
Read from a plan folder alone: targets, brain and follow-up are in it. Under rules that count a resection cavity as GTV
every ranking begins with the GTV.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gliodil.data.nifti import read_nifti
from gliodil.data.volume import Volume
from gliodil.errors import InputError
from gliodil.planning.clean import Cleaning, clean_ctv
from gliodil.planning.coverage import coverage
from gliodil.planning.distance import Mask, distance_from, orthogonal_spacing
from gliodil.planning.equal_volume import MARGINS_MM, coverages
from gliodil.planning.evaluate import label_meaning, onto_plan
from gliodil.planning.maps import check_map_name, model_ranking, put_first, read_map
from gliodil.planning.margins import margin_summary

_FILES = ("gtv", "brain", "ctv_standard", "ctv_model")


def compare_maps(
    out: Path, maps: Mapping[str, Path], metrics: Mapping[str, Any], *, recurrence: Path | None = None
) -> dict[str, Any]:
    """Return the content of `compare.json`.

    Parameters
    ----------
    out
        Finished plan folder.
    maps
        NIfTI files by name.
    metrics
        Content of its `metrics.json`.
    recurrence
        Labels of the follow-up; by default those in the folder, if any.

    Returns
    -------
    dict
        `plans`, by name of the plan or map: `volume_ml`, `dice_with_model`, `gained_ml`, `given_up_ml`, `margin_mm`,
        `coverage`; and with a recurrence `margins`: `margins_mm` and the `coverage` of `all` and `new` later tumour at
        their volumes.

    Raises
    ------
    InputError, GeometryError, LabelError
        If the folder lacks a file, or a map or the recurrence cannot be read or does not belong to it.
    """
    volumes = _read(out)
    grid = volumes["gtv"]
    gtv, brain, standard, model = (np.asarray(volumes[name].data > 0) for name in _FILES)
    spacing = orthogonal_spacing(grid.affine)
    distance = distance_from(gtv, spacing, region=brain)
    first = gtv if "cavity" in metrics["rule"]["gtv"] else np.zeros_like(gtv)
    rankings: dict[str, NDArray[np.floating]] = {"model": put_first(first, model_ranking(out))}
    for name, path in maps.items():
        check_map_name(name)
        rankings[name] = put_first(first, read_map(path, grid, brain).data)
    voxels = int(np.count_nonzero(standard))
    cleaning = Cleaning.recorded(metrics["rule"])
    ctvs = {"standard": standard, "model": model}
    ctvs |= {
        name: clean_ctv(ranking, brain, distance, voxels, spacing=spacing, cleaning=cleaning, keep=gtv)
        for name, ranking in rankings.items()
        if name in maps
    }
    later = _later(out, recurrence, grid)
    convention = None if later is None else label_meaning(later, metrics.get("label_convention"))
    found = None if convention is None else coverage(later, ctvs, convention)
    return {
        "schema_version": 1,
        "patient": metrics.get("patient"),
        "maps": {name: path.name for name, path in maps.items()},
        "plans": {
            name: {
                **_against(ctv, standard, model, grid.voxel_volume_ml),
                "margin_mm": margin_summary(ctv, gtv, brain, grid.affine),
                "coverage": None
                if found is None
                else {kind: None if values is None else values[name] for kind, values in found.items()},
            }
            for name, ctv in ctvs.items()
        },
        "margins": None
        if later is None or convention is None
        else {
            "margins_mm": MARGINS_MM,
            "coverage": {
                ranking: {target: list(curve.values()) for target, curve in by_target.items()}
                for ranking, by_target in coverages(
                    rankings,
                    gtv=gtv,
                    brain=brain,
                    spacing=spacing,
                    later=(later.data != 0) & ~np.isin(later.data, convention.cavity),
                ).items()
            },
        },
    }


def _against(ctv: Mask, standard: Mask, model: Mask, voxel_ml: float) -> dict[str, float]:
    """Return volume, Dice with the model CTV, and what is gained and given up against the standard CTV."""
    sizes = int(ctv.sum()) + int(model.sum())
    return {
        "volume_ml": int(ctv.sum()) * voxel_ml,
        "dice_with_model": 2 * int((ctv & model).sum()) / sizes,
        "gained_ml": int((ctv & ~standard).sum()) * voxel_ml,
        "given_up_ml": int((standard & ~ctv).sum()) * voxel_ml,
    }


def _read(out: Path) -> dict[str, Volume]:
    missing = [f"{name}.nii.gz" for name in _FILES if not (out / f"{name}.nii.gz").is_file()]
    if missing:
        raise InputError(
            "This is not a plan folder that maps can be compared with.",
            file=out,
            expected=", ".join(f"{name}.nii.gz" for name in _FILES),
            found=f"a folder without {', '.join(missing)}",
            remedy="plan the patient again with this version of gliodil",
        )
    return {name: read_nifti(out / f"{name}.nii.gz", kind="label") for name in _FILES}


def _later(out: Path, recurrence: Path | None, grid: Volume) -> Volume | None:
    kept = out / "recurrence.nii.gz"
    file = recurrence if recurrence is not None else kept if kept.is_file() else None
    return None if file is None else onto_plan(read_nifti(file, kind="label"), grid)
