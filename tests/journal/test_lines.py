import json
import zlib

import pytest

from dra_driver.journal.lines import BLOCK_BYTES, intact_entries, line, read_line, read_lines
from dra_driver.model.errors import RecordError
from dra_driver.ports import JsonObject

ENTRIES: tuple[JsonObject, ...] = ({"a": 1}, {"b": "\u00fc\n"}, {"c": [None, True]})
WRITTEN = b"".join(line(entry) for entry in ENTRIES)


def padded(written: bytes, blocks: int = 1) -> bytes:
    """A file of whole blocks that begins with these bytes."""
    return written.ljust(blocks * BLOCK_BYTES, b"\0")


def test_a_line_is_json_with_its_checksum() -> None:
    """One line of ASCII JSON for each entry; its CRC-32 is over the entry's bytes as they stand there."""
    text = line(ENTRIES[1])
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1
    parsed = json.loads(text)
    body = text.partition(b'"entry":')[2][:-2]
    assert parsed == {"crc": f"{zlib.crc32(body):08x}", "entry": ENTRIES[1]}


def test_entries_come_back_in_order() -> None:
    """What was written is read, and the next line goes right behind it."""
    lines = read_lines(padded(WRITTEN))
    assert lines.entries == ENTRIES
    assert (lines.end, lines.lead, lines.torn_bytes) == (len(WRITTEN), b"", 0)


def test_a_line_cut_by_a_crash_is_dropped_and_written_over() -> None:
    """However much of the last line was written, the former ones hold and the next write leaves no trace of it."""
    torn, start = line({"torn": "x" * 40}), len(WRITTEN)
    for written in range(len(torn) - 1):
        lines = read_lines(padded(WRITTEN + torn[:written]))
        assert lines.entries == ENTRIES
        data = bytearray(padded(WRITTEN + torn[:written]))
        following = lines.following({"d": 4})
        data[lines.end : lines.end + len(following)] = following
        assert bytes(data) == padded(WRITTEN + line({"d": 4}))
    assert lines.end == start


def test_a_last_line_that_lacks_only_its_newline_counts() -> None:
    """Its checksum holds, so nothing is missing; the next write adds the newline."""
    lines = read_lines(padded(WRITTEN[:-1]))
    assert lines.entries == ENTRIES
    data = bytearray(padded(WRITTEN[:-1]))
    following = lines.following({"d": 4})
    data[lines.end : lines.end + len(following)] = following
    assert bytes(data) == padded(WRITTEN + line({"d": 4}))


def test_any_flipped_byte_is_seen_or_harmless() -> None:
    """With any byte changed to any of its neighbours, NUL or newline, the entries are the same or the file is refused."""
    original = padded(WRITTEN)
    for place in range(len(WRITTEN) + 20):
        others = {original[place] ^ (1 << bit) for bit in range(8)} | {0, ord("\n"), ord("}")}
        for other in others - {original[place]}:
            data = bytearray(original)
            data[place] = other
            try:
                assert read_lines(bytes(data)).entries == ENTRIES, (place, other)
            except RecordError:
                continue


def test_a_shorter_file_is_refused() -> None:
    """Space is reserved in whole blocks, so a file that was cut anywhere else, even between two lines, is seen."""
    for data in (padded(WRITTEN), padded(WRITTEN * 300, blocks=3)):
        for size in range(0, len(data), 7):
            if size % BLOCK_BYTES or not size:
                with pytest.raises(RecordError, match="cut"):
                    read_lines(data[:size])


def test_a_file_cut_between_blocks_is_refused() -> None:
    """Files end in NUL, so a cut at a block's end is seen, be it in the middle of a line or right behind one."""
    data = padded(WRITTEN * 300, blocks=3)
    with pytest.raises(RecordError, match="end in NUL"):
        read_lines(data[:BLOCK_BYTES])
    fitting = line({"x": "y" * (BLOCK_BYTES - len(line({"x": ""})))})
    assert len(fitting) == BLOCK_BYTES
    assert len(read_lines(padded(fitting + WRITTEN, blocks=2)).entries) == 4
    with pytest.raises(RecordError, match="end in NUL"):
        read_lines(fitting)


def test_what_stands_before_the_damage_is_told() -> None:
    """With any byte of the second line wrong, or the file cut there, the first is all that is intact."""
    first = len(line(ENTRIES[0]))
    original = padded(WRITTEN)
    assert intact_entries(original) == ENTRIES
    for place in range(first, first + len(line(ENTRIES[1]))):
        flipped = bytearray(original)
        flipped[place] ^= 1
        assert intact_entries(bytes(flipped)) == ENTRIES[:1]
        assert intact_entries(original[:place]) in (ENTRIES[:1], ENTRIES[:2])


@pytest.mark.parametrize("text", ["", "x", "\u00fc", '{"crc":"00000000","entry":{}}', "{}"])
def test_a_single_line_is_checked_too(text: str) -> None:
    """A line that is kept elsewhere has the same checksum, and is refused without it."""
    assert read_line(line(ENTRIES[1]).decode().rstrip("\n")) == ENTRIES[1]
    with pytest.raises(RecordError, match="checksum"):
        read_line(text)


@pytest.mark.parametrize(
    "body", [b"[1]", b"7", b"{broken", b'{"a":\xff}', b'{"a":' + b"[" * 10_000]
)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """A line whose checksum holds over something that is no JSON object is refused, not passed on."""
    text = b'{"crc":"%08x","entry":%s}\n' % (zlib.crc32(body), body)
    with pytest.raises(RecordError, match="line 4"):
        read_lines(padded(WRITTEN + text))
