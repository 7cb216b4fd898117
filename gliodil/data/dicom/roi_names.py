"""What the names of structures and segments say, read as words in the languages of clinics.

A name is taken apart into words (`GTV_Ödem` -> `gtv odem`, `NonTumor` -> `non tumor`), accents and capitals left out. A
word counts as a whole or, in languages that build them, as the end or beginning of a compound (`Tumorhöhle`,
`Resektionshöhle`); it is never looked for inside other words. Names of targets with a margin, of what is *not* tumour,
and of old copies are no compartments.
"""

from __future__ import annotations

import re
import unicodedata

COMPARTMENTS = ("oedema", "core", "enhancing", "necrotic", "cavity")

_TUMOUR = (
    r"tumou?r(en)?|tumeurs?|tumore|tumoren|laesion|lasion|lesion(e|es)?|lesie|laesie|guz|nador|daganat|kasvain|"
    r"опухоль|опухоли|шишка|glioblastom\w*|gliom\w*|gbm|neoplas\w*|tumou?rrest|mass[ea] tumorale|masa tumoral"
)
_PATTERNS = {
    "cavity": (
        r"\w*(cavity|cavitie|hoehle|hohle|holte|cavite|cavidad|cavita|caverne|cavidade|cavum)s?|rc|resection|"
        r"resektion\w*|resezione|reseccion|(tumou?r|tumor|op|surgical|resection) ?(bed|bett)|tumou?rbed|tumorbett|"
        r"lit (tumoral|operatoire)|lecho (tumoral|quirurgico)|letto (tumorale|operatorio)|полость"
    ),
    "necrotic": (
        r"necro\w*|(tumou?r)?nekro\w*|ncr|net|non ?enhanc\w*|nicht ?(kontrastmittel)?aufnehmend\w*|некроз\w*"
    ),
    "oedema": (
        r"(peritumou?ral|tumou?r|perifokal)?(o?edema|oedem|odem|odeem|oedeem|oedeme|edeme|edem)(s|e|es|a)?|ed|snfh|wt|"
        r"(whole|total|entire|gesamt|ganzer|complete) ?(tumou?r|lesion)|tumeur (totale|entiere)|tumore (totale|intero)|"
        r"tumor (total|completo)|flair\w*|infiltrat\w*|obrzek|otok|отек|отёк"
    ),
    "enhancing": (
        r"(contrast ?)?enhanc\w*|et|enh|ce|km( ?(aufnahme|anreicherung|aufnehmend\w*))?|kontrastmittel\w*|"
        r"rehauss\w*|prise de contraste|presa di contrasto|captazione|realce\w*|"
        r"captante\w*|captacion|aankleur\w*|contrastcaptant\w*"
    ),
    "core": rf"gtv\w*|tc|({_TUMOUR}) (core|kern)|tumou?rkern|core|noyau|resttumou?r|{_TUMOUR}",
}
_ORDER = ("cavity", "necrotic", "oedema", "enhancing", "core")
_NEVER = re.compile(
    r"\b([cpi]tv\w*|brain\w*|gehirn|hirn\w*|cerveau|cerebro|cervello|hersenen|prv\w*|margin|marge|saum|ring|rind|"
    r"dose|dosis|iso\w*|avoid\w*|opti?|exp(an\w*)?|minus|exclu\w*|"
    r"oral\w*|nasal\w*|mouth|mund\w*|nasen\w*|sinus\w*|orbit\w*|bu[ck]+al\w*|tympan\w*|abdom\w*|background|hintergrund|fond|fondo|"
    r"old|alt|alte|altes|vieux|vecchio|viejo|backup|kopie|copy|copie|obsolete|test|temp|tmp|"
    r"normal|healthy|gesund\w*|sain|contralat\w*|kontralat\w*)\b"
)
_NOT_TUMOUR = re.compile(
    rf"\b(non?|not|nicht|kein|keine|ohne|sans|sin|senza|without|zonder|geen) ?({_TUMOUR}|gtv\w*)\b|\bnontumou?r\w*\b|"
    r"\btumou?r ?(free|frei)\b"
)
_OF_BRAIN = re.compile(r"\b(brain|hirn|cerebral)[ _]?(?=(tumou?r|tumeur|o?edem|odem|oedem|lesion|glio))")
"""Brain tumour, brain oedema: the brain they are in is not what is meant. With a hyphen it may mean a difference."""
_GROWN = re.compile(r"[+＋]\s*\d|\bp(lus)?\s?\d+\s*(mm|cm)|(?<![0-9.,])\d+([.,]\d+)?\s*(mm|cm)\b")
"""GTV+10mm, GTV 1 cm, GTV p5mm: a target with a margin."""


def compartment_of(name: str) -> str | None:
    """Return the compartment a mask's name states: oedema, core, enhancing, necrotic, cavity, or None.

    >>> compartment_of("GTV_T1"), compartment_of("Peritumoral Edema"), compartment_of("CTV_60")
    ('core', 'oedema', None)
    """
    plain = _OF_BRAIN.sub("", _plain(name))
    if _GROWN.search(plain.replace("_", " ")):
        return None
    words = " ".join(re.split(r"[\W_]+", plain)).strip()
    if _NEVER.search(words) or _NOT_TUMOUR.search(words):
        return None
    return next((part for part in _ORDER if re.search(rf"\b({_PATTERNS[part]})\b", words)), None)


def _plain(name: str) -> str:
    """Return a name in lower case without accents, words of mixed case parted: `NonTumor` -> `non tumor`."""
    parted = re.sub(r"(?<=[a-zà-ÿ])(?=[A-ZÀ-Þ])", " ", name)
    folded = unicodedata.normalize(
        "NFKD", parted.lower().replace("œ", "oe").replace("æ", "ae").replace("ø", "o")
    )
    return "".join(letter for letter in folded if not unicodedata.combining(letter))
