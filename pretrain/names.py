"""From an icon's file name to a caption, and to the emoji's further captions.

"camera-03-duotone" is a drawing of a camera: sizes, counters and style words say nothing of what is drawn.
"""

import json
import re
from pathlib import Path

from sources import IconSet

# Style words that end or begin a name in many sets; a set's own suffixes and prefixes come on top.
STYLE_WORDS = {
    "outline", "outlined", "filled", "fill", "solid", "bold", "duotone", "twotone", "duo", "line", "linear", "broken",
    "sharp", "rounded", "thin", "regular", "alt", "o", "remix", "flat", "negative", "sm", "lg", "xl", "xs", "small",
    "large", "big", "tiny", "mini", "medium", "icon", "a", "b", "f", "fa", "monochrome", "glyph", "lite",
}  # fmt: skip
# "fill" and its kin at the front are verbs ("fill color", "bold text", "line chart"): only these may lead.
LEADING_STYLE_WORDS = {"outline", "baseline", "round", "sharp", "twotone", "outlined", "duotone"}
COUNTERS = {"one", "two", "three", "four", "five", "six", "seven"}
SPELLED_ALIKE = {"colour": "color", "grey": "gray", "mobilephone": "mobile phone"}


def drawing_of(icon: str, icon_set: IconSet) -> list[str]:
    """The words of an icon's name without style words, counters kept: the same for all variants of one drawing."""
    for suffix in sorted(icon_set.suffixes, key=len, reverse=True):
        if icon.endswith("-" + suffix):
            icon = icon[: -len(suffix) - 1]
            break
    for prefix in icon_set.prefixes:
        if icon.startswith(prefix + "-"):
            icon = icon[len(prefix) + 1 :]
            break
    words = [SPELLED_ALIKE.get(word, word) for word in re.split(r"[-_ ]+", icon.lower()) if word]
    while len(words) > 1 and words[-1] in STYLE_WORDS:
        words.pop()
    while len(words) > 1 and words[0] in LEADING_STYLE_WORDS:
        words.pop(0)
    return words


def caption_of(icon: str, icon_set: IconSet) -> str | None:
    """The caption of an icon, in lower case without style words, or None where nothing is left or it is a flag."""
    if "skin-tone" in icon:
        return None
    words = drawing_of(icon, icon_set)
    if words:
        words[-1] = re.sub(r"(?<=[a-z]{3})\d{1,2}$", "", words[-1])  # "camera2"
    while len(words) > 1 and (words[-1] in STYLE_WORDS or words[-1].isdigit()):
        words.pop()
    if icon_set.prefix.startswith("icon-park") and len(words) > 1 and words[-1] in COUNTERS:
        words.pop()
    if not words or (len(words) == 1 and (words[0].isdigit() or len(words[0]) < 2)):
        return None
    if words[0] in {"brand", "logo", "logos"} or words[-1] in {"logo", "brand"}:
        return None
    if ("flag" in words or "flags" in words) and len(words) > 1:  # nations and regions
        return None
    return " ".join(words)


def brand_names(iconify: Path, everyday: set[str]) -> set[str]:
    """Names of companies and products, read off the logo sets, unless they are also everyday words."""
    brands = set()
    for prefix in ("simple-icons", "cib", "fa6-brands", "bxl", "logos", "devicon", "cryptocurrency"):
        icons = json.loads((iconify / "json" / f"{prefix}.json").read_text())["icons"]
        brands |= {re.sub(r"-(icon|plain|original|line|wordmark)$", "", name).replace("-", " ") for name in icons}
    return {brand for brand in brands if brand not in everyday}


def emoji_captions(emojibase: Path) -> dict[str, list[str]]:
    """Emoji name -> its captions: the Unicode name first, then the keywords people search it by.

    Keys are the names as the icon sets write them ("camera with flash"), and code points ("1f4f8").
    """
    captions = {}
    for emoji in json.loads((emojibase / "en" / "data.json").read_text()):
        label = emoji["label"].lower()
        if "flag" in label.split(":")[0].split() or emoji.get("group") is None:
            continue
        texts = [label] + [tag for tag in emoji.get("tags", []) if tag not in label and len(tag) > 2]
        name = " ".join(re.split(r"[^a-z0-9]+", label)).strip()
        captions[name] = captions[emoji["hexcode"].lower()] = list(dict.fromkeys(texts))
    return captions
