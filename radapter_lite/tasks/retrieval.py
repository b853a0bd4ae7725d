"""Retrieval: images and the captions people gave them, of which one may fit many images, and one image have many.

Recall@k is the share of a domain's images, or of its captions, that find one of their own among the first k by cosine
similarity, and `recall` the mean of recall@1 both ways. Source: Karpathy and Fei-Fei 2015 (the protocol).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from radapter_lite.backbone import Backbone
from radapter_lite.data import ImageSet
from radapter_lite.data.table import SEPARATOR
from radapter_lite.tasks.task import Batch, ImageBatches
from radapter_lite.training import TrainingConfig

KS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Images and captions; a caption's text is itself, in no prompt.

    Attributes:
        names: all captions [T].
        matches: the captions of each image, by number [N, M]; rows end in -1 where an image has fewer than M.
        column: of the images' table, with each image's captions.
    """

    images: ImageSet
    names: Sequence[str]
    matches: Tensor
    column: str = "captions"
    metric = "recall"

    @classmethod
    def of(cls, images: ImageSet, column: str = "captions", names: Sequence[str] | None = None) -> "Retrieval":
        """Retrieval among some images and their captions, or among `names`, which these captions are of.

        The column holds captions as text, with " | " between those of one image. Raises ValueError if one is missing.
        """
        if column not in images.table:
            told = f"{images.name} has no captions: its table needs a column {column!r}, with {SEPARATOR!r} between the"
            raise ValueError(f"{told} captions of one image; it has {', '.join(images.table)}")
        own = [[*dict.fromkeys(map(str.strip, str(text).split(SEPARATOR)))] for text in images.table[column].fillna("")]
        if lacking := [file for file, captions in zip(images.table["file"], own, strict=True) if "" in captions]:
            raise ValueError(f"{images.name} has no caption for {lacking[0]}: write one, or drop its row")
        names = [*dict.fromkeys(chain(*own))] if names is None else names
        number = {name: place for place, name in enumerate(names)}
        if strange := [caption for caption in chain(*own) if caption not in number]:
            raise ValueError(f"{images.name} has the caption {strange[0]!r}, which is none of the {len(names)} given")
        rows = [torch.tensor([number[caption] for caption in captions]) for captions in own]
        return cls(images, names, pad_sequence(rows, batch_first=True, padding_value=-1), column)

    def on(self, images: ImageSet) -> "Retrieval":
        """Retrieval of other images among the same captions."""
        return self.of(images, self.column, self.names)

    def texts(self, backbone: Backbone) -> list[list[str]]:
        """Each caption as it is [T][1]."""
        return [[name] for name in self.names]

    def batches(self, backbone: Backbone, config: TrainingConfig) -> Iterable[Batch]:
        """Augmented images, each with one of its captions; those of the others that fit it are positives as well."""
        return ImageBatches(backbone, self.images, self.matches, config)

    def score(self, similarities: Tensor, zero_shot: Tensor | None = None) -> pd.DataFrame:
        """Recall in percent among the images and the captions of each domain: a row a domain, ID first.

        Returns:
            domain, is_id, recall; text@1, 5 and 10 (captions found for images), image@1, 5 and 10 (the reverse);
            images, captions; and of zero-shot's [N, T] what is forgotten of text@1.
        """
        rows = []
        for domain, images, texts, pairs in self._domains():
            near = similarities.cpu()[images][:, texts]  # (n, t)
            of_images, of_texts = recall(near, pairs), recall(near.T, pairs.flip(1))
            rows.append(self._row(domain, of_images, of_texts))
            if zero_shot is not None:
                before = recall(zero_shot.cpu()[images][:, texts], pairs)[:, 0]
                rows[-1]["forgotten"] = 100 * ((before * (1 - of_images[:, 0])).sum() / before.sum()).item()
        return pd.DataFrame(rows)

    def recall(self, image_features: Tensor, text_features: Tensor) -> pd.DataFrame:
        """The `score` of features of images [N, D] and captions [T, D], however many: by `search`, in some 30 MB."""
        rows, (all_images, all_texts) = [], (image_features.cpu(), text_features.cpu())
        for domain, images, texts, pairs in self._domains():
            f, g = all_images[images], all_texts[texts]
            rows.append(self._row(domain, search(f, g, pairs), search(g, f, pairs.flip(1))))
        return pd.DataFrame(rows)

    def _domains(self) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
        """Each domain, the numbers of its images [n] and captions [t], and which of these belong together [P, 2]."""
        for domain in self.images.domains:
            images = torch.from_numpy((self.images.table["domain"] == domain).to_numpy().nonzero()[0])
            own = self.matches[images]
            texts, place = own.unique(return_inverse=True)
            image, slot = (own >= 0).nonzero(as_tuple=True)
            missing = int((texts < 0).sum())  # -1 comes first
            yield domain, images, texts[missing:], torch.stack([image, place[image, slot] - missing], 1)

    def _row(self, domain: str, of_images: Tensor, of_texts: Tensor) -> dict[str, object]:
        mean = 50 * (of_images[:, 0].mean() + of_texts[:, 0].mean()).item()
        row = {"domain": domain, "is_id": domain == self.images.id_domain, "recall": mean}
        for name, found in (("text", of_images), ("image", of_texts)):
            row |= {f"{name}@{k}": 100 * share for k, share in zip(KS, found.mean(0).tolist(), strict=True)}
        return row | {"images": len(of_images), "captions": len(of_texts)}

    def right(self, answers: Tensor) -> Tensor:
        """Whether captions, by number, are the images' own: [..., N] -> bool [..., N]."""
        return (self.matches == answers.cpu()[..., None]).any(-1)


def recall(similarities: Tensor, pairs: Tensor, ks: Sequence[int] = KS) -> Tensor:
    """For each question, the chance that a right answer is among the first k, ties being broken by lot [Q, K].

    Given similarities of questions with answers [Q, A], and once each the pairs, by number, that fit together [P, 2].
    """
    from scipy.special import comb

    question, answer = pairs.unbind(1)
    own = similarities[question, answer]
    best = own.new_full((len(similarities),), -torch.inf).scatter_reduce(0, question, own, "amax")
    before, tied = (similarities > best[:, None]).sum(1), (similarities == best[:, None]).sum(1)
    wrong = tied.index_add(0, question, (own == best[question]).long(), alpha=-1)
    draws = (torch.tensor(ks) - before[:, None]).clamp(min=0).minimum(tied[:, None])  # of the tied, by lot
    return 1 - torch.from_numpy(comb(wrong[:, None], draws) / comb(tied[:, None], draws))  # all of them wrong


def search(features: Tensor, others: Tensor, pairs: Tensor, at_once: int = 2**21) -> Tensor:
    """`recall` [Q, K] of unit vectors of questions [Q, D] and answers [A, D], by blocks of `at_once` similarities."""
    pairs, block = pairs[pairs[:, 0].argsort()], max(1, at_once // len(others))
    parts = []
    for start in range(0, len(features), block):
        low, high = torch.searchsorted(pairs[:, 0].contiguous(), torch.tensor([start, start + block])).tolist()
        parts.append(recall(features[start : start + block] @ others.T, pairs[low:high] - torch.tensor([start, 0])))
    return torch.cat(parts)
