"""Calls in flight, in a memory-mapped file that outlives the process.

Rules of the file:

* One file a writer, ``writer-<number>.intents`` in the folder's ``journal``, of :data:`SLOTS` slots of
  :data:`SLOT_BYTES` bytes, allocated in full when it is made, so that no later write can run out of disk.
* A slot is ``state (1) · payload length (2) · CRC-32 of the payload (4) · payload (MessagePack of an Intent)``. The
  state byte is written last and says *open*; one byte written makes the slot free again.
* Who holds ``flock`` on the file owns it. The lock ends with the process, however it ends, and that is how another
  worker knows that the open slots it finds belong to calls nobody will settle any more.

Why this survives ``kill -9`` without a system call: stores to a shared mapping land in the page cache, which is the
kernel's and not the process's, in program order as far as any later reader can tell. A kill between two stores leaves
a free slot with a half-written payload, which nobody looks at. Power loss is another matter: pages may reach the disk
in any order or not at all, so the CRC decides whether a slot found open was whole, and an intent lost that way belongs
to a call whose answer was never acknowledged. Slots that come back from the dead (freed in memory, still open on the
disk) do no harm: recovery asks the ledger first whether the record exists.

Rejected: appending to a file with ``write(2)`` (a system call on the hot path, and a file that must be compacted); a
table in the database (a commit before dispatch).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import struct
import zlib
from array import array
from pathlib import Path
from typing import Final

import msgspec

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.ledger.settlement import Intent

SLOT_BYTES: Final = 512
"""Room for every field at its usual length, twice over; what does not fit is shortened."""

SLOTS: Final = 16_384
"""Calls in flight a worker can hold: far above what one process serves, and 8 MiB of file."""

_HEAD = struct.Struct("<HI")
_PAYLOAD_AT = 1 + _HEAD.size
_PAYLOAD_MAX = SLOT_BYTES - _PAYLOAD_AT
_FREE = 0
_OPEN = 1
_TEXT_BYTES_MAX = 42  # each text of an intent that is too long for its slot, the link of a rerun among them: all fit
_NAME = re.compile(r"writer-(\d{1,4})\.intents\Z")
_WRITERS_MAX = 1000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Intent).decode


class IntentLog:
    """The open intents of one writer. Not for several threads, except :meth:`close_slot`, which stores one byte."""

    def __init__(self, descriptor: int, number: int) -> None:
        self.number = number
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)
        self._free = array("H", [slot for slot in reversed(range(SLOTS)) if self._map[slot * SLOT_BYTES] == _FREE])

    @classmethod
    def claim(cls, journal: Path, number: int) -> IntentLog | None:
        """The log of writer ``number``, made when missing; None when another process owns it.

        Raises :class:`ConfigError` when the file cannot be made (the disk is full, the folder read-only).
        """
        path = journal / f"writer-{number:03d}.intents"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"The journal {path} cannot be opened ({error.strerror}).") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(descriptor, 0, SLOTS * SLOT_BYTES)
            return cls(descriptor, number)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(f"The journal {path} cannot be allocated or mapped ({error.strerror}).") from error

    @classmethod
    def claim_lowest(cls, journal: Path) -> IntentLog:
        """The log with the lowest number that nobody owns, so that a restarted worker takes over a dead one's."""
        for number in range(_WRITERS_MAX):
            log = cls.claim(journal, number)
            if log is not None:
                return log
        raise ConfigError(f"All {_WRITERS_MAX} writers of {journal} are taken.")

    def admit(self, intent: Intent) -> int:
        """Keep ``intent``; give its slot. Raises :class:`GatewayFault` ``overloaded`` when no slot is free."""
        try:
            payload = _encode(intent)
        except UnicodeEncodeError:
            payload = _encode(_shortened(intent))
        if len(payload) > _PAYLOAD_MAX:
            payload = _encode(_shortened(intent))
        if not self._free:
            raise GatewayFault("overloaded")
        slot = self._free.pop()
        at = slot * SLOT_BYTES
        view = self._map
        view[at + 1 : at + _PAYLOAD_AT + len(payload)] = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        view[at] = _OPEN
        return slot

    def close_slot(self, slot: int) -> None:
        """The call has its record: mark the slot free in the file. From any thread. It is not handed out again yet."""
        self._map[slot * SLOT_BYTES] = _FREE

    def release(self, slot: int) -> None:
        """Hand a closed slot out again. In the thread that admits."""
        self._free.append(slot)

    @property
    def open_count(self) -> int:
        return SLOTS - len(self._free)

    def open_intents(self) -> list[tuple[int, Intent | None]]:
        """Every open slot with its intent; None for a slot whose payload is damaged (torn by a power loss)."""
        return [(slot, _read(self._map, slot)) for slot in range(SLOTS) if self._map[slot * SLOT_BYTES] == _OPEN]

    def clear(self) -> None:
        """Free every slot, after recovery has written their records."""
        for slot in range(SLOTS):
            if self._map[slot * SLOT_BYTES] != _FREE:
                self._map[slot * SLOT_BYTES] = _FREE
        self._free = array("H", reversed(range(SLOTS)))
        # All of the file was looked at just now. It stays the kernel's, but not this process's: calls use a few slots.
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Give the file up. Its open slots stay open for the next owner."""
        self._map.close()
        os.close(self._descriptor)


def writer_numbers(journal: Path) -> list[int]:
    """The writers that ever had a log in ``journal``, ascending."""
    names = (_NAME.match(entry.name) for entry in journal.iterdir())
    return sorted(int(match[1]) for match in names if match)


def count_open(journal: Path) -> int:
    """Open slots over all logs, also those of running gateways: the calls in flight, and those left by a crash."""
    total = 0
    for number in writer_numbers(journal):
        data = (journal / f"writer-{number:03d}.intents").read_bytes()
        total += data[::SLOT_BYTES].count(_OPEN)
    return total


def open_ids(journal: Path) -> list[str]:
    """The ids of the calls in the open slots of all logs, also those of running gateways."""
    found: list[str] = []
    for number in writer_numbers(journal):
        data = (journal / f"writer-{number:03d}.intents").read_bytes()
        opened = (slot for slot in range(len(data) // SLOT_BYTES) if data[slot * SLOT_BYTES] == _OPEN)
        found += [intent.request_id for slot in opened if (intent := _read(data, slot)) is not None]
    return found


def _read(view: mmap.mmap | bytes, slot: int) -> Intent | None:
    at = slot * SLOT_BYTES
    length, checksum = _HEAD.unpack_from(view, at + 1)
    payload = view[at + _PAYLOAD_AT : at + _PAYLOAD_AT + min(length, _PAYLOAD_MAX)]
    if zlib.crc32(payload) != checksum:
        return None
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _shortened(intent: Intent) -> Intent:
    """``intent`` with every text cut to a length at which all of them fit; an id of ours is shorter."""
    texts = {name: _cut(value) for name in intent.__struct_fields__ if isinstance(value := getattr(intent, name), str)}
    return msgspec.structs.replace(intent, **texts)


def _cut(text: str) -> str:
    """At most :data:`_TEXT_BYTES_MAX` bytes of UTF-8, no character split, lone surrogates replaced."""
    return text.encode(errors="replace")[:_TEXT_BYTES_MAX].decode(errors="ignore")
