"""What a visitor gives, checked before anything is done with it: an image, and class names.

Every refusal is a ValueError of one sentence, made to be shown on the page; whoever puts it into HTML escapes it.
"""

import io
import re
import warnings

from PIL import Image

from radapter_lite.data import upright_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # told by a file's content; its name says nothing
MAX_BYTES = 5_000_000
MAX_PIXELS = 20_000_000
MAX_ASPECT = 20  # a longer strip would be blown up by the resize to the model's shorter side
MAX_CLASSES = 200
MAX_NAME = 60  # characters of a class name


def decode_upload(content: bytes, name: str) -> Image.Image:
    """An uploaded file as an RGB image, its first frame, as `upright_rgb` makes it of a file to tune on.

    Nothing touches the disk. Size and pixels are checked before any pixel is decoded. Raises ValueError for a file that
    is too large, of another type, of too many pixels, too long and thin, truncated or damaged.
    """
    refuse_large(len(content), name)
    too_many_pixels = f"{name} has more than {MAX_PIXELS / 1e6:g} million pixels: give a smaller copy of it."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except Image.DecompressionBombError:
            raise ValueError(too_many_pixels) from None
        except Exception as error:  # what is no image of these types fails here, and decoders fail in many ways
            raise ValueError(f"{name} is no PNG, JPEG, WebP, GIF or BMP image: give one of these.") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(too_many_pixels)
    if max(width, height) > MAX_ASPECT * min(width, height):
        wanted = f"an image at most {MAX_ASPECT} times as long as wide"
        raise ValueError(f"{name} is {width} × {height} pixels: give {wanted}.")
    try:
        with image:
            return upright_rgb(image)
    except Exception as error:  # as above
        raise ValueError(f"{name} is truncated or damaged: open it elsewhere, and save it again.") from error


def refuse_large(size: int, name: str) -> None:
    """Raise ValueError for a file of more than `MAX_BYTES`."""
    if size > MAX_BYTES:
        raise ValueError(f"{name} has {size / 1e6:.1f} MB: give an image of at most {MAX_BYTES / 1e6:g} MB.")


def parse_class_names(text: str) -> list[str]:
    """Class names from text with a comma or a new line between them: trimmed, each once, in their order.

    Raises ValueError for fewer than two names, more than `MAX_CLASSES`, or one longer than `MAX_NAME`.
    """
    found: dict[str, str] = {}
    for part in re.split(r"[,\n]", text):
        visible = "".join(letter if letter.isprintable() else " " for letter in part)
        name = " ".join(visible.split())
        found.setdefault(name.casefold(), name)
    names = [name for name in found.values() if name]
    if len(names) < 2:
        raise ValueError("Type two class names or more, with commas between them.")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"These are {len(names)} class names: give at most {MAX_CLASSES}.")
    if longest := next((name for name in names if len(name) > MAX_NAME), None):
        raise ValueError(f"The class name {longest[:20]}… has {len(longest)} characters: give it at most {MAX_NAME}.")
    return names
