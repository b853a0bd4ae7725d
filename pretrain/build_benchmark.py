"""Divide the rendered icons into PictoShift (the benchmark) and PictoCLIP's pretraining corpus.

    python build_benchmark.py --iconify DIR --emojibase DIR --build BUILD

A class's pictograms are put into groups: one designer family, joined with every family that holds a
near-duplicate of one of its drawings. A group lies whole on one side: in pretraining, or in one split of the
benchmark. Pretraining keeps 2 to 32 pictograms of a class, and every other icon that shows the object leaves it.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from names import caption_of, drawing_of, emoji_captions
from scipy.ndimage import binary_erosion
from sources import EMOJI_SETS, PIXEL_SETS, SKETCH_SETS, icon_sets
from tqdm import tqdm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
TAIL = (2, 4, 8, 16, 32)  # pictograms a class keeps in pretraining
PER_FAMILY = {2: 1, 4: 1, 8: 2, 16: 2, 32: 3}  # at most so many of them by one family
TRAIN, VALIDATION, TEST = 16, 4, 8  # outline images a class has at least
MOST = {
    "outline": 24,
    "solid": 24,
    "color": 24,
    "emoji": 24,
    "sketch": 24,
    "pixel": 24,
}  # test images a class has at most
NEAR_DUPLICATE = 0.95  # correlation of two images at 16 x 16 pixels
OUTLINE_WORDS = {"outline", "outlined", "line", "linear", "thin", "light", "regular"}
SOLID_WORDS = {"fill", "filled", "solid"}
MIXED_WORDS = {"duotone", "twotone", "duo", "two-tone", "remix", "broken", "negative"}
WEIGHTS = ("regular", "outline", "line", "linear", "24", "20", "rounded", "light", "thin", "bold", "sharp")


def load(iconify: Path, build: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Every rendered icon: a row each, and its image as greys on white, uint8 (N, 48, 48, 3)."""
    rows, images = [], []
    for icon_set in tqdm(icon_sets(iconify), desc="reading sets"):
        with np.load(build / "sets" / f"{icon_set.prefix}.npz") as rendered:
            stack = rendered["images"]
            for row, icon in enumerate(rendered["icons"]):
                icon = str(icon)
                caption = caption_of(icon, icon_set)
                drawing = "-".join(drawing_of(icon, icon_set))
                rows.append((icon_set.prefix, icon, icon_set.family, icon_set.colour, caption, drawing, row))
        images.append(on_white(stack))
    table = pd.DataFrame(rows, columns=["set", "icon", "family", "colour", "caption", "drawing", "row"])
    return table, np.concatenate(images)


