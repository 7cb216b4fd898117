"""Transforms on disk: a folder that ITK and ANTs can read too, and nothing that runs code when read.

    affine.txt              A as an ITK affine transform (text)
    warp.nii.gz             d, displacement field in mm          } absent in rigid
    inverse_warp.nii.gz     e, of the other direction            } and affine transforms
    transform.json          the grids of the two images

ITK's points are LPS: x and y have the other sign than in this package, in the affine and in every vector. With ANTs
the same image results from ``antsApplyTransforms -t warp.nii.gz -t affine.txt``; back with
``-t [affine.txt,1] -t inverse_warp.nii.gz``.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from gliodil.data.atomic import atomic_path
from gliodil.data.gate import read_json
from gliodil.data.nifti import is_nifti_name, read_nifti, write_nifti
from gliodil.data.registration.transform import Field, GridGeometry, Matrix, Transform, Warp
from gliodil.errors import GliodilError, ImageFileError, InputError, OutputError

SCHEMA_VERSION = 1
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_FILES = {"affine": "affine.txt", "forward": "warp.nii.gz", "backward": "inverse_warp.nii.gz"}
_INFO = "transform.json"


def save_transform(transform: Transform, folder: Path | str) -> Path:
    """Write a transform into a folder and return the folder; equal transforms give equal bytes.

    Raises
    ------
    OutputError
        If the folder cannot be written to.
    """
    folder = Path(folder)
    with atomic_path(folder / _FILES["affine"]) as temporary:
        temporary.write_text(_affine_text(transform.matrix), encoding="ascii")
    if transform.warp is not None:
        for name in ("forward", "backward"):
            content = _field_bytes(getattr(transform.warp, name), transform.warp.affine)
            with atomic_path(folder / _FILES[name]) as temporary:
                temporary.write_bytes(content)
    info = {
        "schema_version": SCHEMA_VERSION,
        "direction": "affine.txt and warp.nii.gz carry images of the moving space to the fixed space",
        "has_warp": transform.warp is not None,
        "fixed": _grid_record(transform.fixed),
        "moving": _grid_record(transform.moving),
    }
    # Last, so that an incomplete folder is not taken for a transform.
    with atomic_path(folder / _INFO) as temporary:
        temporary.write_text(json.dumps(info, indent=1) + "\n", encoding="ascii")
    return folder


def load_transform(folder: Path | str) -> Transform:
    """Read a transform from the folder that `save_transform` wrote.

    Raises
    ------
    InputError
        If the folder is not one, or a file in it is missing or damaged.
    """
    folder = Path(folder)
    path = folder / _INFO
    try:
        info = read_json(path, expected="the description of a transform")
        grids = [
            GridGeometry(tuple(info[k]["shape"]), np.array(info[k]["affine"])) for k in ("fixed", "moving")
        ]
        path = folder / _FILES["affine"]
        matrix = _affine_from(path.read_text(encoding="ascii"))
        warp = None
        if info["has_warp"]:
            (forward, affine), (backward, other) = (
                _read_field(path := folder / _FILES[name]) for name in ("forward", "backward")
            )
            if not np.allclose(affine, other, atol=1e-4):
                raise ValueError("the two warps lie on different grids")
            warp = Warp(forward, backward, affine)
        return Transform(matrix, grids[0], grids[1], warp)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, GliodilError) as error:
        found = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or repr(error)
        raise InputError(
            "This is not a folder with a transform, or it is damaged.",
            file=path,
            expected=f"{_INFO}, {_FILES['affine']} and, for a warp, {_FILES['forward']} and {_FILES['backward']}",
            found=found.split("\n")[0],
            remedy="name a folder below preprocess/transforms of a plan folder",
        ) from error


def apply_transform_file(
    folder: Path | str,
    image: Path | str,
    out: Path | str,
    *,
    onto: Path | str | None = None,
    inverse: bool = False,
    labels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Carry a NIfTI file through a stored transform, write the result and return its path.

    Parameters
    ----------
    folder
        Written by `save_transform`.
    onto
        File whose grid the result gets; by default that of the image the transform leads to.
    inverse
        From the fixed to the moving space (patient to template) instead of the other way.
    labels
        The image holds labels.
    overwrite
        Replace a file that is there already, unless it is one of those that are read.

    Raises
    ------
    InputError
        If a file is missing, damaged or not what it should be, or `out` is not named as NIfTI.
    OutputError
        If the result cannot be written, or would replace a file.
    """
    out = Path(out)
    if not is_nifti_name(out.name):
        raise InputError(
            "The result has to be named as NIfTI.",
            file=out,
            expected="a name ending in .nii or .nii.gz",
            remedy="choose another one with --out",
        )
    read = [Path(image), *([] if onto is None else [Path(onto)])]
    is_read = out.exists() and any(each.exists() and each.samefile(out) for each in read)
    if is_read or (os.path.lexists(out) and not overwrite):
        raise OutputError(
            "There is a file of that name already.",
            file=out,
            expected="a new file",
            found="one of the files that are read" if is_read else "another file",
            remedy="choose another one with --out" + ("" if is_read else ", or replace it with --overwrite"),
        )
    transform = load_transform(folder)
    volume = read_nifti(image, kind="label" if labels else "scalar")
    grid = None if onto is None else read_nifti(onto, kind="scalar")
    carried = transform.apply(volume, grid, inverse=inverse)
    if not carried.data.any() and volume.data.any():
        raise InputError(
            "Nothing of the image reaches the grid of the result.",
            file=Path(image),
            expected="an image in the space of the patient"
            if inverse
            else "an image in the space of the template",
            found="only zeros after the transform",
            remedy="leave out --inverse" if inverse else "add --inverse, or choose another grid with --onto",
        )
    return write_nifti(carried, out)


