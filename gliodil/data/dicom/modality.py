"""Which role a series plays, told from its header: t1, t1c, t2, flair, pet, ct, seg, rtstruct, reg, dose, or none.

What the scanner states comes before what people called the series: a b-value above 0 is diffusion whatever its name,
ImageType tells maps, subtractions and reformats, and the timing of the sequence (ms) overrules a name that says T1:

    flair   TI ≥ 1500, TE ≥ 70                     t1   TE ≤ 30, and TR ≤ 1200 or 400 ≤ TI ≤ 1400
    t2      TE ≥ 70, TR ≥ 2000, no inversion

Otherwise the words count (description, then protocol, then sequence name), and where they say nothing, the timing.
Localizers, diffusion, perfusion, angiography, maps, subtractions and the like have no role, nor has a T1 image whose
name leaves open whether contrast agent was given, unless its header states the agent.
"""

from __future__ import annotations

import re
from typing import Any

from gliodil.data.dicom.headers import PRIVATE_B_VALUES, item, items, number, text

MODALITY_ROLES = {"SEG": "seg", "RTSTRUCT": "rtstruct", "REG": "reg", "RTDOSE": "dose"}
"""Modalities of which each file is an object of its own."""
MODALITY_OF = {"t1": "MR", "t1c": "MR", "t2": "MR", "flair": "MR", "pet": "PT", "ct": "CT"}
"""What the images of a role are made with."""
_CT_STORAGE = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"}
_NOT_PLANNING_CT = re.compile(
    r"\b(locali[sz]er|scout|topogram|surview|scanogram|scano|dose (report|info)|patient protocol|perfusion|r?cbf|r?cbv|"
    r"mtt|ttp|tmax|ctp|m?mip|minip|vrt|iodine|iod|jod|vnc|virtual non ?contrast|z ?eff|effective z|electron density|"
    r"rho|subtraction|sub|smart ?prep|smart ?step|(pre)?monitoring|test ?bolus|bolus track\w*|screen\w*)\b"
)
_NOT_PLANNING_KINDS = {"LOCALIZER", "MIP", "MINIP", "MIN_IP", "MAX_IP", "VRT", "PROJECTION", "PERFUSION", "IODINE",
                       "MAP", "VNC", "ZEFF", "RHO", "SUBTRACTION", "CBF", "CBV", "MTT", "TTP", "TMAX",
                       "SCOUT"}  # fmt: skip

_NOT_ANATOMY = re.compile(
    r"\b(locali[sz]er|localizers|loc|scout|survey|aahscout|aahead|adc|eadc|dwi|dti|diff|diffusion|trace\w?|tracew|"
    r"tensor|fa|colfa|swi|swan|venbold|hemo|haemo|perf|perfusion|dsc|dce|asl|pcasl|r?cbf|r?cbv|mtt|ttp|tmax|bold|"
    r"fmri|tof|mra|mrv|angio|m?mip|minip|min ip|sub|subtraction|subtracted|phase|pha|b0|b1000|field ?map|fieldmapping|"
    r"spectro\w*|svs|csi|mrs|calibration|calib|asset|screen\w*|t[12] ?map|map|mapit|ktrans|t2 ?star|t2 gre|t2 fl2d)\b"
)
_NOT_ANATOMY_KINDS = {"ADC", "DIFFUSION", "SUBTRACTION", "SUB", "LOCALIZER", "P", "PHASE", "MAP", "TRACEW", "FA",
                      "ASL", "MIP", "MINIP", "PROJECTION", "PERFUSION", "T1_MAP", "T2_MAP", "MIN_IP",
                      "MAX_IP", "B0"}  # fmt: skip
_NOT_ANATOMY_CONTRASTS = {"DIFFUSION", "FLOW_ENCODED", "PERFUSION", "TAGGING", "TIME_OF_FLIGHT", "T2_STAR",
                          "PROTON_DENSITY", "SPECTROSCOPY"}  # fmt: skip
