"""What a series is called, without anything that identifies the patient."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from gliodil.data.dicom.headers import IDENTIFIERS, LONGEST, text

_UMLAUTS = {
    ord(letter): spelt
    for letter, spelt in zip("äöüÄÖÜß", ("ae", "oe", "ue", "Ae", "Oe", "Ue", "ss"), strict=True)
}


def description(headers: Sequence[Any]) -> str:
    """Return what a series is called, with everything that identifies the patient taken out.

    What most of its files say counts, in case one is damaged. Operators sometimes type names or numbers into free
    text, so any word of an identifying field that occurs in the description is replaced by an ellipsis.

    Parameters
    ----------
    headers
        One per file.
    """
    called = Counter(text(header, "SeriesDescription") or text(header, "ProtocolName") for header in headers)
    words = called.most_common(1)[0][0]
    if len(words) > LONGEST:
        return ""
    secrets = {
        secret
        for header in headers
        for keyword in IDENTIFIERS
        for secret in _spellings(text(header, keyword), names="Name" in keyword)
    }
    for secret in sorted(secrets, key=len, reverse=True):
        # Scripts without blanks between words have no ends of words either.
        ends = (r"(?<![^\W_])", r"(?![^\W_])") if secret.isascii() or _spaced(secret) else ("", "")
        words = re.sub(ends[0] + re.escape(secret) + ends[1], "…", words, flags=re.IGNORECASE)
    return words.strip()


def _spellings(stated: str, *, names: bool) -> set[str]:
    """Return how the words of an identifying field may be written: alone, halves of double names, without accents."""
    parts = {part for part in re.split(r"[\s^=,;]+", stated) if part}
    if names:
        parts |= {half for part in parts for half in part.split("-")}
        for group in stated.split("="):  # family and given name written as one, in scripts that do
            family, _, given = group.partition("^")
            given = given.partition("^")[0]
            parts |= {family + given, given + family} if given and not _spaced(family) else set()
    for part in tuple(parts):
        plain = unicodedata.normalize("NFKD", part).encode("ascii", "ignore").decode()
        spelt_out = part.translate(_UMLAUTS)
        parts |= {spelt_out, plain} if _spaced(part) else {spelt_out}
    shortest = 2 if names else 3
    return {part for part in parts if len(part) >= shortest}


def _spaced(word: str) -> bool:
    """Whether a word is of a script that parts words: none of its letters is Chinese, Japanese or Korean."""
    return not any("\u3040" <= letter <= "\u9fff" or "\uac00" <= letter <= "\ud7a3" for letter in word)
