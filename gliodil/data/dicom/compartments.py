"""Tumour compartments from named masks: the structures of an RTSTRUCT, the segments of a SEG.

Names say which compartment a mask is. Where masks overlap, the more specific one wins:

    whole tumour or oedema  <  core, GTV  <  enhancing  <  necrotic  <  cavity

so a GTV alone is a core (labelled enhancing), and a GTV with a necrotic part inside is split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from gliodil.data.labels import LabelConvention
from gliodil.data.volume import Volume
from gliodil.errors import LabelError

# (compartment, label role, words), from what is painted first to what is painted last.
_COMPARTMENTS: tuple[tuple[str, str, str], ...] = (
    ("oedema", "oedema", r"o?edema\w*|ed|snfh|wt|whole (tumou?r|lesion)|flair\w*|infiltrat\w*"),
    ("core", "enhancing", r"gtv\w*|tc|(tumou?r|lesion) core|core|tumou?r|lesion"),
    ("enhancing", "enhancing", r"enhanc\w*|et|enh|contrast enhanc\w*"),
    ("necrotic", "necrotic", r"necro\w*|ncr|net|non ?enhanc\w*"),
    ("cavity", "cavity", r"(resection )?cavity|rc|resection"),
)
_ORDER = ("cavity", "necrotic", "oedema", "enhancing", "core")
_NEVER = re.compile(r"\b([cpi]tv\w*|brain|prv|margin|ring|dose|iso\w*)\b")


def compartment_of(name: str) -> str | None:
    """Return the compartment a mask's name states: oedema, core, enhancing, necrotic, cavity, or None.

    >>> compartment_of("GTV_T1"), compartment_of("Peritumoral Edema"), compartment_of("CTV_60")
    ('core', 'oedema', None)
    """
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = " ".join(re.split(r"[^a-z0-9]+", split))
    if _NEVER.search(words):
        return None
    patterns = {compartment: pattern for compartment, _, pattern in _COMPARTMENTS}
    return next((c for c in _ORDER if re.search(rf"\b({patterns[c]})\b", words)), None)


def states_a_tumour(names: Iterable[str]) -> bool:
    """Whether names include a part of the core or a cavity, so that they can be read as compartments."""
    return any(compartment_of(name) in ("core", "enhancing", "necrotic", "cavity") for name in names)


def label_map(masks: Mapping[str, Volume], convention: LabelConvention) -> Volume:
    """Return one label volume in a convention from masks by name, all on one grid; masks of no compartment are left out.

    Raises
    ------
    LabelError
        If the convention has no label for a compartment.
    """
    grid = next(iter(masks.values()))
    labels = np.zeros(grid.shape, np.uint8)
    for compartment, role, _ in _COMPARTMENTS:
        for name, mask in masks.items():
            if compartment_of(name) != compartment:
                continue
            values: tuple[int, ...] = getattr(convention, role)
            if not values:
                raise LabelError(
                    f"The label convention has no label for the structure {name!r}.",
                    file=mask.path,
                    expected=f"a convention with {role}",
                    found=convention.name,
                    remedy="leave --labels out, or name another convention",
                )
            labels[mask.data != 0] = values[0]
    return Volume(labels, grid.affine, kind="label", path=grid.path, frame=grid.frame)
