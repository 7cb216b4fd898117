"""One patient of a cohort, as names alone tell it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gliodil.data.choose import choose_inputs
from gliodil.data.patient import Patient, load_patient
from gliodil.errors import GliodilError, InputError

LONGEST_NAME = 64
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
    named: str = ""
    """The patient's name as it was given, where that cannot be a folder's; "" if it can."""
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


def safe_name(name: str) -> str:
    """Return what a patient is called in the results: the name itself if that can be a folder's everywhere.

    Other characters become `_` (letters with accents lose them); a name of which nothing is left becomes
    `patient-` and a short hash of it.

    >>> safe_name("patient 02"), safe_name("Müller"), safe_name("-rf")
    ('patient_02', 'Muller', 'rf')
    """
    if _NAME.fullmatch(name):
        return name
    plain = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    kept = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain).lstrip("._+-")[:LONGEST_NAME].rstrip("_.")
    return kept or f"patient-{short_hash(name)}"


def short_hash(name: str) -> str:
    """Return eight characters that tell names apart."""
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
