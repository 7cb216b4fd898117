"""Which file of a patient's folder is what, told from its name.

A name is cut into lower-case tokens at everything that is not a letter or digit, and before a capital that
follows a small letter (`brainMask` -> brain, mask). A synonym is one token or several in a row, so `t1`
never matches `t1c`. The rules are tried in order and the first that matches decides: `t1_wm` is white
matter, not T1, and `segm_rec` is the recurrence, not the segmentation. Functional, diffusion and perfusion images and
their masks are no input, whatever else their names say.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.dicom.headers import is_dicom
from gliodil.data.nifti import is_nifti_name
from gliodil.data.tree import Tree, look_through
from gliodil.errors import InputError

FILE_ROLES = (
    "seg",
    "wm",
    "gm",
    "csf",
    "brain",
    "t1",
    "t1c",
    "t2",
    "flair",
    "pet",
    "recurrence",
    "truth",
    "barriers",
)
"""What a file can be; also the keys of `load_patient(files=...)` and the names of the command-line flags."""

_OUTPUT = "output"  # results of a planner, ours or published: never an input

# (role, synonyms); tokens that must stand in a row are separated by a space.
_RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("truth", ("truth density",)),  # of a simulated patient
    (_OUTPUT, ("standard plan", "standardplan", "recurrence prediction", "plan difference", "plan", "ctv",
               "ptv", "gtv", "density", "margin", "truth")),
    ("barriers", ("barriers", "barrier")),
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


_OTHER_KINDS = frozenset(
    (
        "bold",
        "boldref",
        "sbref",
        "dwi",
        "dwiref",
        "epi",
        "asl",
        "m0scan",
        "fmap",
        "fieldmap",
        "phasediff",
        "rest",
    )
)
"""Words of images of another kind: a mask or a T1 map of theirs is on their grid."""


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
        if re.search(r"_task-", stem, flags=re.IGNORECASE):
            return None
        # BIDS entities that say where or when, not what: ses-recurrence, space-T1w, rec-norm.
        stem = re.sub(r"(^|_)(sub|ses|space|rec|acq|run|dir)-[^_]*", "", stem, flags=re.IGNORECASE)
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem)
    tokens = [token for token in re.split(r"[^a-z0-9]+", split.lower()) if token]
    if _OTHER_KINDS & set(tokens):
        return None
    # BIDS names the contrast agent in an entity: ce-gadolinium_T1w.
    if "ce" in tokens and {"t1", "t1w"} & set(tokens):
        tokens.append("t1c")
    text = f" {' '.join(tokens)} "
    return next((role for role, synonyms in _RULES if any(f" {s} " in text for s in synonyms)), None)


def find_files(folder: Path | str) -> FoundFiles:
    """Return the NIfTI files of a patient's folder by role; none if it holds DICOM instead.

    Only the folder itself is searched if it holds NIfTI files; otherwise its subfolders are too (BIDS). Files that
    cannot be read (a link to nothing, an empty file) count: who reads them says what is wrong.

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
    images = _images(look_through(folder, deep=False))
    if not images:
        tree = look_through(folder)
        images = _images(tree)
        if not images and not any(is_dicom(path) for path in tree.files):
            raise _no_images(folder, tree)
    by_role: dict[str | None, tuple[Path, ...]] = {}
    for path in images:
        role = role_of_name(path.name)
        by_role[role] = (*by_role.get(role, ()), path)
    outputs, unknown = by_role.pop(_OUTPUT, ()), by_role.pop(None, ())
    return FoundFiles({role: paths for role, paths in by_role.items() if role}, outputs, unknown)


def _images(tree: Tree) -> list[Path]:
    return sorted(
        path for path in (*tree.files, *tree.unread) if is_nifti_name(path.name) and not path.is_dir()
    )


def _no_images(folder: Path, tree: Tree) -> InputError:
    names = sorted(str(path.relative_to(folder)) for path in tree.files)
    shown = ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
    lost = [f"{path.relative_to(folder)} ({why})" for path, why in tree.unread.items()]
    if lost:
        shown += ("; " if shown else "") + "cannot be read: " + ", ".join(lost[:10])
    return InputError(
        "The folder holds no images.",
        file=folder,
        expected="NIfTI files (.nii or .nii.gz) or DICOM series",
        found=shown or "an empty folder",
        remedy="check the path, or name the files with --seg, --wm, ...",
    )
