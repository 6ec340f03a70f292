"""A picture's bytes to pixels: right in every mode, or refused by name; and what is done about damaged pictures."""

import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

import ffsd_ray.data.decode
from ffsd_ray.data import Dataset, load
from ffsd_ray.data.batches import TrainBatches
from ffsd_ray.data.damage import DamagedImage
from ffsd_ray.data.decode import decode_named
from ffsd_ray.data.picture import MAX_PIXELS, PictureError, decode, upright
from ffsd_ray.errors import DataError
from ffsd_ray.run import main

from helpers.images import IMAGE_TYPE, data_settings
from helpers.paths import TESTS

RAMP = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (8, 1))
DEEP = RAMP.astype(np.uint16) * 257
COLOURS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def tiff(
    pixels: np.ndarray | bytes, *, order: Literal["<", ">"] = "<", **entries: tuple[int, Sequence[int] | bytes]
) -> bytes:
    """A TIFF file of a 16 × 8 grey picture; an entry is named t and its tag: (type, numbers or raw bytes)."""
    content = pixels if isinstance(pixels, bytes) else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    content += bytes(len(content) % 2)
    tags: dict[int, tuple[int, Sequence[int] | bytes]] = {
        256: (4, [16]),
        257: (4, [8]),
        258: (3, [8 * len(content) // 128]),
        259: (3, [1]),
        262: (3, [1]),
        273: (4, [8]),
        277: (3, [1]),
        278: (4, [8]),
        279: (4, [len(content)]),
    }
    tags |= {int(name[1:]): entry for name, entry in entries.items()}
    directory, beyond = struct.pack(order + "H", len(tags)), b""
    start = 8 + len(content) + 2 + 12 * len(tags) + 4
    for tag, (kind, value) in sorted(tags.items()):
        size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 10: 8, 11: 4}[kind]
        if not isinstance(value, bytes):
            value = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], number) for number in value)
        held = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", start + len(beyond))
        beyond += value if len(value) > 4 else b""
        directory += struct.pack(order + "HHI", tag, kind, len(value) // size) + held
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8 + len(content))
    return header + content + directory + bytes(4) + beyond


def png(width: int, height: int, depth: int, colour: int, rows: bytes, transparent: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    key = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def twelve_bits(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2).astype(int)
    return b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in pairs)


# ---- modes


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_ordinary_pictures_are_what_pillow_makes_of_them(mode: str, form: str) -> None:
    picture = Image.fromarray(COLOURS).convert(mode)
    data = encoded(picture.convert("L") if (mode, form) in {("P", "JPEG"), ("P", "PPM")} else picture, form)
    expected = pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))
    assert torch.equal(decode(data, None), expected)
    assert torch.equal(upright(Image.open(io.BytesIO(data))), expected)


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "JPEG"), ("YCbCr", "TIFF"), ("LAB", "TIFF")]
)
def test_other_colours_are_what_pillow_makes_of_them(mode: str, form: str) -> None:
    """Those of JPEG as Adobe stores them: inverted."""
    data = encoded(Image.fromarray(COLOURS).convert(mode), form)
    try:
        expected = pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))
    except OSError as error:  # as of Pillow 12.3, of TIFF in YCbCr
        pytest.skip(f"this Pillow does not read it: {error}")
    assert torch.equal(decode(data, None), expected)


