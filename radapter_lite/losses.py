"""The two contrastive losses: CLIP's InfoNCE, and MPM-NCE, which knows several positives and a margin.

Both compare every image of a batch with every text of it. With s_ij = f_i . g_j, f_i the unit vector of
image i and g_j the unit vector of text j, they read the similarity matrix s along its rows (which text
belongs to image i?) and along its columns (which image belongs to text j?), and add the two answers.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(image_features: Tensor, text_features: Tensor, logit_scale: Tensor | float) -> Tensor:
    """CLIP's contrastive loss, in which each image has one right text and each text one right image.

    It is `mpm_nce` with the identity as positives, no margin and no smoothing. Raises ValueError for two shapes.

    Given unit vectors [B, D] twice, row i of both a pair, and 1 / temperature, which CLIP's `model.logit_scale.exp()`
    is; gradients reach it. Returns the sum of both directions, averaged over the batch [scalar]: twice open_clip's.

    Source: Radford et al. 2021, the loss of CLIP.
    """
    identity = torch.eye(len(image_features), dtype=torch.bool, device=image_features.device)
    return mpm_nce(image_features, text_features, identity, temperature=1 / logit_scale, margin=0.0, smoothing=0.0)


def mpm_nce(
    image_features: Tensor,
    text_features: Tensor,
    positives: Tensor,
    *,
    temperature: Tensor | float = 0.01,
    margin: float = 0.05,
    smoothing: float = 0.02,
) -> Tensor:
    """The multi-positive margin NCE loss: every match is a positive, and negatives start `margin` ahead.

    L = -1/B Σ_ij ỹ_ij [ log softmax_j((s_ij + δ_ij)/τ) + log softmax_i((s_ij + δ_ij)/τ) ]

    over texts j, then over images i, with ỹ_ij = (1 - ε)/|P(i)| for a positive and ε/(B - |P(i)|) for a negative, and
    δ_ij = 0 for a positive and the margin for a negative. Both directions share ỹ. Where image i has no negative in the
    batch there is nothing to smooth towards and ỹ_ij = 1/|P(i)|, so that every row of targets sums to 1.

    Args:
        image_features, text_features: unit vectors [B, D].
        positives: True at (i, j) where image i and text j match [B, B], bool, its diagonal True.
        temperature: τ, above 0.
        margin: δ, in units of cosine similarity, 0 or more.
        smoothing: ε, the share of each row's target given to its negatives, in [0, 1).

    Returns a scalar, computed in float32 where the features are narrower. Raises ValueError for shapes that do not fit,
    positives not bool or without the diagonal, and numbers out of range.

    Source: Kim et al. 2024 (arXiv 2408.05749), MPM-NCE.
    """
    _check(image_features, text_features, positives, temperature, margin, smoothing)
    dtype = torch.promote_types(image_features.dtype, torch.float32)
    with torch.autocast(image_features.device.type, enabled=False):  # τ = 0.01 multiplies rounding by 100
        similarity = image_features.to(dtype) @ text_features.to(dtype).T  # (B, B), image i and text j
    logits = (similarity + margin * (~positives).to(dtype)) / temperature  # (B, B)

    positive_count = positives.sum(dim=1, keepdim=True)  # (B, 1)
    negative_count = len(positives) - positive_count  # (B, 1)
    epsilon = smoothing * (negative_count > 0).to(dtype)  # (B, 1)
    shares = (1 - epsilon) / positive_count, epsilon / negative_count.clamp(min=1)
    targets = torch.where(positives, *shares)  # (B, B), every row sums to 1
    log_likelihood = F.log_softmax(logits, dim=1) + F.log_softmax(logits, dim=0)  # (B, B)
    return -(targets * log_likelihood).sum() / len(positives)


def _check(
    images: Tensor, texts: Tensor, positives: Tensor, temperature: Tensor | float, margin: float, smoothing: float
) -> None:
    if images.ndim != 2 or images.shape != texts.shape or len(images) == 0:
        found = f"{tuple(images.shape)} and {tuple(texts.shape)}"
        raise ValueError(f"image and text features must be two non-empty (B, D) matrices of one shape, not {found}")
    square = (len(images), len(images))
    if positives.dtype != torch.bool or positives.shape != square:
        found = f"{positives.dtype} {tuple(positives.shape)}"
        raise ValueError(f"positives must be a bool matrix of shape {square}, not {found}")
    if not positives.diagonal().all():
        raise ValueError("positives must be True on the diagonal: image i and text i are a pair")
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if not margin >= 0:
        raise ValueError(f"margin must be 0 or more, not {margin}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing must lie in [0, 1), not {smoothing}")
