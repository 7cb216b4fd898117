"""PET in standardized uptake values.

    SUV = C * m / (A_0 * 2^(−Δt/T_½))

C: activity concentration [Bq/mL]; m: body mass [g], 1 g of body taken as 1 mL; A_0: injected activity [Bq];
T_½: half life [s]; Δt: from injection to the time the image's decay is corrected to [s]. With DecayCorrection ADMIN
that is the injection itself, Δt = 0; with START it is the start of the acquisition.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from gliodil.data.dicom.headers import item, number, text

_LONGEST_UPTAKE = timedelta(hours=12)

LEAST_ACTIVITY_BQ = 1e5
"""Injected activity below which the header is taken to state another unit (MBq)."""


def uptake_factor(headers: Sequence[Any]) -> tuple[float, str, str]:
    """Return the factor that turns stored PET values into SUV, the unit they then have, and what to note.

    Values stay as they are (factor 1) if they are SUV already, or if the header lacks what it takes.

    Parameters
    ----------
    headers
        One per file of the series.
    """
    header = headers[0]
    unit = text(header, "Units").upper()
    if unit == "GML":
        return 1.0, "SUV", ""
    if unit != "BQML":
        stated = f"'{unit}'" if unit else "no unit"
        return 1.0, unit, f"PET values are used as stored: the header states {stated}, not Bq/mL or SUV"
    administered = item(header, "RadiopharmaceuticalInformationSequence")
    mass, activity = number(header, "PatientWeight"), number(administered, "RadionuclideTotalDose")
    half_life = number(administered, "RadionuclideHalfLife")
    lacking = [
        name
        for name, found in (("weight", mass), ("injected activity", activity), ("half life", half_life))
        if found is None or found <= (LEAST_ACTIVITY_BQ if name == "injected activity" else 0)
    ]
    delay: timedelta | None = timedelta(0)
    correction = text(header, "DecayCorrection").upper()
    if correction == "START":
        delay = _delay(headers, administered)
        if delay is None:
            lacking.append("time of injection and of acquisition")
    elif correction != "ADMIN":
        lacking.append("decay correction")
    if lacking or mass is None or activity is None or half_life is None or delay is None:
        return 1.0, "Bq/mL", f"PET values stay in Bq/mL: the header lacks {', '.join(lacking)}"
    left = activity * 2.0 ** (-delay.total_seconds() / half_life)
    return 1000.0 * mass / left, "SUV", ""


def _delay(headers: Sequence[Any], administered: Any) -> timedelta | None:
    """Return the time from injection to the start of the acquisition, None unless it makes sense."""
    starts = [_moment(text(h, "AcquisitionDate"), text(h, "AcquisitionTime")) for h in headers]
    known = [start for start in starts if start is not None]
    acquired = min(known, default=None)
    series = _moment(text(headers[0], "SeriesDate"), text(headers[0], "SeriesTime"))
    # Images made later carry a later series time; decay is corrected to the earlier of the two.
    start = min((t for t in (acquired, series) if t is not None), default=None)
    if start is None:
        return None
    injected = _full_moment(text(administered, "RadiopharmaceuticalStartDateTime"))
    if injected is None:
        injected = _moment(start.strftime("%Y%m%d"), text(administered, "RadiopharmaceuticalStartTime"))
    if injected is None:
        return None
    delay = start - injected
    return delay if timedelta(0) <= delay <= _LONGEST_UPTAKE else None


def _full_moment(stamp: str) -> datetime | None:
    return _moment(stamp[:8], stamp[8:].split("+")[0].split("-")[0])


def _moment(date: str, time: str) -> datetime | None:
    """Return a DICOM date and time as a moment, None if either cannot be read."""
    clock, _, fraction = time.partition(".")
    try:
        moment = datetime.strptime(date + clock.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
        return moment + timedelta(seconds=float(f"0.{fraction or 0}"))
    except (ValueError, OverflowError):
        return None
