"""Entries as lines of a file: JSON for people, a CRC over the stored bytes for machines.

A file is whole blocks: lines from the start, NULs to the end, so that a later line needs no space. One NUL is always there:
a file that was cut between two lines is seen. A line is

    {"crc":"<CRC-32 of the entry's bytes, 8 hex digits>","entry":<JSON object>}

What a crash can leave behind is the beginning of one line at the very end; anything else that does not fit is damage.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass

from dra_driver.model.errors import RecordError
from dra_driver.ports import JsonObject

BLOCK_BYTES = 16 * 1024

_LINE = re.compile(rb'\{"crc":"(?P<crc>[0-9a-f]{8})","entry":(?P<entry>.*)\}', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A file's entries, and how to write the next line.

    It goes to offset `end`, after `lead` (the newline that a crash cut off), over `torn_bytes` of a line that a crash cut.
    """

    entries: tuple[JsonObject, ...]
    end: int
    lead: bytes = b""
    torn_bytes: int = 0

    def following(self, entry: JsonObject) -> bytes:
        """What to write at `end`, with one write, to add the entry."""
        return (self.lead + line(entry)).ljust(self.torn_bytes, b"\0")


def line(entry: JsonObject) -> bytes:
    """The entry as one line, newline included."""
    body = json.dumps(entry, separators=(",", ":")).encode("ascii")
    return b'{"crc":"%08x","entry":%s}\n' % (zlib.crc32(body), body)


def whole_blocks(size_bytes: int) -> int:
    """The size of the smallest file of whole blocks that holds so many bytes."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


def read_line(text: str) -> JsonObject:
    """The entry of a single line, its newline left out; RecordError where a byte is wrong."""
    return _entry(text.encode(errors="replace"), 1)


def intact_entries(data: bytes) -> tuple[JsonObject, ...]:
    """The entries before the first byte that is wrong."""
    entries: list[JsonObject] = []
    for text in data.split(b"\n"):
        try:
            entries.append(_entry(text, len(entries) + 1))
        except RecordError:
            break
    return tuple(entries)


def read_lines(data: bytes) -> Lines:
    """All entries of a file's bytes; RecordError where a byte is wrong."""
    if not data or len(data) % BLOCK_BYTES or data[-1]:
        raise RecordError(
            f"{len(data)} bytes are no whole blocks of {BLOCK_BYTES} that end in NUL: it was cut"
        )
    written = data[: data.index(b"\0")]
    *whole, last = written.split(b"\n")
    entries = tuple(_entry(text, number) for number, text in enumerate(whole, start=1))
    if _body(last[:-1]) is not None or data[len(written) :] != bytes(len(data) - len(written)):
        raise RecordError(f"line {len(entries) + 1} ends in bytes that no crash can leave behind")
    if _body(last) is not None:
        whole_last = _entry(last, len(entries) + 1)
        return Lines(entries=(*entries, whole_last), end=len(written), lead=b"\n")
    return Lines(entries=entries, end=len(written) - len(last), torn_bytes=len(last))


def _entry(text: bytes, number: int) -> JsonObject:
    body = _body(text)
    if body is None:
        raise RecordError(f"line {number} does not match its checksum")
    try:
        entry = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"line {number} is not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise RecordError(f"line {number} holds {entry!r} in place of an object")
    return entry


def _body(text: bytes) -> bytes | None:
    """The entry's bytes, if the line is whole and its CRC holds."""
    match = _LINE.fullmatch(text)
    if match is None or b"%08x" % zlib.crc32(match["entry"]) != match["crc"]:
        return None
    return match["entry"]
