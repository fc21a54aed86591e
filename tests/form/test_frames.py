"""A frame reads back as it was, and anything that is not one is refused without harm."""

from __future__ import annotations

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.errors import CorruptError, TooLargeError
from holdfast.form.frames import (
    END_FRAME,
    END_OF_ARCHIVE,
    compress_frame,
    decompress_frame,
    new_compressor,
    new_page_compressor,
)
from holdfast.form.layout import MAX_FRAME_BYTES
from holdfast.form.packing import PACK_BYTES

RAW = b"some bytes that are worth keeping. " * 40
FRAME = compress_frame(new_compressor(), RAW)


@given(st.binary(min_size=1, max_size=5000), st.sampled_from([new_compressor, new_page_compressor]))
def test_a_frame_reads_back(raw: bytes, compressor: type[zstandard.ZstdCompressor]) -> None:
    stored = compress_frame(compressor(), memoryview(raw))

    assert decompress_frame(stored, len(raw)) == raw


def test_the_end_of_the_archive_has_a_frame_of_its_own() -> None:
    assert decompress_frame(END_FRAME, len(END_OF_ARCHIVE)) == END_OF_ARCHIVE


def test_a_frame_has_a_limit() -> None:
    with pytest.raises(TooLargeError):
        compress_frame(new_compressor(), bytes(MAX_FRAME_BYTES + 1))


def test_the_largest_frame_fits_into_a_pack_whatever_it_holds() -> None:
    # Half of Fibonacci hashing: no byte tells the next one.
    noise = b"".join(
        (n * 0x9E3779B97F4A7C15 % 2**64 ^ n**5 % 2**61).to_bytes(8)
        for n in range(MAX_FRAME_BYTES // 8)
    )

    assert len(compress_frame(new_compressor(), noise)) <= PACK_BYTES


def unsized(raw: bytes) -> bytes:
    """A frame that does not say its size."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(raw)


def with_window(log: int) -> bytes:
    """A frame of 1,024 zero bytes that asks for a window of 2**log bytes."""
    block = (1024 << 3 | 0b011).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x80" + bytes([log - 10 << 3]) + (1024).to_bytes(4, "little") + block


@pytest.mark.fault("T05")
@pytest.mark.parametrize(
    "stored",
    [
        b"",
        FRAME[:3],
        FRAME[:-1],
        FRAME + b"\0",
        FRAME + FRAME,
        b"\x50\x2a\x4d\x18" + len(RAW).to_bytes(4, "little") + RAW,
        b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + FRAME,
        unsized(RAW),
        compress_frame(new_compressor(), RAW + b"!"),
        compress_frame(new_compressor(), RAW[:-1]),
        zstandard.ZstdCompressor(
            dict_data=zstandard.ZstdCompressionDict(RAW[:200] + b"#" * 300)
        ).compress(RAW)[:-2],
    ],
)
def test_what_is_no_such_frame_is_corrupt(stored: bytes) -> None:
    with pytest.raises(CorruptError):
        decompress_frame(stored, len(RAW))


@pytest.mark.fault("T06")
@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"BZh9"])
def test_what_another_tool_compressed_is_corrupt(magic: bytes) -> None:
    with pytest.raises(CorruptError):
        decompress_frame(magic + bytes(100), len(RAW))


@pytest.mark.fault("T05")
def test_a_frame_cannot_ask_for_more_than_was_recorded() -> None:
    bomb = zstandard.compress(bytes(50_000_000))

    with pytest.raises(CorruptError):
        decompress_frame(bomb, 1000)
    with pytest.raises(CorruptError):
        decompress_frame(bomb, 50_000_000)


@pytest.mark.fault("T05")
def test_a_frame_cannot_ask_for_a_large_window() -> None:
    assert decompress_frame(with_window(23), 1024) == bytes(1024)

    with pytest.raises(CorruptError):
        decompress_frame(with_window(24), 1024)


@pytest.mark.fault("T05")
@given(st.integers(min_value=0, max_value=len(FRAME) - 1), st.integers(min_value=0, max_value=255))
@example(4, 0)
def test_a_changed_byte_gives_the_right_length_or_an_error(at: int, byte: int) -> None:
    changed = FRAME[:at] + bytes([byte]) + FRAME[at + 1 :]

    try:
        raw = decompress_frame(changed, len(RAW))
    except CorruptError:
        return
    assert len(raw) == len(RAW)
