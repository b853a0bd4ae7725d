"""Render every usable icon to 48 x 48 pixels, all cores, one file a set; sets already rendered are kept.

    python render.py --iconify DIR --emojibase DIR --out BUILD

Monochrome icons are kept as their ink's opacity (N, 48, 48), coloured ones as RGBA (N, 48, 48, 4).
"""

import argparse
import io
import os
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import resvg_py
from names import brand_names, caption_of, emoji_captions
from PIL import Image
from sources import IconSet, icon_sets
from tqdm import tqdm

SIZE = 48


def render(svg_body: str, box: tuple[float, float, float, float]) -> np.ndarray:
    """One SVG body, drawn in black where it leaves the ink open -> RGBA (48, 48, 4), its sides kept in proportion."""
    left, top, width, height = box
    side = max(width, height)
    view = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    frame = f'{namespaces} color="#000" viewBox="{view}" width="{SIZE}" height="{SIZE}"'
    svg = f"<svg {frame}>{svg_body}</svg>"
    return np.asarray(Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA"))


def render_set(job: tuple[IconSet, dict[str, str], Path]) -> str:
    icon_set, captions, path = job
    width, height = icon_set.size
    kept, images = [], []
    for icon in captions:
        content = icon_set.icons[icon]
        box = (
            content.get("left", 0),
            content.get("top", 0),
            content.get("width", width),
            content.get("height", height),
        )
        try:
            rgba = render(content["body"], box)
        except (ValueError, OSError):  # a body resvg can't read
            continue
        ink = rgba[..., 3]
        if (ink > 127).mean() < 0.01 or (ink > 127).mean() > 0.98:  # nothing drawn, or a full square
            continue
        kept.append(icon)
        images.append(rgba if icon_set.colour else ink)
    channels = (4,) if icon_set.colour else ()
    stack = np.stack(images) if images else np.empty((0, SIZE, SIZE, *channels), np.uint8)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, images=stack, icons=np.array(kept, str), captions=np.array([captions[i] for i in kept], str))
    os.replace(partial, path)
    return icon_set.prefix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iconify", type=Path, required=True, help="the unpacked @iconify/json package")
    parser.add_argument("--emojibase", type=Path, required=True, help="the unpacked emojibase-data package")
    parser.add_argument("--out", type=Path, default=Path("build"), help="where the rendered sets go")
    args = parser.parse_args()
    (args.out / "sets").mkdir(parents=True, exist_ok=True)

    emoji = emoji_captions(args.emojibase)
    everyday = {word for texts in emoji.values() for text in texts for word in text.split()} | set(emoji)
    brands = brand_names(args.iconify, everyday)
    jobs = []
    for icon_set in icon_sets(args.iconify):
        path = args.out / "sets" / f"{icon_set.prefix}.npz"
        captions = {icon: caption_of(icon, icon_set) for icon in icon_set.icons}
        captions = {icon: text for icon, text in captions.items() if text and text not in brands}
        if not path.exists():
            jobs.append((icon_set, captions, path))
    jobs.sort(key=lambda job: -len(job[1]))
    with Pool() as pool:
        for _ in tqdm(pool.imap_unordered(render_set, jobs), total=len(jobs), desc="icon sets"):
            pass


if __name__ == "__main__":
    main()
