"""Which file of a patient's folder is what, told from its name.

A name is cut into lower-case tokens at everything that is not a letter or digit, and before a capital that
follows a small letter (`brainMask` -> brain, mask). A synonym is one token or several in a row, so `t1`
never matches `t1c`. The rules are tried in order and the first that matches decides: `t1_wm` is white
matter, not T1, and `segm_rec` is the recurrence, not the segmentation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.dicom.headers import is_dicom
from gliodil.data.nifti import is_nifti_name
from gliodil.errors import InputError

FILE_ROLES = ("seg", "wm", "gm", "csf", "brain", "t1", "t1c", "t2", "flair", "pet", "recurrence", "truth")
"""What a file can be; also the keys of `load_patient(files=...)` and the names of the command-line flags."""

_OUTPUT = "output"  # results of a planner, ours or published: never an input

# (role, synonyms); tokens that must stand in a row are separated by a space.
_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("truth", ("truth density",)),  # of a simulated patient
    (_OUTPUT, ("standard plan", "standardplan", "recurrence prediction", "plan difference", "plan", "ctv",
               "gtv", "density", "margin", "truth")),
    ("recurrence", ("rec", "recurrence", "segrec", "segmrec", "recseg")),
    ("brain", ("brain mask", "brainmask", "bet mask", "label brain", "skullstrip mask")),
    ("wm", ("wm", "whitematter", "white matter")),
    ("gm", ("gm", "greymatter", "graymatter", "grey matter", "gray matter")),
    ("csf", ("csf",)),
    ("seg", ("seg", "segm", "segmentation", "tumorseg", "tumourseg", "tumorsegmentation",
             "tumoursegmentation", "tumormask", "tumourmask", "tumor mask", "tumour mask", "lesion mask",
             "tumor dseg", "tumour dseg", "lesion dseg")),
    ("pet", ("pet", "fet", "fetpet", "petfet")),
    ("t1c", ("t1c", "t1ce", "t1gd", "t1cgd", "t1wce", "t1wgd", "t1post", "t1contrast", "t1 ce", "t1 gd",
             "t1 c", "t1 post", "t1 contrast", "t1w ce", "t1w gd", "t1w post")),
    ("flair", ("flair", "t2f", "t2flair")),
    ("t2", ("t2", "t2w")),
    ("t1", ("t1", "t1n", "t1w", "t1pre", "mprage")),
    ("seg", ("tumor", "tumour")),
    ("brain", ("mask", "brain")),
)  # fmt: skip


@dataclass(frozen=True)
class FoundFiles:
    """The NIfTI files of a folder, sorted by what their names say."""

    roles: Mapping[str, tuple[Path, ...]]
    """Role to the files whose names state it; more than one is ambiguous."""
    outputs: tuple[Path, ...]
    """Plans and predictions, which are not read."""
    unknown: tuple[Path, ...]
    """NIfTI files whose names say nothing."""


def role_of_name(name: str) -> str | None:
    """Return the role a file name states: one of `FILE_ROLES`, `"output"`, or None if it says nothing.

    >>> role_of_name("BraTS-GLI-00000-000-t1n.nii.gz"), role_of_name("segm_rec.nii.gz")
    ('t1', 'recurrence')
    """
    stem = re.sub(r"\.nii(\.gz)?$", "", name, flags=re.IGNORECASE)
    if stem.lower().startswith("sub-"):
        # BIDS entities that say where or when, not what: ses-recurrence, space-T1w, rec-norm.
        stem = re.sub(r"(^|_)(sub|ses|space|rec|acq|run|dir)-[^_]*", "", stem, flags=re.IGNORECASE)
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem)
    tokens = [token for token in re.split(r"[^a-z0-9]+", split.lower()) if token]
    # BIDS names the contrast agent in an entity: ce-gadolinium_T1w.
    if "ce" in tokens and {"t1", "t1w"} & set(tokens):
        tokens.append("t1c")
    text = f" {' '.join(tokens)} "
    return next((role for role, synonyms in _RULES if any(f" {s} " in text for s in synonyms)), None)


def find_files(folder: Path | str) -> FoundFiles:
    """Return the NIfTI files of a patient's folder by role; none if it holds DICOM instead.

    Only the folder itself is searched if it holds NIfTI files; otherwise its subfolders are too (BIDS).

    Raises
    ------
    InputError
        If the folder is missing, is a file, or holds neither NIfTI nor DICOM files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            "This is a file, not a patient folder."
            if folder.exists()
            else "The patient folder does not exist.",
            file=folder,
            expected="a folder of NIfTI files or DICOM series",
            remedy="name single files with --seg, --wm, ..." if folder.exists() else "check the path",
        )
    images = sorted(path for path in folder.iterdir() if _is_image(path))
    images = images or sorted(path for path in _walk(folder) if _is_image(path))
    if not images and not any(is_dicom(path) for path in _walk(folder)):
        raise _no_images(folder)
    by_role: dict[str | None, tuple[Path, ...]] = {}
    for path in images:
        role = role_of_name(path.name)
        by_role[role] = (*by_role.get(role, ()), path)
    outputs, unknown = by_role.pop(_OUTPUT, ()), by_role.pop(None, ())
    return FoundFiles({role: paths for role, paths in by_role.items() if role}, outputs, unknown)


def _is_image(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and is_nifti_name(path.name)


def _walk(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _no_images(folder: Path) -> InputError:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return InputError(
        "The folder holds no images.",
        file=folder,
        expected="NIfTI files (.nii or .nii.gz) or DICOM series",
        found=", ".join(names[:10]) + (" ..." if len(names) > 10 else "") or "an empty folder",
        remedy="check the path, or name the files with --seg, --wm, ...",
    )
