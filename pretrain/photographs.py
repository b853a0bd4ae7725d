"""The contact sheet of PictoShift's photographs, a row a severity: figures/contact_sheets/camera.jpg.

python photographs.py
"""

from pathlib import Path

from PIL import Image, ImageDraw

from radapter_lite import load_images

SEVERITIES = (0.0, 0.25, 0.5, 0.7, 0.7, 0.7, 0.7, 0.85, 1.0)
COLUMNS, TILE, LABEL = 14, 98, 90


def main() -> None:
    page = Image.new("RGB", (LABEL + COLUMNS * TILE, len(SEVERITIES) * TILE), "white")
    draw = ImageDraw.Draw(page)
    for y, severity in enumerate(SEVERITIES):
        images = load_images(id_domain="camera", severity=severity).select(domain="camera", split="train")
        draw.text((6, y * TILE + 40), f"severity {severity:g}", fill="black")
        # Other designs where the severity is the same.
        first = 300 * SEVERITIES[:y].count(severity)
        for x in range(COLUMNS):
            page.paste(images.image(first + 23 * x), (LABEL + x * TILE, y * TILE))
    page.save(Path(__file__).parent.parent / "figures" / "contact_sheets" / "camera.jpg", quality=88)


if __name__ == "__main__":
    main()
