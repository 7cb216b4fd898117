"""Which files of a BIDS dataset make a patient: subject and session from the path, what a file is from its name.

    sub-01[/ses-preop]/{anat,pet}/sub-01_..._T1w.nii.gz            images
    derivatives/*/sub-01[/ses-preop]/**/..._desc-tumor_dseg        segmentation
                                       ..._label-WM_probseg        tissue maps
                                       ..._desc-recurrence_dseg    recurrence, from any session

A session with a segmentation is a patient. Of several files for one role, derivatives go before raw images, and
among them those in the space of the segmentation; what is still ambiguous is an error of that patient alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliodil.data.discover import FILE_ROLES, role_of_name
from gliodil.data.gate import read_json
from gliodil.data.nifti import is_nifti_name
from gliodil.data.tree import EMPTY, Tree, look_through
from gliodil.errors import InputError

DESCRIPTION = "dataset_description.json"
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")
_NOT_PATIENTS = frozenset({"sourcedata", "code", "stimuli", "phenotype"})
_OTHER_KINDS = frozenset(
    ("func", "dwi", "fmap", "perf", "meg", "eeg", "ieeg", "beh", "nirs", "motion", "figures", "xfm")
)
"""Folders of images of another kind, whose masks are on another grid."""


@dataclass(frozen=True)
class Subject:
    """The files of one subject in one session."""

    identity: str
    """``sub-01`` or ``sub-01_ses-preop``."""
    files: Mapping[str, Path]
    problem: InputError | None = None


@dataclass(frozen=True)
class _Candidate:
    role: str
    session: str | None
    space: str | None
    derivative: bool
    path: Path


def is_bids(folder: Path) -> bool:
    """Whether a folder is a BIDS dataset: it says so, or holds folders of subjects."""
    return (folder / DESCRIPTION).is_file() or any(
        path.is_dir() and re.fullmatch(r"sub-[A-Za-z0-9+]+", path.name) for path in folder.iterdir()
    )


def find_subjects(root: Path, out: Path, *, validate: bool = True) -> list[Subject]:
    """Return one entry per subject and session with a segmentation; one with a problem per subject without.

    Parameters
    ----------
    out
        Output folder, which is not searched.
    validate
        Whether ``dataset_description.json`` has to be there and name dataset and BIDS version.

    Raises
    ------
    InputError
        If the dataset description is missing or incomplete, or there are no subjects.
    """
    if validate:
        _check_description(root)
    tree = look_through(root, skip=out)
    by_subject: dict[str, list[_Candidate]] = {
        path.name: [] for path in sorted(root.glob("sub-*")) if path.is_dir() or path.is_symlink()
    }
    for path in _images(root, tree):
        entities = dict(_ENTITY.findall(path.name))
        role = role_of_name(path.name)
        if "sub" not in entities or role not in FILE_ROLES:
            continue
        candidate = _Candidate(
            role,
            entities.get("ses"),
            entities.get("space"),
            "derivatives" in path.relative_to(root).parts,
            path,
        )
        by_subject.setdefault(f"sub-{entities['sub']}", []).append(candidate)
    if not by_subject:
        raise InputError(
            "The BIDS dataset has no subjects.",
            file=root,
            expected="folders named sub-LABEL",
            found="none",
            remedy="check the path",
        )
    entries: list[Subject] = []
    for name in sorted(by_subject):
        lost = _denied(name, tree)
        entries += [Subject(name, {}, lost)] if lost else _sessions(name, by_subject[name])
    return entries


def _denied(subject: str, tree: Tree) -> InputError | None:
    """Return the error for a subject of whom a folder cannot be looked into."""
    for path, why in tree.unread.items():
        if subject in path.parts and path.suffix == "" and not is_nifti_name(path.name) and why != EMPTY:
            return InputError(
                "A folder of the patient cannot be read.",
                file=path,
                expected="folders and files that can be read",
                found=why,
                remedy="give yourself permission to read it, or get the content of the link",
            )
    return None


def _sessions(subject: str, candidates: Sequence[_Candidate]) -> Iterator[Subject]:
    sessions = sorted({c.session for c in candidates if c.role == "seg"}, key=lambda s: s or "")
    if not sessions:
        seen = ", ".join(sorted({c.role for c in candidates})) or "no images"
        problem = InputError(
            "The tumour segmentation is missing.",
            expected=f"derivatives/*/{subject}/..._desc-tumor_dseg.nii.gz",
            found=seen,
            remedy="add the segmentation to the derivatives, named like this",
        )
        yield Subject(subject, {}, problem)
    for session in sessions:
        identity = subject if session is None else f"{subject}_ses-{session}"
        # A follow-up lies in a later session; images without a session belong to all of them.
        own = [c for c in candidates if c.session in (session, None) or c.role == "recurrence"]
        try:
            yield Subject(identity, _choose(own))
        except InputError as problem:
            yield Subject(identity, {}, problem)


def _choose(candidates: Sequence[_Candidate]) -> dict[str, Path]:
    """Return one file per role."""
    space: str | None = None
    chosen: dict[str, Path] = {}
    for role in FILE_ROLES:  # the segmentation comes first
        found = [c for c in candidates if c.role == role]
        found = [c for c in found if c.derivative] or found
        if role != "seg":
            found = [c for c in found if c.space == space] or found
        if len(found) > 1:
            raise InputError(
                f"Several files could be the {role} image.",
                expected=f"one {role} image",
                found=", ".join(sorted(c.path.name for c in found)),
                remedy="keep one of them, or name the files in a TSV",
            )
        if found:
            chosen[role] = found[0].path
            if role == "seg":
                space = found[0].space
    return chosen


def _images(root: Path, tree: Tree) -> Iterator[Path]:
    """Yield the NIfTI files that can be of a patient; links to nothing too, for who reads them to refuse."""
    for path in sorted((*tree.files, *tree.unread)):
        folders = set(path.relative_to(root).parts[:-1])
        if is_nifti_name(path.name) and not folders & (_NOT_PATIENTS | _OTHER_KINDS):
            yield path


def _check_description(root: Path) -> None:
    path = root / DESCRIPTION
    wanted = "a JSON file with Name and BIDSVersion"
    try:
        content = read_json(path, expected=wanted)
        if not isinstance(content, dict):
            found = "no object"
        else:
            missing = [key for key in ("Name", "BIDSVersion") if not content.get(key)]
            found = f"without {' and '.join(missing)}" if missing else ""
    except InputError as error:
        found = error.found or error.problem
    if found:
        raise InputError(
            "The BIDS dataset does not describe itself.",
            file=path,
            expected=wanted,
            found=found,
            remedy="add it, or pass --skip-bids-validation",
        )