def transform_files(folder: Path) -> list[Path]:
    """Return the files in a folder that `save_transform` writes."""
    return [path for name in (*_FILES.values(), _INFO) if (path := folder / name).is_file()]


def _affine_text(matrix: Matrix) -> str:
    lps = _LPS @ matrix @ _LPS
    numbers = " ".join(repr(float(v)) for v in (*lps[:3, :3].ravel(), *lps[:3, 3]))
    return (
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )


def _affine_from(text: str) -> Matrix:
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    numbers = [float(word) for word in lines["Parameters"].split()]
    centre = [float(word) for word in lines["FixedParameters"].split()]
    if len(numbers) != 12 or any(centre):
        raise ValueError("an affine transform of 12 numbers about the origin is expected")
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = np.reshape(numbers[:9], (3, 3)), numbers[9:]
    return np.asarray(_LPS @ lps @ _LPS)


def _field_bytes(field: Field, affine: Matrix) -> bytes:
    vectors = (field * np.diag(_LPS)[:3]).astype(np.float32)[:, :, :, None, :]
    image = nib.Nifti1Image(vectors, affine)
    image.header.set_intent("vector")
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)


def _read_field(path: Path) -> tuple[Field, Matrix]:
    try:
        with gzip.open(path) as stream:
            image = nib.Nifti1Image.from_bytes(stream.read())
        vectors = np.asarray(image.dataobj, np.float32)
    except FileNotFoundError:
        raise
    except Exception as error:  # nibabel and zlib raise many kinds for damaged files
        raise ImageFileError("The displacement field is damaged.", file=path, found=str(error)) from error
    if vectors.ndim != 5 or vectors.shape[3:] != (1, 3):
        raise ValueError(f"a field of vectors is expected, not shape {vectors.shape}")
    return vectors[:, :, :, 0, :] * np.diag(_LPS)[:3].astype(np.float32), np.asarray(image.affine)


def _grid_record(grid: GridGeometry) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}