DEEP_GREYS = {
    "PNG": encoded(Image.fromarray(DEEP)),
    "TIFF": encoded(Image.fromarray(DEEP), "TIFF"),
    "TIFF, compressed": encoded(Image.fromarray(DEEP), "TIFF", compression="tiff_deflate"),
    "TIFF, big endian": tiff(DEEP, order=">"),
    "TIFF, white is zero": tiff(65535 - DEEP, t262=(3, [0])),
    "TIFF of 12 bits": tiff(twelve_bits(RAMP.astype(int) * 4095 // 255)),
    "TIFF with a sign": tiff(DEEP // 2, t339=(3, [2])),
    "TIFF of 32 bits": tiff(DEEP.astype(np.int32), t339=(3, [2])),
    "TIFF of 32 bits without a sign": tiff(DEEP.astype(np.uint32), order=">", t339=(3, [2])),
    "TIFF of floats": tiff((RAMP / 255).astype(np.float32), t339=(3, [3])),
    "TIFF of floats to 255": tiff(RAMP.astype(np.float32), order=">", t339=(3, [3])),
    "TIFF of floats, white is zero": tiff((1 - RAMP / 255).astype(np.float32), t262=(3, [0]), t339=(3, [3])),
    "PGM": b"P5 16 8 65535\n" + DEEP.astype(">u2").tobytes(),
    "PGM to 1000": b"P5 16 8 1000\n" + (RAMP.astype(float) / 255 * 1000).round().astype(">u2").tobytes(),
    "PGM as text": b"P2 16 8 65535\n" + b" ".join(b"%d" % value for value in DEEP.flatten()),
    "PFM": b"Pf\n16 8\n-1.0\n" + (RAMP / 255).astype("<f4").tobytes(),
    "PNG, three channels": png(16, 8, 16, 2, b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in DEEP)),
}


@pytest.mark.parametrize("name", DEEP_GREYS)
def test_greys_of_more_bits_are_scaled_not_clipped(name: str) -> None:
    wanted = decode(encoded(Image.fromarray(RAMP)), None).int()
    assert int((decode(DEEP_GREYS[name], None).int() - wanted).abs().max()) <= 1


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    """The range is that of what it is stored in, not of its values."""
    for data in (encoded(Image.fromarray(DEEP // 256)), b"P5 16 8 65535\n" + (DEEP // 256).astype(">u2").tobytes()):
        assert int(decode(data, None).max()) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(RAMP.astype(np.float32) * 2, t339=(3, [3])), "mode F with values from 0 to 510, expected 0 to 1 or 0"),
        (tiff(RAMP.astype(np.float32) - 1, t339=(3, [3])), "mode F with values from -1 to 254"),
        (tiff(np.full((8, 16), np.nan, np.float32), t339=(3, [3])), "mode F with values from nan to nan"),
        (tiff(np.full((8, 16), np.inf, np.float32), t339=(3, [3])), "mode F with values from inf to inf"),
        (tiff(DEEP.astype(np.int32) - 5, t339=(3, [2])), "mode I with values from -5 to 65530, expected 16 bits"),
        (tiff(DEEP.astype(np.int32) * 9, t339=(3, [2])), "mode I with values from 0 to 589815"),
        (tiff(RAMP.astype(np.int32), t339=(3, [2])), "mode I with values from 0 to 255, expected 16 bits"),
        (tiff(RAMP.astype(np.int16) - 3, t339=(3, [2])), "mode I with values from -3 to 252, expected 16 bits"),
    ],
)
def test_values_without_a_known_range_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        decode(data, None)


@pytest.mark.parametrize("mode", Image.MODES)
def test_every_mode_of_an_opened_picture(mode: str) -> None:
    grey = Image.fromarray(RAMP)
    if mode in ("I", "F") or mode.startswith("I;16"):
        picture = (
            Image.frombytes(mode, (16, 8), DEEP.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
            if (mode.startswith("I;16"))
            else Image.fromarray(DEEP.astype(np.int32) if mode == "I" else (RAMP / 255).astype(np.float32))
        )
    else:
        picture = grey.convert({"La": "LA", "RGBa": "RGBA", "PA": "LA", "LAB": "RGB", "HSV": "RGB"}.get(mode, mode))
        picture = picture if picture.mode == mode else picture.convert(mode)
    assert picture.mode == mode
    found = upright(picture)
    wanted = pil_to_tensor(grey.convert("1").convert("RGB") if mode == "1" else grey.convert("RGB")).int()
    assert int((found.int() - wanted).abs().max()) <= 2


# ---- transparency


def transparent_pictures() -> dict[str, bytes]:
    """3 × 1 pixels: black, transparent over a colour, and 60 of 255."""
    rgba = np.array([[[0, 0, 0, 255], [9, 200, 9, 0], [60, 60, 60, 255]]], np.uint8)
    la = np.array([[[0, 255], [200, 0], [60, 255]]], np.uint8)
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 9, 200, 9, 60, 60, 60])
    return {
        "RGBA": encoded(Image.fromarray(rgba)),
        "RGBA in WebP": encoded(Image.fromarray(rgba), "WEBP", lossless=True, exact=True),
        "RGBA in TIFF": encoded(Image.fromarray(rgba), "TIFF"),
        "LA": encoded(Image.fromarray(la)),
        "P, a colour": encoded(palette, transparency=1),
        "P, each colour's": encoded(palette, transparency=b"\xff\0\xff"),
        "P in GIF": encoded(palette, "GIF", transparency=1),
        "L, a grey": png(3, 1, 8, 0, b"\0\x00\xc8\x3c", b"\0\xc8"),
        "RGB, a colour": png(3, 1, 8, 2, b"\0\0\0\0\x09\xc8\x09\x3c\x3c\x3c", b"\0\x09\0\xc8\0\x09"),
        "16 bits, a grey": png(3, 1, 16, 0, struct.pack(">x3H", 0, 200 * 257 + 1, 60 * 257), struct.pack(">H", 51401)),
        "16 bits, a colour": png(
            3,
            1,
            16,
            2,
            struct.pack(">x9H", *[0] * 3, 513, 51401, 513, *[60 * 257] * 3),
            struct.pack(">3H", 513, 51401, 513),
        ),
    }


@pytest.mark.parametrize("name", transparent_pictures())
def test_what_is_transparent_is_seen_on_white(name: str) -> None:
    expected = torch.tensor([0, 255, 60], dtype=torch.uint8).expand(3, 1, 3)
    assert torch.equal(decode(transparent_pictures()[name], None), expected)


@pytest.mark.parametrize(("depth", "grey"), [(1, 255), (2, 85), (4, 17)])
def test_a_transparent_grey_of_few_bits(depth: int, grey: int) -> None:
    """Its number is of that many bits, the pixels that Pillow gives are of 8."""
    seen = decode(png(2, 1, depth, 0, bytes([0, 1 << (8 - 2 * depth)]), b"\0\x01"), None)[0, 0].tolist()
    assert seen == [0, 255]
    assert decode(png(2, 1, depth, 0, bytes([0, 1 << (8 - 2 * depth)])), None)[0, 0].tolist() == [0, grey]


def test_half_transparent_and_unused_alpha() -> None:
    half = Image.new("RGBA", (4, 4), (100, 0, 200, 128))
    assert decode(encoded(half), None)[:, 0, 0].tolist() == [177, 127, 227]
    for mode in ("RGBa", "La"):
        assert (
            125
            <= int(
                upright(
                    Image.new("LA", (4, 4), (0, 128)).convert("RGBA" if mode == "RGBa" else "LA").convert(mode)
                ).min()
            )
            <= 129
        )
    opaque = Image.fromarray(COLOURS).convert("RGBA")
    assert torch.equal(decode(encoded(opaque), None), pil_to_tensor(Image.fromarray(COLOURS)))
    opaque.putalpha(0)  # as programs write 32 bits a pixel without a meaning of the last 8
    assert torch.equal(decode(encoded(opaque, "BMP"), None), pil_to_tensor(Image.fromarray(COLOURS)))


@pytest.mark.parametrize("form", ["GIF", "TIFF", "WEBP", "PNG", "AVIF", "MPO"])
def test_the_first_frame_is_seen(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    pixel = decode(encoded(frames[0], form, save_all=True, append_images=frames[1:]), None)[:, 8, 8].tolist()
    assert pixel == pytest.approx([255, 0, 0], abs=3)


# ---- EXIF


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_as_exif_transpose_has_it(orientation: int, form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(COLOURS), form, exif=exif)
    expected = pil_to_tensor(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert torch.equal(decode(data, None), expected)
    assert torch.equal(upright(Image.open(io.BytesIO(data))), expected)


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value


def jpeg_with(entries: Sequence[bytes], beyond: bytes = b"", cut: int | None = None) -> bytes:
    plain = encoded(Image.fromarray(COLOURS), "JPEG")
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + beyond
    block = block[:cut]
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


TURNED, BEYOND = entry(0x112, 3, 1, struct.pack("<HH", 6, 0)), struct.pack("<I", 8 + 2 + 24 + 4)
ODD_JPEGS = {
    "resolution as text": jpeg_with([TURNED, entry(0x11A, 2, 8, BEYOND)], b"72/1    "),
    "resolution as bytes": jpeg_with([TURNED, entry(0x11A, 7, 8, BEYOND)], struct.pack("<II", 72, 1)),
    "resolution -1/0": jpeg_with([TURNED, entry(0x11A, 10, 1, BEYOND)], struct.pack("<ii", -1, 0)),
    "a float for a whole number": jpeg_with([entry(0x103, 11, 1, struct.pack("<f", 1.5)), TURNED]),
    "text for a whole number": jpeg_with([entry(0x103, 2, 4, b"abc\0"), TURNED]),
    "an entry beyond the end": jpeg_with([TURNED, entry(0x11A, 5, 1, struct.pack("<I", 60000))]),
    "a directory that is none": jpeg_with([TURNED, entry(0x8769, 4, 1, struct.pack("<I", 60000))]),
}
ODD_TIFFS = {
    "resolution as text": tiff(RAMP, t274=(3, [6]), t282=(2, b"72/1    ")),
    "resolution -1/0": tiff(RAMP, t274=(3, [6]), t282=(10, struct.pack("<ii", -1, 0))),
    "a directory beyond the end": tiff(RAMP, t274=(3, [6]), t34665=(4, [99_999_999])),
    "a directory that is text": tiff(RAMP, t274=(3, [6]), t34665=(2, b"abc\0")),
    "the maker as a float": tiff(RAMP, t274=(3, [6]), t271=(11, struct.pack("<f", 6))),
}


@pytest.mark.filterwarnings("ignore:Truncated File Read:UserWarning", "ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("name", ODD_JPEGS)
def test_odd_exif_entries_keep_no_jpeg_from_being_turned(name: str) -> None:
    expected = pil_to_tensor(
        Image.open(io.BytesIO(ODD_JPEGS[name])).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    )
    assert torch.equal(decode(ODD_JPEGS[name], None), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("name", ODD_TIFFS)
def test_odd_exif_entries_keep_no_tiff_from_being_turned(name: str) -> None:
    expected = pil_to_tensor(Image.fromarray(RAMP).convert("RGB").transpose(Image.Transpose.ROTATE_270))
    assert torch.equal(decode(ODD_TIFFS[name], None), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("cut", [7, 10, 14, 15, 20, 27])
def test_exif_that_breaks_off_counts_as_none(cut: int) -> None:
    plain = decode(encoded(Image.fromarray(COLOURS), "JPEG"), None)
    assert torch.equal(decode(jpeg_with([TURNED], cut=cut), None), plain)


# ---- what is no picture, or too large


OTHERS = {
    b"": "it is empty, it holds no bytes",
    b"<!DOCTYPE html><html>": "an HTML page, not a picture",
    b"\xef\xbb\xbf\n <HTML><svg>": "an HTML page, not a picture",
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>': "an SVG drawing",
    b"<svg/>": "an SVG drawing",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "an XML file, not a picture",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": r"a Git LFS pointer \(git lfs pull fetches",
    b"%PDF-1.7": "a PDF file",
    b"\0\0\0\x18ftypheic" + bytes(20): "HEIC, which must be converted to JPEG or PNG first",
    b"\0\0\0\x18ftypmif1" + bytes(20): "HEIC",
    b"\0\0\0\x18ftypisom" + bytes(20): "a video",
    b"PK\3\4" + bytes(20): "a ZIP archive",
    b"\0\5\26\7" + bytes(60): "macOS's companion",
    b"8BPS\0\1" + bytes(30): "a Photoshop file",
    b"SIMPLE  =                    T": "FITS",
    bytes(128) + b"DICM": "DICOM",
    bytes(4096): "begins with zeros",
    b"\x89PNG no more": "first bytes are damaged",
    b'{"error": 404}': "text, not a picture",
    b"\x01\x02\x03\x04" * 9: "in no format that is read",
}


@pytest.mark.parametrize("data", OTHERS)
def test_what_is_no_picture_is_named(data: bytes) -> None:
    said = set()
    for _ in range(2):
        with pytest.raises(PictureError, match=OTHERS[data]) as caught:
            decode(data, None)
        said.add(str(caught.value))
    assert len(said) == 1
    assert "0x" not in said.pop()


@pytest.mark.parametrize("form", ["EPS", "PCX", "TGA", "ICO", "JPEG2000", "SGI", "ICNS", "DDS"])
def test_no_other_format_is_opened(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: object, **options: object) -> None:
        raise AssertionError("a picture started a program")

    data = encoded(Image.new("RGB", (32, 32)), form)
    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(os, "system", start)
    with pytest.raises(PictureError, match="an EPS" if form == "EPS" else "it is "):
        decode(data, None)
    with pytest.raises(PictureError, match=f"its format is {form}, expected one of JPEG, PNG"):
        upright(Image.open(io.BytesIO(data)))


def large_pictures() -> dict[str, bytes]:
    side = 8193
    frames = {"save_all": True, "append_images": [Image.new("RGB", (16, 8), "red")]}
    webp = bytearray(encoded(Image.fromarray(RAMP).convert("RGB"), "WEBP", **frames))
    webp[24:30] = (struct.pack("<I", side - 1)[:3]) * 2  # of the canvas that the frames are on
    gif = bytearray(encoded(Image.fromarray(RAMP), "GIF"))
    gif[6:10] = struct.pack("<HH", 9000, 9000)
    return {
        "8,193 × 8,193": png(side, side, 8, 0, b""),
        "20,000 × 3,400": encoded(Image.new("1", (20000, 3400)), "TIFF", compression="group4"),
        "400,000,000": png(20000, 20000, 8, 2, b""),
        "8,193 × 8,193 in WebP": bytes(webp),
        "9,000 × 9,000": bytes(gif),
        "4,292,870,400": tiff(
            RAMP, t259=(3, [8]), t322=(3, [65520]), t323=(3, [65520]), t324=(4, [8]), t325=(4, [128])
        ),
        "8,200 × 8,200": b"P5 8200 8200 255\n",
    }


@pytest.mark.parametrize("size", large_pictures())
def test_too_large_pictures_are_refused_before_they_are_decoded(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda picture: pytest.fail("it is decoded"))
    with pytest.raises(
        PictureError, match=rf"it has {size.split(' in ')[0]} pixels, expected at most 67,108,864 in all; scale it down"
    ):
        decode(large_pictures()[size], 8)
    assert MAX_PIXELS == 67_108_864


def test_a_thread_of_a_picture_is_refused() -> None:
    """Its shorter side scaled to the images' size, the longer one would fill the memory."""
    assert decode(encoded(Image.new("L", (2560, 10))), 32).shape == (3, 32, 32)
    with pytest.raises(PictureError, match="it has 257 × 1 pixels, expected sides at most 256 to 1"):
        decode(encoded(Image.new("L", (257, 1))), 32)


# ---- damaged bytes


def seeds() -> dict[str, bytes]:
    picture, exif = Image.fromarray(COLOURS), Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x010F] = 6, 72.0, "maker"
    two: dict[str, Any] = {"save_all": True, "append_images": [picture.rotate(90)]}
    return {
        "JPEG": encoded(picture, "JPEG", exif=exif),
        "progressive JPEG": encoded(picture.convert("CMYK"), "JPEG", progressive=True),
        "MPO": encoded(picture, "MPO", **two),
        "PNG": encoded(picture, exif=exif),
        "PNG of a palette": encoded(picture.quantize(8), transparency=1),
        "PNG of 16 bits": DEEP_GREYS["PNG"],
        "APNG": encoded(picture, **two),
        "WebP": encoded(picture, "WEBP", exif=exif),
        "moving WebP": encoded(picture.convert("RGBA"), "WEBP", lossless=True, **two),
        "GIF": encoded(picture, "GIF", **two),
        "BMP": encoded(picture, "BMP"),
        "BMP of a palette": encoded(picture.quantize(8), "BMP"),
        "PPM": encoded(picture, "PPM"),
        "PGM": DEEP_GREYS["PGM"],
        "PGM as text": DEEP_GREYS["PGM as text"],
        "PFM": DEEP_GREYS["PFM"],
        "AVIF": encoded(picture, "AVIF"),
        "TIFF": encoded(picture, "TIFF", exif=exif),
        "TIFF of floats": DEEP_GREYS["TIFF of floats"],
        "TIFF of LAB": encoded(picture.convert("LAB"), "TIFF"),
        "TIFF of a fax": encoded(picture.convert("1"), "TIFF", compression="group4"),
        **{
            f"TIFF, {compression}": encoded(picture, "TIFF", compression=compression)
            for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma")
        },
    }


def damaged(data: bytes, chance: random.Random) -> bytes:
    content = bytearray(data)
    if chance.random() < 0.15:
        return bytes(content[: chance.randrange(len(content))])
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = chance.randrange(min(len(content), chance.choice([64, len(content)])))
        number = chance.choice([0, 1, 255, 1000, 65535, 0x7FFFFFFF, 0xFFFFFFFF])
        how = chance.randrange(4)
        if how == 0:
            content[place] = chance.randrange(256)
        elif how == 1:
            content[place : place + 4] = number.to_bytes(4, chance.choice(["little", "big"]))
        elif how == 2:
            content[place : place + 2] = (number & 65535).to_bytes(2, chance.choice(["little", "big"]))
        else:
            content[place : place + chance.randrange(1, 9)] = bytes(chance.randrange(5))
        if not content:
            break
    return bytes(content)


def decode_damaged(times: int) -> None:
    """Ends in an error where one decodes to anything but pixels, or is refused with anything but a ValueError."""
    chance, refused, count = random.Random(0), 0, 0
    for data in seeds().values():
        assert decode(data, 8).shape == (3, 8, 8)
        for _ in range(times):
            content = damaged(data, chance)
            count += 1
            try:
                pixels = decode(content, 8)
            except ValueError as error:
                refused += 1
                said = str(error)
                assert said
                assert " at 0x" not in said
                with pytest.raises(PictureError) as again:
                    decode(content, 8)
                assert str(again.value) == said
            else:
                assert pixels.shape == (3, 8, 8)
                assert pixels.dtype == torch.uint8
    assert 0.3 < refused / count < 0.99


@pytest.mark.slow
def test_damaged_bytes_are_pixels_or_a_refusal_and_nothing_is_printed() -> None:
    """In a process of its own: libraries in C print past Python, and pytest has filters for warnings of its own."""
    program = "import test_decoding; test_decoding.decode_damaged(60)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"])
def test_a_picture_cut_short_is_refused(form: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), form)
    assert decode(data, None).shape == (3, 64, 64)
    for kept in (0.3, 0.6, 0.9, 0.97):
        with pytest.raises(PictureError, match=r"cannot be decoded|first bytes are damaged|AVIF, damaged"):
            decode(data[: int(kept * len(data))], None)


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("a"),
        struct.error("b"),
        zlib.error("c"),
        EOFError("d"),
        SyntaxError("e"),
        KeyError("f"),
        SystemError(),
    ],
)
def test_whatever_a_decoder_raises_names_the_picture(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(picture: Image.Image) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(DamagedImage, match=r"cat.png: expected a whole picture .*: it cannot be decoded \("):
        decode_named(encoded(Image.fromarray(COLOURS)), "cat.png", 8)


# ---- damaged pictures of a data set


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """20 training and 10 test pictures of two classes, and a cache beside them."""
    for index in range(30):
        folder = tmp_path / "pets" / ("train" if index < 20 else "test") / ("cat", "dog")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(COLOURS, index)).resize((16, 16)).save(folder / f"{index:02}.png")
    return tmp_path / "pets"


def read(root: Path, /, **settings: Any) -> Dataset:
    cache = str(root.parent / "cache")
    defaults: dict[str, Any] = {"root": str(root), "image_size": 16, "cache": cache, "loader_processes": 0}
    return load(data_settings("image_folder", **defaults | settings))


def spoil(root: Path, *indices: int) -> list[Path]:
    """Each in a way of its own; the files."""
    files = [file for index in indices for file in root.rglob(f"{index:02}.png")]
    for number, file in enumerate(files):
        file.write_bytes((b"", file.read_bytes()[:-40], b"<html>")[number % 3])
    return files


def parquet_of(root: Path, nulls: Sequence[int] = ()) -> dict[str, Any]:
    """The same pictures as rows, in the same order; those of `nulls` without bytes. Settings."""
    for split in ("train", "test"):
        files = sorted((root / split).rglob("*.png"))
        images = [{"bytes": None if int(f.stem) in nulls else f.read_bytes(), "path": f.name} for f in files]
        labels = [("cat", "dog").index(file.parent.name) for file in files]
        table = pa.table({"image": pa.array(images, IMAGE_TYPE), "label": labels})
        pq.write_table(table.replace_schema_metadata({"classes": "cat,dog"}), root.parent / f"{split}.parquet")
    return {
        "train": str(root.parent / "train.parquet"),
        "test": str(root.parent / "test.parquet"),
        "image_size": 16,
        "cache": str(root.parent / "cache"),
        "loader_processes": 0,
    }


def assert_same(one: Dataset, other: Dataset) -> None:
    for split in ("train", "test"):
        some, others = getattr(one, split), getattr(other, split)
        assert torch.equal(some.labels, others.labels)
        assert torch.equal(shown(some), shown(others))
    assert (one.classes, one.mean, one.std) == (other.classes, other.mean, other.std)


def shown(split: Any) -> Tensor:
    return torch.cat([images for images, _ in split.unaugmented([slice(0, len(split))])])


def test_all_damaged_pictures_are_told_at_once(root: Path) -> None:
    files = spoil(root, *range(1, 26))
    with pytest.raises(DataError, match=r"^25 of 30 images are damaged, expected whole .*on_error: skip") as caught:
        read(root)
    _, *lines = str(caught.value).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "  and 5 more"
    order = sorted(files, key=lambda file: (file.parts[-3] != "train", *file.parts[-2:]))
    assert [line.split(": ")[0].strip() for line in lines[:-1]] == [str(file) for file in order[:20]]
    assert all("0x" not in line for line in lines)
    assert {line.split(": ")[1] for line in lines[:-1]} >= {"it is empty, it holds no bytes"}


@pytest.mark.parametrize("stream", [False, True])
def test_rows_of_parquet_are_told_like_files(stream: bool, root: Path) -> None:
    """Null rows before training, of a stream too; the damaged ones of a stream when they are met."""
    with pytest.raises(DataError, match=r"train.parquet, row 2 \(from 0\): expected a whole picture .*it is empty"):
        load(data_settings("parquet", **parquet_of(root, nulls=[4]), stream=stream))
    with pytest.raises(DataError, match=r"^2 of 30 images are damaged") as caught:
        load(data_settings("parquet", **parquet_of(root, nulls=[4, 21]), stream=stream))
    rows = [line.split(":")[0].rsplit("/")[-1] for line in str(caught.value).splitlines()[1:]]
    assert rows == ["train.parquet, row 2 (from 0)", "test.parquet, row 5 (from 0)"]
    spoil(root, 4)
    settings = parquet_of(root, nulls=[21])
    skipping = load(data_settings("parquet", **settings, stream=stream, on_error="skip", max_skipped=0.1))
    assert [name.split(":")[0].rsplit("/")[-1] for name in skipping.skipped] == rows
    assert (len(skipping.train), len(skipping.test)) == (19, 9)


@pytest.mark.parametrize("stream", [False, True])
def test_skipping_leaves_the_data_set_without_the_damaged_pictures(stream: bool, root: Path) -> None:
    """The same set, order and batches as if they had never been there, at every reading."""
    files = spoil(root, 3, 8, 25)
    settings = {"stream": stream, "on_error": "skip", "max_skipped": 0.1}
    found = [read(root, **settings), read(root, **settings)]
    assert found[0].skipped == found[1].skipped
    assert [name.split(": ")[0] for name in found[0].skipped] == [str(files[1]), str(files[0]), str(files[2])]
    assert found[0].skipped[1].endswith(": it is empty, it holds no bytes")
    for file in files:
        file.unlink()
    without = read(root, stream=stream)
    assert without.skipped == ()
    epochs = []
    for dataset in (*found, without):
        assert_same(dataset, without)
        batches = TrainBatches(
            dataset.train, dataset.mean, dataset.std, crop_padding=2, flip=True, batch_size=4, seed=1
        )
        epochs.append(torch.cat([batch.views[0] for batch in batches.epoch(2)]))
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[2])


