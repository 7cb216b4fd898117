"""Whose an object is, as far as two objects can be told to be of two persons.

PatientIDs decide where both state one; else birth dates, where both state one; else names, capitals and separators left
out. Where nothing can be compared, nothing contradicts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gliodil.data.dicom.headers import text


@dataclass(frozen=True, repr=False)
class Person:
    """What a header says of the patient, "" where it does not; compared, never shown."""

    identifier: str = ""
    born: str = ""
    name: str = ""

    def is_another_than(self, other: Person) -> bool:
        """Whether two objects are of two persons."""
        for own, theirs in (
            (self.identifier, other.identifier),
            (self.born, other.born),
            (self.name, other.name),
        ):
            if own and theirs:
                return own != theirs
        return False


def person_of(header: Any) -> Person:
    """Return what a header says of the patient."""
    name = re.sub(r"[\W_]+", "", text(header, "PatientName").casefold())
    return Person(text(header, "PatientID"), text(header, "PatientBirthDate"), name)
