"""A second set of classes, none of them PictoShift's: Unicode's symbols as matplotlib's own typefaces draw them."""

import pandas as pd
from PIL import Image, ImageDraw, ImageFont, ImageOps

from radapter_lite.data.images import ImageSet

FACES = ("DejaVuSans", "STIXGeneral")  # drawn by different hands
SIZE, MARGIN = 48, 4  # pixels, as PictoShift's icons
# By Unicode's names, without what tells a white one from a black one; a character is an image in each face that has it.
GLYPHS = """sun ☀☼☉|cloud ☁|snowman ☃|comet ☄|star ★☆✮✰|lightning ☇⚡|telephone ☎☏✆|ballot box ☐☑☒|shamrock ☘
skull ☠|pointing hand ☚☛☜☞☝☟|radioactive ☢|biohazard ☣|caduceus ☤|ankh ☥|orthodox cross ☦|star and crescent ☪
peace ☮|yin yang ☯|hammer and sickle ☭|wheel of dharma ☸|frowning face ☹|smiling face ☺☻|female ♀|male ♂|aries ♈
taurus ♉|gemini ♊|cancer ♋|leo ♌|virgo ♍|libra ♎|scorpius ♏|sagittarius ♐|capricorn ♑|aquarius ♒|pisces ♓
chess king ♔♚|chess queen ♕♛|chess rook ♖♜|chess bishop ♗♝|chess knight ♘♞|chess pawn ♙♟|spade ♠♤|heart ♥♡❤
diamond ♦♢|club ♣♧|hot springs ♨|recycling ♲♻|anchor ⚓|wheelchair ♿|flag ⚐⚑|hammer and pick ⚒|crossed swords ⚔
staff of aesculapius ⚕|scales ⚖|alembic ⚗|atom ⚛|fleur-de-lis ⚜|warning ⚠|coffin ⚰|funeral urn ⚱|victory hand ✌
writing hand ✍|pencil ✎✏✐|nib ✑✒|check mark ✓✔|cross mark ✗✘|eject ⏏|latin cross ✝✞✟|maltese cross ✠|star of david ✡
asterisk ✱✲✳|snowflake ❄❅❆|sparkle ❇❈|quotation mark ❝❞|arrow ➔➜➡➞|exclamation mark ❢|infinity ∞|euro €|dollar $
yen ¥|pound £|copyright ©|at sign @|percent %|ampersand &|number sign #|question mark ?|pilcrow ¶
place of interest ⌘|triangle ▲△|square ■□|circle ●○|lozenge ◆◇"""


def load_glyphs() -> ImageSet:
    """Some 190 images of 95 classes, all of them for testing: `file` is the typeface and the character."""
    from matplotlib.ft2font import FT2Font

    rows = []
    for face in FACES:
        drawn = FT2Font(_path(face)).get_charmap()
        for entry in GLYPHS.replace("\n", "|").split("|"):
            name, characters = entry.rsplit(" ", 1)
            rows += [(f"{face}/{character}", name) for character in characters if ord(character) in drawn]
    table = pd.DataFrame(rows, columns=["file", "class"]).assign(domain="glyphs", split="test")
    return ImageSet.from_table(table, name="glyphs", read=read_glyph)


def read_glyph(file: str) -> Image.Image:
    """A character, dark on white, as large as PictoShift's icons."""
    face, character = file.split("/")
    font = ImageFont.truetype(_path(face), 4 * SIZE)
    page = Image.new("L", (16 * SIZE, 16 * SIZE))
    ImageDraw.Draw(page).text((4 * SIZE, 4 * SIZE), character, font=font, fill=255)
    found = ImageOps.pad(page.crop(page.getbbox()), (SIZE - 2 * MARGIN,) * 2, Image.Resampling.LANCZOS)
    return ImageOps.invert(ImageOps.expand(found, MARGIN)).convert("RGB")


def _path(face: str) -> str:
    from matplotlib import get_data_path

    return f"{get_data_path()}/fonts/ttf/{face}.ttf"