def test_a_stream_learns_once_which_pictures_are_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(root, 3)
    settings = {"stream": True, "on_error": "skip", "max_skipped": 0.1}
    first = read(root, **settings)
    with monkeypatch.context() as patched:
        patched.setattr(ffsd_ray.data.decode, "decode", lambda data, size: pytest.fail("decoded again"))
        assert read(root, **settings).skipped == first.skipped
    spoil(root, 4)
    assert len(read(root, **settings).skipped) == 2  # a changed file is looked at anew


@pytest.mark.parametrize("stream", [False, True])
def test_skipped_pictures_are_named_as_the_job_does(stream: bool, root: Path) -> None:
    """Not by this node's copies of what URIs name."""
    spoil(root, 3)
    skipping: dict[str, Any] = {"stream": stream, "on_error": "skip", "max_skipped": 0.1}
    assert read(root, **skipping | {"root": f"file://{root}"}).skipped == (
        f"file://{root}/train/dog/03.png: it is empty, it holds no bytes",
    )
    files = parquet_of(root) | {
        "train": f"file://{root.parent}/tr*.parquet",
        "test": f"file://{root.parent}/test.parquet",
    }
    assert load(data_settings("parquet", **files | skipping)).skipped == (
        f"file://{root.parent}/train.parquet, row 11 (from 0): it is empty, it holds no bytes",
    )


