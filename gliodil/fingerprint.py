"""What a result depends on: the settings as they are recorded, a hash of everything, and whether a folder has it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliodil import __version__
from gliodil.errors import InputError
from gliodil.inference.config import FitConfig

if TYPE_CHECKING:
    from gliodil.data.patient import Patient
    from gliodil.planning.organs import Organs
    from gliodil.planning.rules import PlanRule

DEFAULT_RULE = "benchmark-15mm"
DEFAULT_RANK = "reach"
BEYOND_CTV_MM = 7.0
"""How far the density is computed beyond the standard CTV at least: the model CTV goes beyond it in places."""


def reaching(config: FitConfig, rule: PlanRule) -> FitConfig:
    """Return the settings with a crop that holds the rule's CTV."""
    return replace(config, crop_margin_mm=max(config.crop_margin_mm, rule.margin_mm + BEYOND_CTV_MM))


def settings_record(
    config: FitConfig,
    rule: str | PlanRule,
    *,
    rank: str = DEFAULT_RANK,
    exclude: Collection[str] = (),
    keyholes: bool = False,
    register: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the settings of a plan as they are recorded, and as they enter its fingerprint."""
    from gliodil.planning.rules import get_rule

    found, name = (get_rule(rule), rule) if isinstance(rule, str) else (rule, "")
    # A rule of one's own has no other record than this.
    written = name if name == found.name else asdict(found)
    fit = reaching(config, found).to_dict()
    asked = {
        "rule": written,
        "rank": rank,
        "exclude": sorted(exclude),
        "keyholes": keyholes,
        "register": register,
    }
    return {"fit": fit, **asked, **(settings or {})}


def fingerprint(
    patient: Patient, settings: Mapping[str, Any], organs: Organs | None = None, extra: Iterable[Path] = ()
) -> str:
    """Return a hash of the inputs, organs, further files, the label convention, identity, settings and version."""
    digest = hashlib.sha256()
    words = [__version__, patient.identity, patient.convention.name, patient.tissue_source]
    digest.update(json.dumps([*words, settings], sort_keys=True, default=str).encode())
    for path in extra:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    if patient.planning is not None:
        for path in (*patient.planning.series.files, *patient.planning.registrations):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    # What was read of the segmentation's file depends on more than the file.
    digest.update(patient.segmentation.data.tobytes())
    masks = {f"organ {name}": volume for name, volume in (organs or {}).items()}
    for role, volume in sorted({"seg": patient.segmentation, **patient.volumes, **masks}.items()):
        digest.update(role.encode())
        if role in patient.series:
            for path in patient.series[role].files:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        elif volume.path is not None:
            digest.update(hashlib.sha256(volume.path.read_bytes()).digest())
        else:
            digest.update(volume.affine.tobytes() + str(volume.data.dtype).encode())
            digest.update(volume.data.tobytes())
    return digest.hexdigest()


def finished(out: Path, wanted: str) -> dict[str, Any] | None:
    """Return the metrics of a plan folder that is whole and was finished with this fingerprint, else None."""
    from gliodil.data.manifest import verified
    from gliodil.reporting.folder import NOT_FINISHED, PLAN
    from gliodil.reporting.jsonable import read_json

    try:
        provenance = read_json(out / "provenance.json")
        if provenance["config"].get("fingerprint") != wanted:
            return None
        verified(out, PLAN, **NOT_FINISHED)
        return read_json(out / "metrics.json")
    except InputError:
        return None
