"""Tumour compartments from named masks: the structures of an RTSTRUCT, the segments of a SEG.

Names say which compartment a mask is (``roi_names``), unless the user does. Where masks overlap, the more specific one
wins:

    whole tumour or oedema  <  core, GTV  <  enhancing  <  necrotic  <  cavity

so a GTV alone is a core (labelled enhancing), and a GTV with a necrotic part inside is split. A core beside an enhancing
part of its own, and no necrotic one, is necrotic where it does not enhance (NCR = TC − ET). Several masks of one
compartment are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gliodil.data.dicom.roi_names import COMPARTMENTS, compartment_of
from gliodil.data.labels import LabelConvention
from gliodil.data.rim_filling import enclosed
from gliodil.data.volume import Volume
from gliodil.errors import InputError, LabelError

IGNORE = "ignore"
"""What the user says of a structure that is not to be read."""
_CORE = ("core", "enhancing", "necrotic", "cavity")
_ROLES = {
    "oedema": "oedema",
    "core": "enhancing",
    "enhancing": "enhancing",
    "necrotic": "necrotic",
    "cavity": "cavity",
}
"""Label role of each compartment, from what is painted first to what is painted last."""
_INSIDE = 0.9
"""Share of an enhancing mask that must lie in a core for the rest of that to be necrotic."""


@dataclass(frozen=True)
class NamedMask:
    """A label volume (not 0 is inside) under the name it has in its file; names may occur twice."""

    name: str
    volume: Volume


@dataclass(frozen=True)
class Meanings:
    """What structures are: by what the user says, else by their names."""

    stated: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, part in self.stated.items():
            if part not in (*COMPARTMENTS, IGNORE):
                raise InputError(
                    f"This is no part of a tumour that the structure {name!r} could be.",
                    expected=", ".join((*COMPARTMENTS, IGNORE)),
                    found=part,
                    remedy="name one of these, as in --roi NAME=core",
                )

    def of(self, name: str) -> str | None:
        """Return the compartment of a structure, None if it is none."""
        stated = self.stated.get(name)
        if stated is not None:
            return None if stated == IGNORE else stated
        return compartment_of(name)

    def state_a_tumour(self, names: Iterable[str]) -> bool:
        """Whether names include a part of the core or a cavity, so that they can be read as compartments."""
        return any(self.of(name) in _CORE for name in names)

    def said(self, path: Path, names: Sequence[str]) -> str:
        """Return the sentence that says what was read as what."""
        unique = list(dict.fromkeys(names))
        used = ", ".join(f"{name} as {part}" for name in unique if (part := self.of(name)))
        left = ", ".join(name or "(no name)" for name in unique if self.of(name) is None)
        return f"{path.name}: read {used}" + (f"; not used: {left}" if left else "")


def label_map(masks: Sequence[NamedMask], convention: LabelConvention, meanings: Meanings) -> Volume:
    """Return one label volume in a convention from named masks, all on one grid; masks of no compartment are left out.

    Raises
    ------
    LabelError
        If the convention has no label for a compartment.
    """
    grid = masks[0].volume
    labels = np.zeros(grid.shape, np.uint8)
    by_part: dict[str, list[NamedMask]] = {part: [] for part in _ROLES}
    for mask in masks:
        if (part := meanings.of(mask.name)) is not None:
            by_part[part].append(mask)
    core, enhancing = (_union(by_part[part], grid) for part in ("core", "enhancing"))
    split = (
        not by_part["necrotic"]
        and core.any()
        and enhancing.any()
        and np.count_nonzero(enhancing & core) >= _INSIDE * np.count_nonzero(enhancing)
    )
    for part, role in _ROLES.items():
        if not by_part[part]:
            continue
        value = _label(convention, "necrotic" if part == "core" and split else role, by_part[part][0])
        labels[_union(by_part[part], grid)] = value
    whole = _union(by_part["oedema"], grid)
    if 2 * np.count_nonzero(whole & core) > np.count_nonzero(core):
        # An outline of the whole tumour: what a rim encloses is its middle (``rim_filling``), not oedema.
        inside = core | enhancing | _union(by_part["necrotic"], grid)
        labels[enclosed(inside) & (labels == _label(convention, "oedema", by_part["oedema"][0]))] = 0
    return Volume(labels, grid.affine, kind="label", path=grid.path, frame=grid.frame)


def _union(masks: Sequence[NamedMask], grid: Volume) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    inside = np.zeros(grid.shape, bool)
    for mask in masks:
        inside |= mask.volume.data != 0
    return inside


def _label(convention: LabelConvention, role: str, mask: NamedMask) -> int:
    values: tuple[int, ...] = getattr(convention, role)
    if not values:
        raise LabelError(
            f"The label convention has no label for the structure {mask.name!r}.",
            file=mask.volume.path,
            expected=f"a convention with {role}",
            found=convention.name,
            remedy="leave --labels out, or name another convention",
        )
    return values[0]
