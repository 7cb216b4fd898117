"""One patient of a cohort, as names alone tell it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.data.load import choose_inputs
from gliodil.data.patient import Patient, load_patient
from gliodil.errors import GliodilError, InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Row:
    """One patient of a cohort (in BIDS: one session with a segmentation), not read yet."""

    identity: str
    place: str
    """Folder of the results below the cohort's output folder, with forward slashes."""
    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    labels: str | None = None
    """Label convention; None: told from the labels."""
    densities: Mapping[str, Path] = field(default_factory=dict)
    """Maps made elsewhere, by name, to be compared with the model."""
    problem: InputError | None = None
    """Why this row cannot be used, if names alone show it."""

    def load(self) -> Patient:
        """Read the patient, with every check of `load_patient`."""
        if self.problem is not None:
            raise self.problem.for_patient(self.identity)
        return load_patient(self.folder, files=self.files, labels=self.labels, identity=self.identity)

    def find(self) -> dict[str, Path]:
        """Return the files that would be read, by role, as far as names alone tell."""
        try:
            return dict(choose_inputs(self.folder, self.files).files)
        except GliodilError:
            return dict(self.files)


def check_name(name: str, source: Path) -> str:
    """Return the name of a patient, which becomes that of a folder."""
    if not _NAME.fullmatch(name):
        raise InputError(
            "The name of a patient cannot be the name of a folder.",
            file=source,
            expected="letters, digits, and . _ + - after the first character",
            found=repr(name),
            remedy="rename it",
        )
    return name