def on_white(stack: np.ndarray) -> np.ndarray:
    """Ink (N, 48, 48) in black on white, or RGBA (N, 48, 48, 4) over white -> RGB uint8 (N, 48, 48, 3)."""
    if stack.ndim == 3:
        return np.repeat((255 - stack)[..., None], 3, axis=-1)
    colour, opacity = stack[..., :3].astype(np.uint16), stack[..., 3:].astype(np.uint16)
    return ((colour * opacity + 255 * (255 - opacity)) // 255).astype(np.uint8)


def signatures(images: np.ndarray) -> np.ndarray:
    """Images (N, 48, 48, 3) -> unit vectors (N, 256) whose dot product is the correlation at 16 x 16 pixels."""
    parts = []
    for chunk in np.array_split(images, max(1, len(images) // 4096)):
        grey = chunk.mean(-1, dtype=np.float32).reshape(-1, 16, 3, 16, 3).mean((2, 4)).reshape(len(chunk), -1)
        grey -= grey.mean(1, keepdims=True)
        parts.append(grey / np.maximum(np.linalg.norm(grey, axis=1, keepdims=True), 1e-6))
    return np.concatenate(parts)


def domain_of(prefix: str, icon: str, colour: bool, image: np.ndarray) -> str | None:
    """The style of one icon, or None for a style between two (duotone). The name decides, then the ink."""
    words = set(icon.split("-"))
    if prefix in SKETCH_SETS:
        return "sketch"
    if prefix in PIXEL_SETS:
        return "pixel"
    if prefix in EMOJI_SETS and colour:
        return "emoji"
    if colour:
        return "color"
    if words & MIXED_WORDS or "twotone" in prefix or prefix in {"duo-icons", "uim"}:
        return None
    ink = image.mean(-1) < 128
    survives = binary_erosion(ink, iterations=2).sum() / max(1, ink.sum())  # strokes of up to 4 pixels vanish
    if words & SOLID_WORDS or "solid" in prefix:
        return "solid" if survives > 0.06 else None
    if words & OUTLINE_WORDS or "outline" in prefix or "regular" in prefix:
        return "outline" if survives < 0.25 else None
    return "outline" if survives < 0.12 else "solid"


def weight_rank(icon: str) -> tuple[int, str]:
    """Orders the variants of one drawing, the one most like the set's regular weight first."""
    words = icon.split("-")
    return min((WEIGHTS.index(word) + 1 for word in words if word in WEIGHTS), default=0), icon


def class_members(table: pd.DataFrame, classes: dict, picked: dict) -> pd.Series:
    """The class of every icon that belongs to one (NaN elsewhere), from the curated names and the picked icons."""
    named = {name: label for label, entry in classes.items() for name in entry["names"]}
    labels = table["caption"].map(named)
    by_icon = {
        (prefix, icon): label for prefix, chosen in picked.items() for label, icons in chosen.items() for icon in icons
    }
    by_icon |= {
        ("streamline-freehand-color", icon): label
        for (prefix, icon), label in by_icon.items()
        if prefix == "streamline-freehand"
    }
    chosen = pd.Series([by_icon.get(key) for key in zip(table["set"], table["icon"], strict=True)], index=table.index)
    return chosen.where(chosen.notna(), labels)


def shows_a_class(caption: str, phrases: set[tuple[str, ...]]) -> bool:
    """Whether a caption contains one of the phrases, word for word."""
    words = caption.split()
    return any(tuple(words[i : i + n]) in phrases for n in (1, 2, 3) for i in range(len(words) - n + 1))


def groups_of(members: pd.DataFrame, vectors: np.ndarray) -> pd.Series:
    """Group label of each of a class's icons: families, joined where they hold near-duplicates of each other."""
    families = sorted(members["family"].unique())
    parent = {family: family for family in families}

    def root(family: str) -> str:
        while parent[family] != family:
            family = parent[family]
        return family

    own = members["family"].to_numpy()
    alike = np.argwhere(np.triu(vectors @ vectors.T > NEAR_DUPLICATE, 1))
    for a, b in alike:
        low, high = sorted((root(own[a]), root(own[b])))
        parent[high] = low
    return members["family"].map(root)


def one_per_drawing(members: pd.DataFrame) -> pd.DataFrame:
    """One icon for each drawing and domain of a family: weights, sizes and editions are left out."""
    order = members["icon"].map(weight_rank)
    return (
        members.assign(order=order)
        .sort_values("order")
        .drop_duplicates(["family", "drawing", "domain"])
        .drop(columns="order")
        .sort_index()
    )


def without_near_duplicates(members: pd.DataFrame, vectors: np.ndarray) -> pd.DataFrame:
    """The icons of one class that are no near-duplicate of an earlier one."""
    alike = np.triu(vectors @ vectors.T > NEAR_DUPLICATE, 1)
    keep = np.ones(len(members), bool)
    for i in range(len(members)):
        if keep[i]:
            keep &= ~alike[i]
    return members[keep]


def keep_for_pretraining(members: pd.DataFrame, number: int, rng: np.random.Generator) -> tuple[list[int], set[str]]:
    """Icons of a class that stay in pretraining, at most a few by one family, and the groups they use up."""
    icons: list[int] = []
    used: set[str] = set()
    for group in rng.permutation(members["group"].unique()):
        if len(icons) == number:
            break
        inside = members[members["group"] == group]
        order = rng.permutation(inside.index)[: PER_FAMILY[number]]
        icons += [int(i) for i in order[: number - len(icons)]]
        used.add(group)
    return icons, used


def split_groups(members: pd.DataFrame, rng: np.random.Generator) -> dict[str, str]:
    """Group -> split of one class: 16 outline drawings or more to train, 4 to validation, all others to test.

    Groups with drawings in the rarer styles go to test, since only test images are counted out of distribution.
    """
    outline = members[members["domain"] == "outline"].groupby("group").size()
    rare = members[members["domain"].isin(["color", "emoji", "sketch", "pixel"])].groupby("group").size()
    groups = list(rng.permutation(sorted(members["group"].unique())))
    groups.sort(key=lambda group: rare.get(group, 0) > 0)
    splits, have = {}, {"train": 0, "validation": 0}
    spare = outline.sum() - TRAIN - VALIDATION - TEST
    for group in groups:
        size = int(outline.get(group, 0))
        need = "train" if have["train"] < TRAIN else "validation" if have["validation"] < VALIDATION else None
        # A group larger than what is needed must not eat the other splits' drawings.
        if size and need and size <= (TRAIN if need == "train" else VALIDATION) - have[need] + max(0, spare):
            spare -= max(0, have[need] + size - (TRAIN if need == "train" else VALIDATION))
            splits[group] = need
            have[need] += size
        else:
            splits[group] = "test"
    return splits


def build_class(
    label: str, members: pd.DataFrame, vectors: np.ndarray, number: int, seed: int
) -> tuple[list[int], pd.DataFrame]:
    """One class: the icons kept in pretraining, and its part of the benchmark with a `split` column."""
    rng = np.random.default_rng([seed, *label.encode()])
    members = members.assign(group=groups_of(members, vectors))
    usable = one_per_drawing(members[members["domain"].notna()])
    kept, used = keep_for_pretraining(usable, number, rng)
    rest = usable[~usable["group"].isin(used)]
    position = members.index.get_indexer(rest.index)
    rest = without_near_duplicates(rest, vectors[position])
    rest = rest.assign(split=rest["group"].map(split_groups(rest, rng)))
    parts = []
    for (split, domain), part in rest.groupby(["split", "domain"]):
        most = (
            {"train": TRAIN, "validation": 6, "test": MOST[domain]}[split]
            if domain == "outline" or split == "test"
            else 0
        )
        order = rng.permutation(len(part))[:most] if len(part) > most else np.arange(len(part))
        parts.append(part.iloc[np.sort(order)])
    return kept, pd.concat(parts) if parts else rest.iloc[:0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iconify", type=Path, required=True, help="the unpacked @iconify/json package")
    parser.add_argument("--emojibase", type=Path, required=True, help="the unpacked emojibase-data package")
    parser.add_argument("--build", type=Path, default=Path("build"), help="where render.py left its sets")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    classes = tomllib.loads((HERE / "classes.toml").read_text())
    picked = tomllib.loads((HERE / "picked.toml").read_text())
    dropped = {tuple(line.split("/")) for line in (HERE / "dropped.txt").read_text().splitlines() if "/" in line}
    table, images = load(args.iconify, args.build)
    table["class"] = class_members(table, classes, picked)
    wrong = {
        key[:2]
        for key in zip(table["set"], table["drawing"], table["icon"], strict=True)
        if (key[0], key[2]) in dropped
    }
    right = np.array([key not in wrong for key in zip(table["set"], table["drawing"], strict=True)])
    members = table[table["class"].notna() & right].copy()
    members["domain"] = [
        domain_of(prefix, icon, colour, images[i])
        for i, prefix, icon, colour in zip(
            members.index, members["set"], members["icon"], members["colour"], strict=True
        )
    ]
    vectors = signatures(images)

    # The long tail: as many classes at each level, drawn at random among those that can afford it, the largest first.
    rng = np.random.default_rng(args.seed)
    built = {}
    for label in tqdm(sorted(classes), desc="classes"):
        own = members[members["class"] == label]
        for level in TAIL:
            kept, part = build_class(label, own, vectors[own.index], level, args.seed)
            if len(kept) == level and is_enough(part):
                built[label, level] = kept, part
    labels = sorted({label for label, _ in built})
    quota = -(-len(labels) // len(TAIL))
    levels: dict[str, int] = {}
    for level in reversed(TAIL):
        able = [label for label in labels if (label, level) in built and label not in levels]
        levels |= dict.fromkeys(rng.permutation(able)[:quota].tolist() if level != TAIL[0] else able, level)
    kept_icons = {label: built[label, levels[label]][0] for label in sorted(levels)}
    benchmark = pd.concat([built[label, levels[label]][1] for label in sorted(levels)])
    print(f"left out, too few drawings: {', '.join(sorted(set(classes) - set(levels))) or 'none'}")
    print(pd.Series(levels).value_counts().sort_index().to_string())
    classes = {label: classes[label] for label in kept_icons}
    table.loc[~table["class"].isin(classes.keys()), "class"] = None

    report(benchmark)
    save(args, table, images, vectors, benchmark, kept_icons, classes)


def is_enough(part: pd.DataFrame) -> bool:
    """Whether a class holds the outline drawings its three splits need."""
    counts = part[part["domain"] == "outline"]["split"].value_counts()
    return all(
        counts.get(split, 0) >= least for split, least in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST))
    )


def report(benchmark: pd.DataFrame) -> None:
    print(f"{benchmark['class'].nunique()} classes, {len(benchmark)} images")
    print(benchmark.groupby(["domain", "split"]).size().unstack(fill_value=0))
    print("classes by domain:", benchmark[benchmark["split"] == "test"].groupby("domain")["class"].nunique().to_dict())


def save(args, table, images, vectors, benchmark, kept_icons, classes) -> None:
    """Write the benchmark's table and images, and the corpus without anything near it, into the build folder."""
    emoji = emoji_captions(args.emojibase)
    phrases = {
        tuple(word.split())
        for label, entry in classes.items()
        for word in [label, *entry["names"], *entry.get("shows", [])]
    }
    kept_label = {icon: label for label, icons in kept_icons.items() for icon in icons}
    captions = table["caption"].dropna().unique()
    showing = {caption for caption in captions if shows_a_class(caption, phrases)}
    free = table["class"].isna() & ~table["caption"].isin(showing) & table["caption"].notna()
    # At most two icons a name and set, one in coloured sets.
    rng = np.random.default_rng([args.seed, 1])
    shuffled = table[free].sample(frac=1, random_state=rng)
    most = np.where(shuffled["colour"], 1, 2)
    corpus = shuffled[shuffled.groupby(["set", "caption"]).cumcount() < most].sort_index()
    target = vectors[benchmark.index]
    similarity = np.concatenate([(vectors[chunk] @ target.T).max(1) for chunk in np.array_split(corpus.index, 64)])
    print(
        f"{free.sum()} icons show no class, {len(corpus)} after thinning, "
        f"{(similarity > NEAR_DUPLICATE).sum()} of them near a benchmark image"
    )
    corpus = corpus[similarity <= NEAR_DUPLICATE]
    corpus = pd.concat(
        [corpus, table.loc[sorted(kept_label)].assign(caption=[kept_label[i] for i in sorted(kept_label)])]
    )
    captions_of = [
        [caption, *emoji.get(caption, [])] if prefix in EMOJI_SETS and index not in kept_label else [caption]
        for index, prefix, caption in zip(corpus.index, corpus["set"], corpus["caption"], strict=True)
    ]
    free_of_classes = [
        [c for c in dict.fromkeys(texts) if not shows_a_class(c, phrases) or c in kept_icons] for texts in captions_of
    ]
    corpus["captions"] = [json.dumps(texts) for texts in free_of_classes]
    corpus = corpus[[bool(texts) for texts in free_of_classes]]
    corpus["kept"] = corpus.index.isin(kept_label)
    print(f"corpus: {len(corpus)} icons, {corpus['caption'].nunique()} names, {corpus['colour'].sum()} in colour")
    corpus[["set", "icon", "row", "colour", "caption", "captions", "kept"]].to_csv(
        args.build / "corpus.csv", index=False
    )
    nearest = np.max([(vectors[chunk] @ target.T).max(0) for chunk in np.array_split(corpus.index, 64)], axis=0)
    # What is left near the corpus lies near another class's kept pictogram; the benchmark gives it up.
    benchmark = benchmark.assign(nearest_pretraining=nearest.round(4))[nearest <= NEAR_DUPLICATE]
    benchmark.to_csv(args.build / "benchmark.csv", index_label="index")
    partial = args.build / "benchmark.partial.npy"
    np.save(partial, images[benchmark.index])
    os.replace(partial, args.build / "benchmark.npy")
    counts = pd.Series({label: len(icons) for label, icons in kept_icons.items()}, name="pretraining_pictograms")
    counts.to_csv(args.build / "concept_counts.csv", index_label="class")


if __name__ == "__main__":
    main()
