"""Which icon sets are read, under which licence, and which of them are one designer's family.

Everything comes from two npm packages, `@iconify/json` and `emojibase-data` (README.md says how to fetch
them). A set is used when its licence is on the list below and it is no collection of logos, flags or code.
"""

import json
from dataclasses import dataclass
from pathlib import Path

LICENCES = {
    "MIT",
    "Apache-2.0",
    "ISC",
    "BSD-3-Clause",
    "CC0-1.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "OFL-1.1",
    "Unlicense",
    "MPL-2.0",
}
LEFT_OUT_CATEGORIES = {"Logos", "Flags / Maps", "Programming"}
# Collections of everyday objects that happen to be filed under maps.
KEPT_FROM_MAPS = {"maki", "temaki", "pinhead", "osmic", "roentgen"}
# Brands, spinners, washing symbols, letters, and copies of another set here (feather lives on in lucide).
LEFT_OUT_SETS = {
    "academicons", "bpmn", "fa-brands", "fa6-brands", "fa7-brands", "feather", "fontelico", "ginetex", "il",
    "mono-icons", "svg-spinners", "topcoat", "websymbol",
}  # fmt: skip

# Sets that draw the same things by the same hand, or that grew out of one another. A family is never divided
# between pretraining and benchmark, nor between the benchmark's splits.
FAMILIES = {
    "font awesome": ["fa", "fa-regular", "fa-solid", "fa6-regular", "fa6-solid", "fa7-regular", "fa7-solid", "la"],
    "material": ["ic", "material-symbols", "material-symbols-light", "mdi", "mdi-light", "zmdi", "line-md"],
    "boxicons": ["boxicons", "bx", "bxs"],
    "fluent": ["fluent", "fluent-color", "fluent-mdl2"],
    "fluent emoji": ["fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast"],
    "noto": ["noto", "noto-v1"],
    "emojione": ["emojione", "emojione-monotone"],
    "glyphs": ["glyphs", "glyphs-poly"],
    "heroicons": ["heroicons", "heroicons-outline", "heroicons-solid", "sidekickicons"],
    "icon park": ["icon-park", "icon-park-outline", "icon-park-solid", "icon-park-twotone"],
    "icons8": ["icons8", "wpf"],
    "ionicons": ["ion", "famicons"],
    "lucide": ["lucide", "lucide-lab"],
    "maps": ["maki", "temaki", "pinhead", "osmic"],
    "myna": ["mynaui", "vadivam"],
    "pepicons": ["pepicons", "pepicons-pencil", "pepicons-pop", "pepicons-print"],
    "streamline core": [
        "streamline", "streamline-color", "streamline-flex", "streamline-flex-color", "streamline-plump",
        "streamline-plump-color", "streamline-sharp", "streamline-sharp-color",
    ],
    "streamline cyber": ["streamline-cyber", "streamline-cyber-color"],
    "streamline freehand": ["streamline-freehand", "streamline-freehand-color"],
    "streamline ultimate": ["streamline-ultimate", "streamline-ultimate-color"],
    "unicons": ["uil", "uim", "uis", "uit"],
}  # fmt: skip
FAMILY_OF = {prefix: family for family, prefixes in FAMILIES.items() for prefix in prefixes}

EMOJI_SETS = {
    "emojione", "emojione-monotone", "fluent-emoji", "fluent-emoji-flat", "fluent-emoji-high-contrast", "fxemoji",
    "noto", "noto-v1", "streamline-emojis", "twemoji",
}  # fmt: skip
SKETCH_SETS = {"streamline-freehand", "streamline-freehand-color", "pepicons-pencil"}
PIXEL_SETS = {"pixel", "pixelarticons", "streamline-pixel", "dinkie-icons", "memory"}


@dataclass(frozen=True)
class IconSet:
    """One icon set of `@iconify/json`, with its icons' SVG bodies."""

    prefix: str
    title: str
    author: str
    licence: str
    url: str
    colour: bool  # drawn in its own colours, rather than in the ink of the text around it
    size: tuple[float, float]
    icons: dict[str, dict]
    suffixes: tuple[str, ...]
    prefixes: tuple[str, ...]
    characters: dict[str, str]  # Unicode code point -> icon, where the set says

    @property
    def family(self) -> str:
        return FAMILY_OF.get(self.prefix, self.prefix)


def icon_sets(iconify: Path) -> list[IconSet]:
    """Every usable set of the unpacked `@iconify/json` package, in alphabetical order."""
    collections = json.loads((iconify / "collections.json").read_text())
    found = []
    for prefix, info in sorted(collections.items()):
        licence = info["license"].get("spdx", "")
        category = info.get("category", "")
        if licence not in LICENCES or prefix in LEFT_OUT_SETS:
            continue
        if category in LEFT_OUT_CATEGORIES and prefix not in KEPT_FROM_MAPS:
            continue
        content = json.loads((iconify / "json" / f"{prefix}.json").read_text())
        icons = {name: icon for name, icon in content["icons"].items() if not icon.get("hidden")}
        found.append(
            IconSet(
                prefix=prefix,
                title=info["name"],
                author=info["author"]["name"],
                licence=licence,
                url=info["author"].get("url", ""),
                colour=bool(info.get("palette")),
                size=(content.get("width", 16), content.get("height", 16)),
                icons=icons,
                suffixes=tuple(s for s in (content.get("suffixes") or {}) if s),
                prefixes=tuple(p for p in (content.get("prefixes") or {}) if p),
                characters=content.get("chars", {}),
            )
        )
    return found
