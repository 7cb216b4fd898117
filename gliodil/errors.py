"""Typed errors. Each names the patient, the file, what was expected, what was found and the remedy.

Library code raises these; only the command line turns them into exit codes.
"""

from __future__ import annotations

from pathlib import Path


def visible(value: object, *, lines: bool = False) -> str:
    """Return a text in which nothing can move the cursor of a terminal: what is not printable is escaped.

    Parameters
    ----------
    value
        What to show; names of files and what stands in them can hold anything.
    lines
        Leave line feeds and tabs.
    """
    text = str(value)
    if text.isprintable():
        return text
    left = "\n\t" if lines else ""
    return "".join(
        c if c.isprintable() or c in left else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


class GliodilError(Exception):
    """Base of every error the package raises on purpose.

    Parameters
    ----------
    problem
        One sentence that says what is wrong.
    patient, file, expected, found, remedy
        The particulars; those given are appended to the message, one per line.
    """

    def __init__(
        self,
        problem: str,
        *,
        patient: str | None = None,
        file: Path | str | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.patient = patient
        self.file = None if file is None else Path(file)
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(problem)

    def __str__(self) -> str:
        particulars = {
            "patient": self.patient,
            "file": self.file,
            "expected": self.expected,
            "found": self.found,
            "remedy": self.remedy,
        }
        lines = [f"  {name + ':':<10}{visible(value)}" for name, value in particulars.items() if value]
        return "\n".join([visible(self.problem), *lines])

    def for_patient(self, patient: str) -> GliodilError:
        """Return the same error, naming the patient if it did not yet."""
        if self.patient is None:
            self.patient = patient
        return self


class InputError(GliodilError):
    """Something the user handed in is missing, damaged or contradictory."""


class ImageFileError(InputError):
    """A file is missing, is not an image, or cannot be read to its end."""


class GeometryError(InputError):
    """Volumes that do not share a space, or geometry that makes no sense."""


class LabelError(InputError):
    """A segmentation whose labels do not fit the named convention."""


class OutputError(GliodilError):
    """The output folder cannot be written."""


class BusyError(OutputError):
    """Another process is writing there."""


class MissingExtraError(GliodilError):
    """An optional library is not installed; `instead` says how to do without it."""

    def __init__(self, library: str, extra: str, instead: str | None = None) -> None:
        super().__init__(
            f"{library} is needed here and is not installed.",
            remedy=f"pip install 'gliodil[{extra}]'" + (f", or {instead}" if instead else ""),
        )
        self.library = library
        self.extra = extra
        self.instead = instead

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str | None]]:
        return type(self), (self.library, self.extra, self.instead)


class NumericsError(GliodilError):
    """A computation left the range in which its result means something."""
