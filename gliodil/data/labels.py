"""What the numbers in a tumour segmentation mean: the label conventions in circulation.

| name             | necrotic | oedema | enhancing | cavity | used by |
|------------------|----------|--------|-----------|--------|---|
| brats-2013       | 1, 3     | 2      | 4         |        | BraTS 2013-2015: 1 necrosis, 3 non-enhancing core |
| brats-2017       | 1        | 2      | 4         |        | BraTS 2017-2022 |
| brats-2023       | 1        | 2      | 3         |        | BraTS 2023+ before treatment |
| brats-2024-post  | 1        | 2      | 3         | 4      | BraTS 2024+ after treatment, PredictGBM |
| gliodil          | 4        | 3      | 1         |        | data and code published with GliODIL |
| decathlon        | 2        | 1      | 3         |        | Medical Segmentation Decathlon, Task01 |
| gtv              |          |        | 1         |        | binary masks: gross tumour, or its enhancing rim |

"Necrotic" stands for the necrotic and non-enhancing tumour core throughout; where it has several labels, the first is
necrosis proper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gliodil.errors import LabelError

ROLES = ("necrotic", "oedema", "enhancing", "cavity")


@dataclass(frozen=True)
class LabelConvention:
    """Which label values carry which part of the tumour; an empty tuple where a part has no label."""

    name: str
    necrotic: tuple[int, ...]
    oedema: tuple[int, ...]
    enhancing: tuple[int, ...]
    cavity: tuple[int, ...] = ()
    recognised_by: tuple[int, ...] = ()
    """Labels without any of which the convention has to be named: fewer would fit a commoner one as well."""

    @property
    def labels(self) -> frozenset[int]:
        """All label values of the convention, background excluded."""
        return frozenset(self.necrotic + self.oedema + self.enhancing + self.cavity)

    def role_of(self, label: int) -> str | None:
        """Return `"necrotic"`, `"oedema"`, `"enhancing"` or `"cavity"`, or None for an unknown label."""
        return next((role for role in ROLES if label in getattr(self, role)), None)

    def __str__(self) -> str:
        parts = [f"{'/'.join(map(str, getattr(self, role)))} {role}" for role in ROLES if getattr(self, role)]
        return f"{self.name} ({', '.join(parts)})"


CONVENTIONS: Mapping[str, LabelConvention] = MappingProxyType(
    {
        convention.name: convention
        for convention in (
            LabelConvention("brats-2017", necrotic=(1,), oedema=(2,), enhancing=(4,)),
            LabelConvention("brats-2023", necrotic=(1,), oedema=(2,), enhancing=(3,)),
            LabelConvention(
                "brats-2013", necrotic=(1, 3), oedema=(2,), enhancing=(4,), recognised_by=(1, 2, 3, 4)
            ),
            LabelConvention("brats-2024-post", necrotic=(1,), oedema=(2,), enhancing=(3,), cavity=(4,)),
            LabelConvention("gliodil", necrotic=(4,), oedema=(3,), enhancing=(1,)),
            LabelConvention("decathlon", necrotic=(2,), oedema=(1,), enhancing=(3,)),
            LabelConvention("gtv", necrotic=(), oedema=(), enhancing=(1,)),
        )
    }
)
"""The conventions by name."""


def get_convention(name: str) -> LabelConvention:
    """Return a convention by name (case does not matter).

    Raises
    ------
    LabelError
        If there is none of that name.
    """
    try:
        return CONVENTIONS[name.strip().lower()]
    except KeyError:
        raise LabelError(
            "There is no label convention of that name.",
            expected=", ".join(CONVENTIONS),
            found=name,
            remedy="choose one of these with --labels",
        ) from None
