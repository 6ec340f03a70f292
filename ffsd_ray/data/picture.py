"""One picture: its bytes to a tensor, in one way for training, evaluation and use. What cannot be right is refused."""

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

#: The only formats that are tried, by Pillow's names. Others start programs (EPS: Ghostscript) or are rarely hardened.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")

#: The most pixels that a picture may have, 8192 × 8192: a small file can hold a picture that fills the memory.
MAX_PIXELS = 2**26

#: The most that a picture's longer side may measure of its shorter one, which is scaled to the images' size.
MAX_RATIO = 256

_ORIENTATION = 0x0112  # the EXIF tag, and what undoes each of its values
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 258, 262, 322, 323  # TIFF tags

#: What a file is that is no picture, or one in a format that is not read, by the bytes that it begins with.
_OTHERS = (
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

# What Pillow and its libtiff print about pictures; that one cannot be read is said by an error, which names it.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
with suppress(OSError, AttributeError):  # where libtiff cannot be reached so, it prints
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


class PictureError(ValueError):
    """A picture cannot be decoded. For one picture the text is always the same."""


class PictureMemoryError(PictureError):
    """Nor is it known whether it could: the memory did not suffice."""


def decode(data: bytes, size: int | None) -> Tensor:
    """A picture in one of FORMATS as RGB uint8 [3, H, W] (`upright`); with `size` as a square of that side (`fit`).

    Raises:
        PictureError: the bytes are no such picture, or not the whole of one.
    """
    with _refusing():
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise PictureError(_what_else(data)) from None  # its own text is the buffer's address
        with picture:
            image = upright(picture)
    return image if size is None else fit(image, size)


def upright(picture: Image.Image) -> Tensor:
    """An opened picture as RGB uint8 [3, H, W], turned as its EXIF data says; of several frames the first.

    What is transparent is seen on white. Greys of more than 8 bits are scaled by the range that they are stored in, not
    by the values of this picture: 0 to 65535 in Pillow's modes I;16 and I (of a 12-bit TIFF 0 to 4095, of 16 bits with
    a sign 0 to 32767), in mode F 0 to 1, or 0 to 255 where a value is above 1. What lies outside is refused, and so is
    mode I where no value is above 255, unless its format (PNG, PGM) says 16 bits: 8 may be meant.

    Raises:
        PictureError: it is damaged, too large, or its values have no known range.
    """
    from torchvision.transforms.v2.functional import pil_to_tensor  # takes seconds; settings are checked without it

    with _refusing():
        _check_format(picture)
        _check_size(picture)
        tiles = getattr(picture, "tile", None)
        stored = tiles[0][3] if tiles else None
        picture.load()
        turn = _turn(picture)
        rgb = _rgb(picture, stored)
        return pil_to_tensor(rgb if turn is None else rgb.transpose(turn))


def fit(image: Tensor, size: int, scaled: int | None = None) -> Tensor:
    """uint8 [..., H, W] to [..., size, size]: shorter side to `scaled` pixels (bilinear, antialiased), centre cut out.

    `scaled` None: `size`, so that nothing of the shorter side is cut off.
    """
    from torchvision.transforms.v2.functional import center_crop, resize

    return center_crop(resize(image, [scaled or size], antialias=True), [size, size])


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureMemoryError("it needs more memory than there is") from error
    except Image.DecompressionBombError as error:  # of Pillow's own bound, before the picture is opened
        counts = re.findall(r"\d+", str(error))
        raise PictureError(_too_large(f"{int(counts[0]):,}" if counts else "too many")) from error
    except Exception as error:
        kind = "" if isinstance(error, OSError | SyntaxError | ValueError) else f"{type(error).__name__}: "
        said = re.sub(r" at 0x[0-9a-fA-F]+", "", f"{kind}{error}")
        raise PictureError(f"it cannot be decoded ({said})") from error


def _what_else(data: bytes) -> str:
    """Describe bytes that no decoder takes for a picture."""
    if not data:
        return EMPTY
    start = data[:1024]
    return "it is " + next((what for pattern, what in _OTHERS if re.match(pattern, start)), "in no format that is read")


def _check_format(picture: Image.Image) -> None:
    """Raise PictureError where somebody has opened a file of another format, whose decoder would run now."""
    if isinstance(picture, ImageFile.ImageFile) and picture.format not in (*FORMATS, "MPO"):  # MPO: several JPEG
        expected = f"expected one of {', '.join(FORMATS)}, or its pixels, as picture.convert('RGB') gives them"
        raise PictureError(f"its format is {picture.format}, {expected}")


def _check_size(picture: Image.Image) -> None:
    """Raise PictureError, before anything is decoded, where the picture, or what its tiles (TIFF) say, is too large."""
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


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """The transposition that turns a picture upright by its EXIF data; None where there is none to make.

    Only this entry is read: others may be odd, or cut off, in files whose pixels are whole.
    """
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever a parser meets in bytes from somewhere else
        return None


def _rgb(picture: Image.Image, stored: object) -> Image.Image:
    """In mode RGB, what is transparent on white. `stored`: Pillow's name for the layout of the file's pixels."""
    colours, alpha = picture, None
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        colours, alpha = Image.fromarray(_grey(picture)), _opaque(picture, stored)
    elif picture.mode in ("1", "L", "RGB"):
        alpha = _opaque(picture, stored)
    elif picture.has_transparency_data:
        colours = _in(picture.convert("LA") if picture.mode == "La" else picture, "RGBA")
        alpha = colours.getchannel("A")
        if picture.format == "BMP" and alpha.getextrema() == (0, 0):  # unused bytes, as viewers take them
            alpha = None
    if alpha is None:
        return _in(colours, "RGB")
    white = Image.new("RGB", picture.size, "white")
    white.paste(colours if colours.mode == "RGBA" else _in(colours, "RGB"), mask=alpha)
    return white


def _in(picture: Image.Image, mode: str) -> Image.Image:
    """Converted to a mode; as it is, not copied, where it has that one: a picture may be a quarter of a GB."""
    return picture if picture.mode == mode else picture.convert(mode)


def _opaque(picture: Image.Image, stored: object) -> Image.Image | None:
    """255 where a pixel has another colour than the transparent one, mode L; None where no colour is transparent."""
    if (colour := picture.info.get("transparency")) is None:
        return None
    colour = np.asarray(colour)  # as stored, while Pillow scales pixels to 8 bits
    colour = {"L;2": colour * 85, "L;4": colour * 17, "RGB;16B": colour >> 8}.get(str(stored), colour)
    pixels = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    differs = pixels != colour
    return Image.fromarray((differs.any(-1) if picture.mode == "RGB" else differs).astype(np.uint8) * 255)


def _grey(picture: Image.Image) -> np.ndarray:
    """Greys of more than 8 bits as uint8 [H, W]; see `upright`."""
    values, tags = np.asarray(picture), getattr(picture, "tag_v2", {})
    low, high = values.min(), values.max()
    found = f"mode {picture.mode} with values from {low:g} to {high:g}"
    if picture.mode == "F":
        if not (low >= 0 and high <= 255):  # nor NaN
            raise PictureError(f"{found}, expected 0 to 1 or 0 to 255; scale them, or store them in 8 or 16 bits")
        top = 1 if high <= 1 else 255
    elif picture.mode == "I":
        top = 32767 if tags.get(_BITS_PER_SAMPLE) == (16,) else 65535  # with a sign, or in 32 bits
        declared = picture.format in ("PNG", "PPM")  # 16 bits by their formats
        if not (low >= 0 and high <= top and (declared or high > 255 or high == 0)):
            raise PictureError(f"{found}, expected 16 bits, 0 to {top}; store them as 8 or 16 bits without sign")
    else:
        top = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    shades = values.astype(np.float32)
    shades *= 255 / top
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds in 8 bits only
        np.subtract(255, shades, out=shades)
    return np.rint(shades, out=shades).astype(np.uint8)
