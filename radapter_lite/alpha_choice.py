"""Choosing α without OOD labels: by labelled ID validation images, or by each domain's unlabelled images."""

from collections.abc import Callable, Iterable

import pandas as pd
from torch import Tensor

from radapter_lite.data import ImageSet


def unlabelled_statistics(
    similarities: Tensor, images: ImageSet, zero_shot: Tensor, temperature: float
) -> pd.DataFrame:
    """What predictions tell of themselves, no label being used, given cosine similarities at some α and at 0 [N, C].

    Returns:
        domain, a row each; confidence, the mean of the largest class probability in percent; entropy, the mean of the
        predictions' entropy in nats; information, the entropy of the mean prediction less that, in nats;
        agreement, the share of images in percent whose top class is the one of zero-shot.
    """
    from scipy.stats import entropy

    probabilities = (similarities.cpu().double() / temperature).softmax(1).numpy()
    each = pd.DataFrame({"confidence": 100 * probabilities.max(1), "entropy": entropy(probabilities, axis=1)})
    each["agreement"] = 100 * (similarities.argmax(1) == zero_shot.argmax(1)).cpu().numpy()
    domain = images.table["domain"].to_numpy()
    table = each.groupby(domain, sort=False).mean()
    together = pd.DataFrame(probabilities).groupby(domain, sort=False).mean()
    table.insert(2, "information", entropy(together, axis=1) - table["entropy"])
    return table.loc[images.domains].rename_axis("domain").reset_index()


def highest(alphas: Iterable[float], values: Iterable[float]) -> float:
    """The α of the highest value; the smallest such α where several share it."""
    return float(pd.Series(list(values), list(alphas)).sort_index().idxmax())


def one_standard_error(validation: pd.DataFrame, target: pd.DataFrame) -> float:
    """The smallest α whose accuracy on ID validation images is at most one standard error below the highest.

    The error is binomial, of the highest over so many images. Source: Breiman et al. 1984, for trees.
    """
    shares, images = validation.set_index("alpha")["accuracy"] / 100, validation["images"].iloc[0]
    error = (shares.max() * (1 - shares.max()) / images) ** 0.5
    return float(shares.index[shares >= shares.max() - error].min())


def difference_of_confidences(validation: pd.DataFrame, target: pd.DataFrame) -> float:
    """The α of the highest expected accuracy in the target, which no label of it enters.

    It is the accuracy on ID validation images, less by as much as the mean confidence (both in percent) falls from
    them to the target's unlabelled images. Source: Guillory et al. 2021.
    """
    known, unlabelled = validation.set_index("alpha"), target.set_index("alpha")
    expected = known["accuracy"] - (known["confidence"] - unlabelled["confidence"])
    return highest(expected.index, expected)


# From the ID validation rows and the target domain's rows of one run to an α. "oracle" alone sees target labels.
RULES: dict[str, Callable[[pd.DataFrame, pd.DataFrame], float]] = {
    "zero-shot": lambda validation, target: 0.0,
    "fixed 0.5": lambda validation, target: 0.5,
    "tuned": lambda validation, target: 1.0,
    "highest ID validation": lambda validation, target: highest(validation["alpha"], validation["accuracy"]),
    "one standard error": one_standard_error,
    # The predictions that are most certain.
    "confidence": lambda validation, target: highest(target["alpha"], target["confidence"]),
    # Each is certain, and together they use all classes (Bridle et al. 1991).
    "information": lambda validation, target: highest(target["alpha"], target["information"]),
    "difference of confidences": difference_of_confidences,
    "oracle": lambda validation, target: highest(target["alpha"], target["accuracy"]),
}


def compare_rules(table: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Every rule of `RULES` beside the oracle: a row for each method, shots, seed, test domain and rule.

    The table holds rows of sweeps with the columns method, shots, seed, split ("test", "validation"), alpha (0, 0.5 and
    1 among its values), domain, is_id, images, accuracy, confidence and information; others are refused by ValueError.

    Returns:
        method, shots, seed, domain, is_id, rule, alpha, accuracy (a task's `metric`) and left, the points it lies
        below the oracle's: that of the swept α that is best for this domain's labels.
    """
    key, table = ["method", "shots", "seed"], table.rename(columns={metric: "accuracy"})
    needed = (*key, "split", "alpha", "domain", "is_id", "images", "accuracy", "confidence", "information")
    if missing := [name for name in needed if name not in table]:
        raise ValueError(f"the table of sweeps has no column {missing[0]}: make it anew with `radapter-lite bench`")
    rows = []
    for names, run in table.groupby(key, sort=False):
        validation = run[(run["split"] == "validation") & run["is_id"]]
        if validation.empty or not {0.0, 0.5, 1.0} <= set(run["alpha"]):
            run_name = dict(zip(key, names, strict=True))
            raise ValueError(f"the run {run_name} needs ID validation rows, and α = 0, 0.5 and 1 among its values")
        for (domain, is_id), target in run[run["split"] == "test"].groupby(["domain", "is_id"], sort=False):
            accuracy = target.set_index("alpha")["accuracy"]
            for rule, choose in RULES.items():
                alpha = choose(validation, target)
                rows.append((*names, domain, is_id, rule, alpha, accuracy[alpha], accuracy.max() - accuracy[alpha]))
    return pd.DataFrame(rows, columns=[*key, "domain", "is_id", "rule", "alpha", "accuracy", "left"])
