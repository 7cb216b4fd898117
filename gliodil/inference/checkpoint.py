"""The file from which an interrupted fit is continued.

An npz archive of numbers, no pickle: ``header`` is JSON in UTF-8 bytes, the other members are the tensors it refers to.
It holds how the loops that have ended did end, the state of the one that runs (``pde.resume``), the version of the
format, a key: a hash of all that the fit depends on, its code included, and hashes of its members. A file with another
key or version is not used, nor is one whose content is not what was written, and the fit says so: what the loops are
given is what these loops once wrote.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gliodil import __version__
from gliodil.data.atomic import atomic_path
from gliodil.data.gate import obstacle
from gliodil.data.patient import Patient
from gliodil.errors import InputError, OutputError
from gliodil.inference.config import FitConfig
from gliodil.pde.resume import State

logger = logging.getLogger(__name__)

FORMAT = 3
INTERVAL_S = 60.0
SHARE = 20.0
"""A file that takes long to write is written less often: its next is due after so many times that long."""
_TENSOR = "__tensor__"


class Checkpoint:
    """Keeps the states of a fit's loops in a file.

    Parameters
    ----------
    path
        The file. An interrupted fit that left it is continued from it.
    interval_s
        Time between two writings at least, and before the first [s].
    """

    def __init__(self, path: Path | str, *, interval_s: float = INTERVAL_S) -> None:
        self.path, self.interval_s = Path(path), interval_s
        self.warnings: list[str] = []
        self._key: Callable[[], str] = str
        self._loops: list[State] = []
        """Of this run: those that have ended, in their order."""
        self._left: list[State] = []
        """Of the interrupted run: those not asked for yet."""
        self._name = ""
        self._due = 0.0

    @classmethod
    def at(cls, path: Path | str) -> Checkpoint:
        """Return one at a path that a person named.

        Raises
        ------
        InputError
            If there is a file that is no checkpoint: it would be overwritten.
        """
        if _foreign(Path(path)):
            raise InputError(
                "The file to keep a fit's state in is something else.",
                file=Path(path),
                expected="a checkpoint, or no file",
                found="a file of another kind",
                remedy="name another file, or remove this one",
            )
        return cls(path)

    def open(self, key: Callable[[], str]) -> None:
        """Begin a fit: read what an interrupted one with the same key left.

        Parameters
        ----------
        key
            Returns a hash of all the fit depends on. Called when it is needed first.
        """
        known: list[str] = []

        def once() -> str:
            if not known:
                known.append(key())
            return known[0]

        self._key, self._loops, self._left = once, [], []
        self._due = time.monotonic() + self.interval_s
        if not os.path.lexists(self.path):
            return
        try:
            if (found := obstacle(self.path)) is not None:  # a pipe would be waited for
                raise ValueError(found)
            fits, self._left = read_states(self.path, once())
        except Exception as error:  # damage has many faces
            logger.info("%s: %r", self.path, error)
            self._warn("is damaged")
            return
        if not fits:
            self._warn("belongs to other images, other settings or another version")

    def begin(self, loop: str) -> State | None:
        """Return what is known of the loop that begins now; None: nothing."""
        self._name = loop
        if not self._left:
            return None
        kept = self._left.pop(0)
        if kept.pop("loop") != loop:
            self._left = []
            self._warn("took another course")
            return None
        if kept.pop("ended"):
            self._loops.append({"loop": loop, "ended": True, **kept})
        else:
            logger.info("an interrupted fit is continued: %s", loop)
        return kept

    def keep(self, state: Callable[[], State]) -> None:
        """Write the states of all loops if it is time to."""
        if time.monotonic() >= self._due:
            self._write([*self._loops, {"loop": self._name, "ended": False, **state()}])

    def end(self, state: State) -> None:
        """Take note of how the loop ended; write it if it is time to."""
        self._loops.append({"loop": self._name, "ended": True, **state})
        if time.monotonic() >= self._due:
            self._write(self._loops)

    def close(self, *, keep: bool = False) -> None:
        """Let go of the states; the file stays. With `keep` the finished fit is in it, for what follows can fail."""
        if keep:
            self._write(self._loops)
        self._loops, self._left = [], []

    def remove(self) -> None:
        """Remove the file, if there is one."""
        for path in (self.path, _draft(self.path)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _write(self, loops: list[State]) -> None:
        began = time.monotonic()
        try:
            write_states(self.path, self._key(), loops)
        except OutputError as error:  # no reason to give up a fit
            logger.warning("The fit cannot be continued if it is interrupted: %s", error)
        now = time.monotonic()
        self._due = now + (max(self.interval_s, SHARE * (now - began)) if self.interval_s else 0.0)

    def _warn(self, what: str) -> None:
        message = f"What an interrupted fit left {what}; it was not used, the fit began anew."
        logger.warning("%s (%s)", message, self.path)
        self.warnings.append(message)


def fit_key(patient: Patient, config: FitConfig, device: torch.device | str) -> str:
    """Return a hash of volumes with their geometry, the label convention, settings, device, version and code."""
    digest = hashlib.sha256()
    words = [
        *(__version__, asdict(patient.convention), patient.tissue_source),
        *(config.to_dict(), str(device), _code()),
    ]
    digest.update(json.dumps(words, sort_keys=True).encode())
    for role, volume in sorted({"seg": patient.segmentation, **patient.volumes}.items()):
        digest.update(f"{role} {volume.data.dtype} {volume.data.shape}".encode() + volume.affine.tobytes())
        digest.update(volume.data.tobytes())
    return digest.hexdigest()


def write_states(path: Path, key: str, loops: list[State]) -> None:
    """Write a checkpoint, whole or not at all, one tensor after the other.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    tensors: list[torch.Tensor] = []
    packed = _packed(loops, tensors)
    arrays = [tensor.detach().cpu().numpy() for tensor in tensors]
    header = {"format": FORMAT, "key": key, "loops": packed, "members": [_hash(array) for array in arrays]}
    text = json.dumps(header).encode()
    with atomic_path(path, draft=_draft(path)) as temporary, temporary.open("wb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = hashlib.sha256(text).hexdigest().encode()
            _add(archive, "header", np.frombuffer(text, np.uint8))
            for number, array in enumerate(arrays):
                _add(archive, str(number), array)
        file.flush()
        os.fsync(file.fileno())  # the name must not come before the content if the machine stops


def read_states(path: Path, key: str) -> tuple[bool, list[State]]:
    """Return whether the file has this key and format, and the states if so.

    A damaged file raises whatever its damage makes the readers raise.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as members:
        if sum(member.file_size for member in members.zip.infolist()) > path.stat().st_size:
            raise ValueError("it unpacks to more than it holds")  # it is written as it is
        text = members["header"].tobytes()
        header = json.loads(text)
        if header["format"] != FORMAT or header["key"] != key:
            return False, []
        if members.zip.comment != hashlib.sha256(text).hexdigest().encode():
            raise ValueError("the header is not as it was written")
        arrays = {str(number): members[str(number)] for number in range(len(header["members"]))}
        if [_hash(array) for array in arrays.values()] != header["members"]:
            raise ValueError("a member is not as it was written")
        return True, _unpacked(header["loops"], arrays)


def _draft(path: Path) -> Path:
    """Return the name under which a checkpoint is written: one, so that a killed process leaves no other."""
    return path.with_name(f"{path.name}.new")


def _foreign(path: Path) -> bool:
    """Whether there is a file that was not written here, damaged or whole."""
    if os.path.lexists(path) and not path.is_file():
        return True
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except FileNotFoundError:
        return False
    except OSError:  # a folder, or nothing for us to read
        return True
    if start != b"PK"[: len(start)]:
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return "header.npy" not in archive.namelist()
    except zipfile.BadZipFile:  # cut short
        return False


def _hash(array: np.ndarray[Any, Any]) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


@cache
def _code() -> str:
    """Return a hash of the code that makes and takes states: another one may write them otherwise."""
    digest = hashlib.sha256()
    for folder in ("inference", "pde", "sampling"):
        for part in sorted(Path(__file__).parents[1].joinpath(folder).rglob("*.py")):
            digest.update(part.read_bytes())
    return digest.hexdigest()


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray[Any, Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _packed(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Return the value as JSON takes it, its tensors replaced by their numbers."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return {_TENSOR: len(tensors) - 1, "device": str(value.device)}
    if isinstance(value, Mapping):
        return {key: _packed(of, tensors) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(of, tensors) for of in value]
    return value


def _unpacked(value: Any, members: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        if _TENSOR in value:
            return torch.from_numpy(members[str(value[_TENSOR])]).to(value["device"])
        return {key: _unpacked(of, members) for key, of in value.items()}
    if isinstance(value, list):
        return [_unpacked(of, members) for of in value]
    return value