@pytest.mark.parametrize("stream", [False, True])
def test_no_more_are_skipped_than_may_be(stream: bool, root: Path) -> None:
    spoil(root, 3, 25)
    skipping = {"stream": stream, "on_error": "skip"}
    with pytest.raises(
        DataError, match=r"^2 of 30 images are damaged, more than data.max_skipped = 0.01 .*:\n  .*03.png"
    ):
        read(root, **skipping)
    assert len(read(root, **skipping, max_skipped=0.07).skipped) == 2
    with pytest.raises(DataError, match=r"more than data.max_skipped = 0.05"):  # the cache knows nothing of limits
        read(root, **skipping, max_skipped=0.05)
    with pytest.raises(DataError, match="2 of 30 images are damaged, expected whole pictures"):
        read(root)  # and a set without them serves no job that wants all


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("split", ["train", "test"])
def test_no_class_is_skipped_whole(stream: bool, split: str, root: Path) -> None:
    spoil(root, *(range(1, 20, 2) if split == "train" else range(21, 30, 2)))
    with pytest.raises(DataError, match=rf"on_error: skip would leave no {split} image of dog:\n  .*{split}/dog/"):
        read(root, stream=stream, on_error="skip", max_skipped=0.9)


def test_all_pictures_damaged(root: Path) -> None:
    spoil(root, *range(30))
    with pytest.raises(DataError, match=r"^30 of 30 images are damaged"):
        read(root)
    with pytest.raises(DataError, match=r"^30 of 30 images are damaged, more than"):
        read(root, on_error="skip", max_skipped=0.9)