"""Values of AcquisitionContrast (enhanced MR) with which an image is none of the roles."""
_REFORMATS = {"MPR", "REFORMATTED", "REFORMAT", "RESAMPLED", "CURVED", "OBLIQUED"}
_STAGE = re.compile(r"\b(pre|post) ?(op\w*|rt|rx|surg\w*|treat\w*|chemo\w*|therap\w*)\b")
_WITHOUT = re.compile(
    r"\b(no|non|pre|without|ohne|sans|sin|senza|sem) ?(contrast\w*|gd|gad\w*|km|ce|iv|injection|mdc)\b|without\b|"
    r"\b(noncontrast|nativ\w*|precontrast|pre|unenhanced|minus c|c minus)\b"
)
_WITH = re.compile(
    r"\b(gd|gad|gado\w*|dotarem|post|postcontrast|ce|contrast\w*|enhanced|km|t1c|t1ce|t1gd|t1post|t1km|t1 c|"
    r"plus (c|gd|gad|km|contrast\w*|iv)|c plus|iv)\b"
)
_BOTH = re.compile(r"\b(with|pre|w) (and |und |et )?(without|post|wo)\b")
_UNSURE = re.compile(r"\bplus$|\b(inyect\w*|inject\w*|iniet\w*|infus\w*)\b|[^\x00-\x7f]")
"""Words that may speak of contrast agent: in no language known here, or cut short."""
_T1 = re.compile(r"\b([a-z]?t1\w*|\w*mprage\w*|mp2rage|bravo|f?spgr|tfl3d\w*|vibe)\b")
_T2 = re.compile(r"\b([a-z]?t2\w*|ciss|fiesta)\b")
_NAVIGATION = re.compile(r"\b(stealth\w*|neuro ?nav\w*|brain ?lab)\b")
"""Volumes for navigation in theatre; with contrast agent they are T1."""
_FLAIR = re.compile(r"\b(\w*flair\w*|dark ?fluid|t2f|tirm|spcir\w*)\b")
_NO_AGENT = {"", "no", "none", "n", "nein", "0", "without", "non"}


def role_of(header: Any) -> str | None:
    """Return the role a series plays, or None; `header` is one of its files' (see `headers.read_header`)."""
    modality = text(header, "Modality").upper()
    if modality in MODALITY_ROLES:
        # Plans exported into the patient's folder are results, not what to plan from.
        return None if text(header, "Manufacturer") == "gliodil" else MODALITY_ROLES[modality]
    if modality == "PT":
        uncorrected = re.search(r"\b(nac|uncorrected|no ac)\b", _words(text(header, "SeriesDescription")))
        return None if uncorrected else "pet"
    if modality == "CT":
        return "ct" if _is_planning_ct(header) else None
    if modality != "MR":
        return None
    names = [_words(text(header, key)) for key in ("SeriesDescription", "ProtocolName", "SequenceName")]
    if (
        is_diffusion(header)
        or _kinds(header) & _NOT_ANATOMY_KINDS
        or _contrasts(header) & _NOT_ANATOMY_CONTRASTS
        or _NOT_ANATOMY.search(names[0])
    ):
        return None
    timed = _weighting_by_timing(header)
    role = timed
    for words in names:
        if named := _weighting(words):
            # Timing that no T1 image has outweighs the name; fast sequences state echo times of too many kinds for more.
            role = timed if named == "t1" and timed in ("t2", "flair") else named
            break
        if words and _NOT_ANATOMY.search(words):
            return None
    if role != "t1":
        return role
    given = _has_contrast(text(header, "SeriesDescription") or text(header, "ProtocolName"), header)
    return None if given is None else "t1c" if given else "t1"


def is_diffusion(header: Any) -> bool:
    """Whether an image is diffusion-weighted: a b-value above 0 s/mm², in the standard's fields or a vendor's.

    Some scanners state b = 0 for every image, so that alone says nothing.
    """
    stated: list[str | int] = ["DiffusionBValue"]
    stated += [tag for creator, (block, tag) in PRIVATE_B_VALUES.items() if text(header, block) == creator]
    if any((number(header, key) or 0) > 0 for key in stated):
        return True
    shared = item(header, "SharedFunctionalGroupsSequence")
    groups = items(header, "PerFrameFunctionalGroupsSequence")
    return any(
        (number(item(group, "MRDiffusionSequence"), "DiffusionBValue") or 0) > 0
        for group in (shared, *groups)
    )


def is_reformat(header: Any) -> bool:
    """Whether an image says that it was computed from another one on other planes."""
    return bool(_kinds(header) & _REFORMATS)


