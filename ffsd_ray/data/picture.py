"""Decoding one picture to a tensor, identically for training, evaluation and use. Unclear pictures are refused."""

import ctypes
import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

#: The formats that are read, by Pillow's names. Other decoders start programs (EPS: Ghostscript) or are less secure.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

#: Maximum number of pixels, 8192 × 8192: a small file can contain a picture that does not fit in memory.
MAX_PIXELS = 2**26

#: Maximum ratio of the longer to the shorter side: the shorter one is scaled to the images' size.
MAX_RATIO = 256

#: The EXIF tag of a picture's orientation, and the transposition that undoes each of its values.
_ORIENTATION = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF tags

#: (pattern of a file's first bytes, description) of files that are no pictures, or in a format that is not read.
_UNSUPPORTED = (
    (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer (git lfs pull fetches the picture)"),
    (rb"\x00\x05\x16\x07", "macOS's companion (._) of a file, not a picture"),
    (rb"(\xef\xbb\xbf)?\s*(<!--[^>]*-->\s*)?(?i:<!doctype html|<html|<head|<body)", "an HTML page, not a picture"),
    (rb"(?s)(\xef\xbb\xbf)?\s*(<.*)?<svg", "an SVG drawing, which must be drawn as PNG first"),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "an XML file, not a picture"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "an EPS (PostScript) drawing, which must be drawn as PNG first"),
    (rb"%PDF", "a PDF file, which must be converted to JPEG or PNG first"),
    (rb"(?s)....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "HEIC, which must be converted to JPEG or PNG first"),
    (rb"(?s)....ftypavi[fs]", "AVIF, damaged or of a kind that is not read; JPEG and PNG always are"),
    (rb"(?s)....ftyp", "a video, not a picture"),
    (rb"\x00\x00\x00\x0cjP|\xff\x4f\xff\x51", "JPEG 2000, which must be converted to JPEG or PNG first"),
    (rb"\x00\x00\x00\x0cJXL|\xff\x0a", "JPEG XL, which must be converted to JPEG or PNG first"),
    (rb"8BPS", "a Photoshop file, which must be converted to JPEG or PNG first"),
    (rb"SIMPLE  =", "FITS, which must be converted to PNG or TIFF first"),
    (rb"(?s).{128}DICM", "DICOM, which must be converted to PNG or TIFF first"),
    (rb"\x00\x00[\x01\x02]\x00", "a Windows icon, which must be converted to PNG first"),
    (rb"PK[\x03\x05]", "a ZIP archive, not a picture"),
    (rb"\x1f\x8b", "a gzip archive, not a picture"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|(?s:RIFF....WEBP)|BM|II\*\x00|MM\x00\*", "a picture whose first bytes are damaged"),
    (rb"\x00{16}", "a file that begins with zeros, not a picture"),
    (rb"[\t\n\r -~]+\Z", "text, not a picture"),
)

EMPTY = "it is empty, it holds no bytes"

# Silence messages of Pillow and its libtiff about damaged pictures: errors, which name the picture, replace them.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # if libtiff is linked otherwise, it prints its messages
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class PictureError(ValueError):
    """A picture cannot be decoded. The text is deterministic for a given picture."""


class PictureMemoryError(PictureError):
    """There was too little memory to decode a picture, which may be undamaged."""


def decode(data: bytes, size: int | None) -> Tensor:
    """Decode a picture in one of `FORMATS` to RGB uint8 [3, H, W], see `upright`; with `size`, to a square, see `fit`.

    Raises:
        PictureError: the bytes are no picture in these formats, or an incomplete one.
        PictureMemoryError: there is too little memory.
    """
    with _as_picture_errors():
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise PictureError(_describe_unsupported(data)) from None  # Pillow's text has the buffer's address
        with picture:
            image = upright(picture)
    return image if size is None else fit(image, size)


def upright(picture: Image.Image) -> Tensor:
    """Convert an opened picture to RGB uint8 [3, H, W], upright by its EXIF orientation; of several frames the first.

    Transparent pixels are put on white. Greys of more than 8 bits are scaled by the range of their type, not by the
    picture's values: 0 to 65535 in Pillow's modes I;16 and I (0 to 4095 for 12-bit TIFF, 0 to 32767 for signed 16
    bits); in mode F 0 to 1, or 0 to 255 if a value is above 1. Values outside are refused, and so is mode I with no
    value above 255 unless the format (PNG, PGM) declares 16 bits, since 8 bits may be meant.

    Raises:
        PictureError: the picture is damaged, too large, or the range of its values is unclear.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor  # takes seconds; settings are checked without it

    with _as_picture_errors():
        _check_format(picture)
        _check_size(picture)
        tiles = getattr(picture, "tile", None)
        raw_mode = tiles[0][3] if tiles else None
        picture.load()
        transposition = _transposition(picture)
        rgb = _rgb(picture, raw_mode)
        image: Tensor = pil_to_tensor(rgb if transposition is None else rgb.transpose(transposition))
    return image


def fit(image: Tensor, size: int, scaled: int | None = None) -> Tensor:
    """Scale an image's shorter side to `scaled` pixels (bilinear, antialiased) and crop its centre.

    uint8 [..., H, W] to [..., size, size]. `scaled`: by default `size`, so that nothing of the shorter side is cropped.
    """
    from torchvision.transforms.v2.functional import center_crop, resize

    square: Tensor = center_crop(resize(image, [scaled or size], antialias=True), [size, size])
    return square


@contextmanager
def _as_picture_errors() -> Iterator[None]:
    """Convert any exception that a decoder raises on damaged bytes to a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureMemoryError("it needs more memory than there is") from error
    except Image.DecompressionBombError as error:  # Pillow's limit, checked before ours
        counts = re.findall(r"\d+", str(error))
        raise PictureError(_too_large(f"{int(counts[0]):,}" if counts else "too many")) from error
    except Exception as error:
        kind = "" if isinstance(error, OSError | SyntaxError | ValueError) else f"{type(error).__name__}: "
        cause = re.sub(r" at 0x[0-9a-fA-F]+", "", f"{kind}{error}")
        raise PictureError(f"it cannot be decoded ({cause})") from error


def _describe_unsupported(data: bytes) -> str:
    """Describe bytes that no decoder recognises."""
    if not data:
        return EMPTY
    start = data[:1024]
    return "it is " + next(
        (what for pattern, what in _UNSUPPORTED if re.match(pattern, start)), "in no format that is read"
    )


def _check_format(picture: Image.Image) -> None:
    """Check that an opened picture, which is decoded lazily, is in one of `FORMATS`. Raises PictureError."""
    if isinstance(picture, ImageFile.ImageFile) and picture.format not in (*FORMATS, "MPO"):  # MPO: several JPEG
        expected = f"expected one of {', '.join(FORMATS)}, or its pixels, as picture.convert('RGB') gives them"
        raise PictureError(f"its format is {picture.format}, {expected}")


def _check_size(picture: Image.Image) -> None:
    """Check the size of a picture and of its TIFF tiles before it is decoded.

    Raises:
        PictureError: it has no pixels, too many, or too different sides.
    """
    width, height = picture.size
    if not width or not height:
        raise PictureError("it has no pixels")
    tags = getattr(picture, "tag_v2", {})
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0)
    if max(width * height, tile) > MAX_PIXELS:
        pixels = f"{width:,} × {height:,}" if width * height > tile else f"{tile:,}"
        raise PictureError(_too_large(pixels))
    if max(width, height) > MAX_RATIO * min(width, height):
        raise PictureError(
            f"it has {width:,} × {height:,} pixels, expected sides at most {MAX_RATIO} to 1; cut it first"
        )


def _too_large(pixels: str) -> str:
    return f"it has {pixels} pixels, expected at most {MAX_PIXELS:,} in all; scale it down first"


def _transposition(picture: Image.Image) -> Image.Transpose | None:
    """The transposition that turns a picture upright by its EXIF orientation; None if it needs none.

    EXIF data that cannot be parsed is ignored, since the pixels may be undamaged.
    """
    try:
        return _TRANSPOSITIONS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # a parser may raise anything on damaged bytes
        return None


def _rgb(picture: Image.Image, raw_mode: object) -> Image.Image:
    """Convert to mode RGB, transparent pixels on white. `raw_mode`: Pillow's name of the pixel layout in the file."""
    colours, alpha = picture, None
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        colours, alpha = Image.fromarray(_grey_in_8_bits(picture)), _opacity_mask(picture, raw_mode)
    elif picture.mode in ("1", "L", "RGB"):
        alpha = _opacity_mask(picture, raw_mode)
    elif picture.has_transparency_data:
        colours = _in_mode(picture.convert("LA") if picture.mode == "La" else picture, "RGBA")
        alpha = colours.getchannel("A")
        if picture.format == "BMP" and alpha.getextrema() == (0, 0):  # unused bytes, as viewers take them
            alpha = None
    if alpha is None:
        return _in_mode(colours, "RGB")
    white = Image.new("RGB", picture.size, "white")
    white.paste(colours if colours.mode == "RGBA" else _in_mode(colours, "RGB"), mask=alpha)
    return white


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    """Convert to a mode, without a copy if it is the picture's: a picture may have a quarter of a GB."""
    return picture if picture.mode == mode else picture.convert(mode)


def _opacity_mask(picture: Image.Image, raw_mode: object) -> Image.Image | None:
    """A mask (mode L) that is 0 at pixels of the file's transparent colour, else 255; None without such a colour."""
    if (colour := picture.info.get("transparency")) is None:
        return None
    colour = np.asarray(colour)  # in the file's range, while Pillow has scaled the pixels to 8 bits
    colour = {"L;2": colour * 85, "L;4": colour * 17, "RGB;16B": colour >> 8}.get(str(raw_mode), colour)
    pixels = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    differs = pixels != colour
    return Image.fromarray((differs.any(-1) if picture.mode == "RGB" else differs).astype(np.uint8) * 255)


def _grey_in_8_bits(picture: Image.Image) -> np.ndarray:
    """Scale greys of more than 8 bits to uint8 [H, W]; see `upright`. Raises PictureError if their range is unclear."""
    values, tags = np.asarray(picture), getattr(picture, "tag_v2", {})
    low, high = values.min(), values.max()
    values_read = f"mode {picture.mode} with values from {low:g} to {high:g}"
    if picture.mode == "F":
        if not (low >= 0 and high <= 255):  # nor NaN
            raise PictureError(f"{values_read}, expected 0 to 1 or 0 to 255; scale them, or store them in 8 or 16 bits")
        top = 1 if high <= 1 else 255
    elif picture.mode == "I":
        top = 32767 if tags.get(_BITS_PER_SAMPLE) == (16,) else 65535  # with a sign, or in 32 bits
        declared = picture.format in ("PNG", "PPM")  # 16 bits by their formats
        if not (low >= 0 and high <= top and (declared or high > 255 or high == 0)):
            raise PictureError(f"{values_read}, expected 16 bits, 0 to {top}; store them as 8 or 16 bits without sign")
    else:
        top = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    shades = values.astype(np.float32)
    shades *= 255 / top
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds in 8 bits only
        np.subtract(255, shades, out=shades)
    return np.rint(shades, out=shades).astype(np.uint8)