@pytest.mark.parametrize("stream", [False, True])
def test_too_little_memory_is_no_damage(stream: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another node may have enough: what is skipped must be the same on all."""

    def load(picture: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(DataError, match=r"train/cat/00.png: it needs more memory than there is") as caught:
        read(root, stream=stream, on_error="skip", max_skipped=0.9)
    assert not isinstance(caught.value, DamagedImage)


def test_skipped_pictures_are_in_the_records(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = spoil(root, 3)
    data = {
        "name": "image_folder",
        "root": str(root),
        "image_size": 16,
        "crop_padding": 2,
        "cache": str(tmp_path / "cache"),
    }
    job = {
        "name": "pets",
        "context": "local",
        "data": data,
        "backbone": {"name": "resnet20"},
        "method": {"name": "baseline"},
        "train": {"epochs": 1, "batch_size": 8, "lr": 0.01},
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))

    def run(*arguments: str) -> int:
        return main([str(tmp_path / "job.yaml"), "--storage", str(tmp_path / "runs"), *arguments])

    assert run() == 2
    assert f"{files[0]}: expected a whole picture" in capsys.readouterr().err
    assert run("--set", "data.on_error=skip") == 2
    assert "more than data.max_skipped = 0.01" in capsys.readouterr().err
    skipping = ("--set", "data.on_error=skip", "--set", "data.max_skipped=0.05")
    assert run(*skipping) == 0
    assert run(*skipping, "--set", "name=again") == 0  # its trial is taken over from the first run
    for name in ("pets", "again"):
        [file] = (tmp_path / "runs" / name / "trials").glob("*/skipped.json")
        assert json.loads(file.read_text())["images"] == [f"{files[0]}: it is empty, it holds no bytes"]