def _kinds(header: Any) -> set[str]:
    stated = text(header, "ImageType").upper()
    return set(stated.split()) | set(_words(stated).upper().split())


def _contrasts(header: Any) -> set[str]:
    frames = item(item(header, "SharedFunctionalGroupsSequence"), "MRImageFrameTypeSequence")
    return {text(header, "AcquisitionContrast").upper(), text(frames, "AcquisitionContrast").upper()}


def _is_planning_ct(header: Any) -> bool:
    """Whether a CT shows anatomy in HU: no scout, no map derived from several energies or times, no screen shot."""
    storage = text(header, "SOPClassUID")
    names = _words(f"{text(header, 'SeriesDescription')} {text(header, 'ProtocolName')}")
    return (
        (not storage or storage in _CT_STORAGE)
        and not set(text(header, "ImageType").upper().split()) & _NOT_PLANNING_KINDS
        and not _NOT_PLANNING_CT.search(_words(text(header, "SeriesDescription")) or names)
    )


def is_localizer(header: Any) -> bool:
    """Whether an image says that it is a scout: scanners file some with the series they belong to."""
    return "LOCALIZER" in text(header, "ImageType").upper().split()


def _weighting(words: str) -> str | None:
    if _FLAIR.search(words) and not _T1.search(words):
        return "flair"
    if _T1.search(words):
        return "t1"
    if _T2.search(words):
        return "t2"
    return "t1" if _NAVIGATION.search(words) and _WITH.search(_STAGE.sub(" ", words)) else None


def _weighting_by_timing(header: Any) -> str | None:
    echo, repetition, inversion = _timing(header)
    sequence = text(header, "ScanningSequence").upper().split()
    if echo is None or "EP" in sequence:
        return None
    if echo >= 70:
        if inversion is not None and inversion >= 1500:
            return "flair"
        return "t2" if repetition is not None and repetition >= 2000 and not inversion else None
    if echo > 30 or ("GR" in sequence and echo > 12):
        return None
    inverted = inversion is not None and 400 <= inversion <= 1400
    return "t1" if inverted or (repetition is not None and repetition <= 1200 and not inversion) else None


def _timing(header: Any) -> tuple[float | None, float | None, float | None]:
    """Return echo, repetition and inversion time, ms; enhanced images keep them in their shared groups."""
    shared = item(header, "SharedFunctionalGroupsSequence")
    timing = item(shared, "MRTimingAndRelatedParametersSequence")
    echo = number(header, "EchoTime") or number(item(shared, "MREchoSequence"), "EffectiveEchoTime")
    inversion = number(header, "InversionTime") or number(
        item(shared, "MRModifierSequence"), "InversionTimes"
    )
    return echo, number(header, "RepetitionTime") or number(timing, "RepetitionTime"), inversion


def _has_contrast(name: str, header: Any) -> bool | None:
    """Whether a T1 image was taken after contrast agent: said in words, else by the agent in the header.

    None if the words may speak of it and the header does not.
    """
    words = _STAGE.sub(" ", _words(name))
    agent = text(header, "ContrastBolusAgent").lower() not in _NO_AGENT or bool(
        items(header, "ContrastBolusAgentSequence")
    )
    if _BOTH.search(words):
        return True if agent else None
    without = _WITHOUT.search(words)
    if _WITH.search(_WITHOUT.sub(" ", words)):
        return True
    if without:
        return False
    return True if agent else None if _UNSURE.search(words) or _UNSURE.search(_foreign(name)) else False


def _foreign(name: str) -> str:
    """Return the letters of a name that its words lack: of scripts other than Latin, and with accents."""
    return "".join(letter for letter in name if letter.isalpha() and not letter.isascii())


def _words(name: str) -> str:
    """Return a name as lower-case words: `T1_mpr+C` -> `t1 mpr plus c`."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name).lower()
    name = re.sub(r"(?<=\d)\*", " star ", name).replace("+", " plus ")
    name = re.sub(r"\bc-(?![a-z0-9])|(?<=\s)-c\b", " c minus ", name)
    name = re.sub(r"\bw/ ?(o|out)\b", " without ", name)
    name = re.sub(r"\bw/(?=wo\b|without)", "with ", name)
    name = re.sub(r"\bw/\s*$", " with contrast ", name)
    return " ".join(re.split(r"[^a-z0-9]+", name)).strip()
