"""What notebooks 08 and 09 say of their numbers, on made-up ones: ahead, behind, within noise, reversed, few seeds."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest

from radapter_lite import METHODS
from radapter_lite.statistics import compared

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def functions(name: str) -> dict[str, Any]:
    """The functions a notebook defines, without what else its cells do."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    sources = [cell.source for cell in cells if cell.cell_type == "code"]
    found = [node for source in sources for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    for node in found:
        node.decorator_list = []
    names: dict[str, Any] = {"np": np, "pd": pd, "compared": compared, "METHODS": METHODS}
    exec(compile(ast.Module(found, []), name, "exec"), names)
    return names


neighbours, severity = functions("08_neighbours"), functions("09_how_far_is_id")


def row(value: float, half: float = 1.0, seeds: int = 5, **about: Any) -> dict[str, Any]:
    """A paired difference, the same on ID and on OOD."""
    return {"seeds": seeds, "id": value, "id_ci": half, "ood": value, "ood_ci": half, **about}


# What was found, and the words that must and that must not be said of it.
KINDS = {
    "ahead": (row(3), ["ahead by 3.0 ± 1.0"], ["behind", "not told apart"]),
    "behind": (row(-3), ["behind by 3.0 ± 1.0"], ["ahead", "not told apart"]),
    "within noise": (row(0.9), ["not told apart (+0.9 ± 1.0)"], ["ahead", "behind"]),
    "just not": (row(-1.0), ["not told apart"], ["ahead", "behind"]),
    "one seed": (row(9, np.nan, 1), ["+9.0, too few seeds"], ["ahead", "behind"]),
    "two seeds": (row(-9, 1, 2), ["-9.0, too few seeds"], ["ahead", "behind"]),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def said(text: str, must: list[str], must_not: list[str]) -> None:
    assert [words for words in must if words not in text] == []
    assert [words for words in must_not if words in text] == []


@each_kind
@pytest.mark.parametrize("names", [neighbours, severity], ids=["08", "09"])
def test_a_verdict_says_what_its_interval_allows(names: dict[str, Any], kind: str) -> None:
    found, must, must_not = KINDS[kind]
    said(names["verdict"](found, "id"), must, must_not)


@each_kind
@pytest.mark.parametrize(
    "tell",
    [
        lambda r: neighbours["told_equal"](pd.DataFrame([r | {"method": "LoRA", "id": 50.0}])),
        lambda r: severity["told_lead"](pd.DataFrame([r | {"method": "R-Adapter", "severity": s} for s in (0, 1)])),
        lambda r: severity["told_full"](
            pd.DataFrame([r | {"method": "R-Adapter", "shots": 16, "says": "minus WiSE-FT, each at its best α"}])
        ),
    ],
    ids=["equal", "lead", "full"],
)
def test_a_row_is_told_as_its_verdict(tell: Callable[[dict[str, Any]], str], kind: str) -> None:
    found, must, must_not = KINDS[kind]
    said(tell(found), must, must_not)


@each_kind
def test_the_worth_of_alpha_and_the_stems_are_told_alike(kind: str) -> None:
    found, must, must_not = KINDS[kind]
    for tell, above, below in (("told_worth", "more by", "less by"), ("told_stem", "up by", "down by")):
        rows = pd.DataFrame([found | {"method": "R-Adapter", "severity": s, "peak": 0.6} for s in (0, 1)])
        words = [[w.replace("ahead by", above).replace("behind by", below) for w in each] for each in (must, must_not)]
        words[1] = [w.replace("ahead", above).replace("behind", below) for w in words[1]]
        said(severity[tell](rows), *words)


@each_kind
def test_the_highest_is_compared_and_in_the_right_direction(kind: str) -> None:
    """The table is of the others minus R-Adapter; the sentence of R-Adapter against the others."""
    found, must, must_not = KINDS[kind]
    means = {"id": [50.0, 50.0 - found["id"]], "ood": [50.0, 50.0 - found["id"]], "forgotten": [20.0, 10.0]}
    here = pd.DataFrame(means, ["R-Adapter", "LoRA"])
    against = pd.DataFrame([found | {"method": "LoRA", "id": -found["id"], "ood": -found["ood"]}])
    text = neighbours["told_highest"](here, against, 16)
    said(text, must, must_not)
    first = "R-Adapter" if found["id"] > 0 else "LoRA"
    assert f"**{first}** has the highest mean ID" in text and "LoRA forgets least" in text


def test_lists_of_methods_hold_those_that_the_intervals_put_there() -> None:
    table = pd.DataFrame([row(3, method="A"), row(-3, method="B"), row(0.5, method="C"), row(9, 1, 2, method="D")])
    assert neighbours["sides"](table, "ood") == (["A"], ["B"], ["C", "D"])
    text = neighbours["told_best"](table)
    said(text, ["**above** 1 of 4", "**below** 1 (B)", "not told apart from 2 (C, D)", "Fewer than three seeds"], [])
    assert "Fewer than" not in neighbours["told_best"](table[:3])
    reversed_text = neighbours["told_best"](table.assign(id=-table["id"], ood=-table["ood"]))
    said(reversed_text, ["**above** 1 of 4", "**below** 1 (A)", "not told apart from 2 (C, D)"], ["(B)"])


def test_gifts_are_told_by_where_they_put_a_method() -> None:
    kinds = {"LoRA, stem": 3, "CoOp, longer": -3, "LoRA, whitened": 0.5, "R-Adapter, as published": 9}
    rows = [row(value, method=name, other="R-Adapter", alpha=1.0) for name, value in kinds.items()]
    rows[-1]["seeds"] = 2
    other = [row(-9, method="LoRA, stem", other="LoRA", alpha=1.0), row(-9, method="LoRA, stem", other="R-Adapter")]
    text = neighbours["told_gifts"](pd.DataFrame([*rows, *other]))
    right = "ahead: LoRA, stem. Behind: CoOp, longer. Not told apart: LoRA, whitened; R-Adapter, as published."
    said(text, [f"on ID, {right}", f"on OOD, {right}", "Fewer than three seeds"], [])


@each_kind
def test_more_steps_are_told_against_who_had_as_many(kind: str) -> None:
    found, must, must_not = KINDS[kind]
    of = {"R-Adapter, longer": ["R-Adapter", "FLYP, longer"], "FLYP, longer": ["FLYP", "R-Adapter"]}
    rows = [found | {"method": name, "other": other, "alpha": 1.0} for name, others in of.items() for other in others]
    rows.append(row(50, method="LoRA, stem", other="LoRA", alpha=1.0))
    text = neighbours["told_longer"](pd.DataFrame(rows))
    said(text, [*must, "against FLYP, longer, α = 1"], [*must_not, "50.0", "**FLYP, longer**, against R-Adapter"])


@pytest.mark.parametrize(("first", "last"), [(3, 3), (3, -3), (0.5, 0.5)])
def test_the_stem_is_recommended_if_it_is_ahead_everywhere(first: float, last: float) -> None:
    table = pd.DataFrame([row(first, ID="outline", shots=1), row(last, ID="camera", shots=16)])
    text = severity["told_settled"](table.assign(ahead=table["id"] > 1, behind=table["id"] < -1))
    assert ("outline, 1 shot" in text) == (first > 1) and ("camera, 16 shots" in text) == (abs(last) > 1)
    assert ("recommend." in text) == (first > 1 and last > 1)


def test_effective_robustness_names_who_has_more() -> None:
    table = pd.DataFrame([row(3, method="A"), row(-3, method="B"), row(0.5, method="C")])
    table = table.rename(columns={"ood": "robustness", "ood_ci": "robustness_ci"})
    text = neighbours["told_robust"]({"robustness": 4.2, "robustness_ci": 1.2}, table, 7.4)
    said(text, ["4.2 ± 1.2", "seed by seed: A; smaller: B; not told apart: C", "+7.4"], ["Nothing"])


@pytest.mark.parametrize(("change", "must"), [(5, "helps OOD"), (-5, "damages OOD"), (0.4, "is not told apart")])
def test_what_full_tuning_does_is_told_against_its_interval(change: float, must: str) -> None:
    rows = [row(change, method="FLYP", forgotten=9.0), row(2, method="LoRA", forgotten=5.0)]
    text = neighbours["told_gains"](pd.DataFrame([*rows, row(3, method="R-Adapter", forgotten=4.0)]))
    others = {"helps OOD: on", "Full tuning damages OOD here", "damages OOD is not told apart"}
    assert must in text and sum(words in text for words in others) == 1


def test_full_tuning_with_two_seeds_gets_no_verdict() -> None:
    rows = [row(5, 1, 2, method=name, forgotten=k) for k, name in enumerate(("FLYP", "LoRA", "R-Adapter"))]
    said(neighbours["told_gains"](pd.DataFrame(rows)), ["0 of 3 methods raise", "is not told apart"], ["helps OOD: on"])


def leads(ood: list[float], own_id: list[float], seeds: int = 5) -> pd.DataFrame:
    """Leads over FLYP, whose own change of OOD rises with the shots."""
    shots = [2**k for k in range(len(ood))]
    rows = [
        row(0, seeds=seeds) | {"ood": a, "id": b, "flyp_id": 1.0, "flyp_ood": float(k)}
        for k, (a, b) in enumerate(zip(ood, own_id, strict=True))
    ]
    return pd.DataFrame(rows, shots)


def test_leads_that_grow_alike_on_id_and_ood_decide_nothing() -> None:
    text = neighbours["told_leads"](leads([9, 7, 5, 3], [8, 6, 4, 2]))
    said(text, ["so does the lead on ID", "cannot decide"], ["which is what avoided damage would give"])


def test_leads_that_grow_on_ood_alone_are_no_proof() -> None:
    text = neighbours["told_leads"](leads([9, 7, 5, 3], [2, 2.2, 2.4, 2.6]))
    said(text, ["the lead on ID does not", "no proof"], ["cannot decide"])


def test_leads_that_fall_do_not_speak_for_avoided_damage() -> None:
    for ood in ([3, 5, 7, 9], [5, 5, 5, 5]):
        text = neighbours["told_leads"](leads(ood, [8, 6, 4, 2]))
        said(text, ["does not explain it"], ["grows with FLYP's damage,", "cannot decide"])


def test_few_shots_or_seeds_test_no_reading() -> None:
    for table in (leads([9, 3], [8, 2]), leads([9, 7, 5, 3], [8, 6, 4, 2], seeds=2)):
        said(neighbours["told_leads"](table), ["too few"], ["damage:", "cannot decide", "explain it"])


def forms(without: float, with_it: float, seeds: int = 5) -> pd.DataFrame:
    about = {"setting": "outline, 4 shots", "method": "FLYP"}
    values = {"R-Adapter, unwhitened": without, "R-Adapter": with_it}
    return pd.DataFrame([row(value, seeds=seeds, form=form, **about) for form, value in values.items()])


def test_the_form_without_whitening_is_told_for_itself() -> None:
    text = neighbours["told_cause"](forms(-2, 3))
    said(text, ["without whitening, OOD behind by 2.0", "with it, OOD ahead by 3.0"], ["not told apart"])
    text = neighbours["told_cause"](forms(4, 0.2))
    said(text, ["without whitening, OOD ahead by 4.0", "with it, OOD not told apart"], ["behind"])
    text = neighbours["told_forms"](forms(-2, 3))
    said(text, ["unwhitened** is ahead on OOD in 0 of 1 comparisons and behind in 1 (FLYP, outline, 4 shots)"], [])
    said(text, ["**R-Adapter** is ahead on OOD in 1 of 1 comparisons and behind in 0. Not told apart: 0."], [])
    text = neighbours["told_forms"](forms(-2, 3, seeds=2))
    said(text, ["Fewer than three seeds"], ["in 1 of 1", "behind in 1"])


def test_the_smallest_that_raises_ood_must_raise_it() -> None:
    trained = pd.DataFrame({"method": ["A", "B", "C"], "trained_parameters": [10.0, 100.0, 1000.0], "seeds": 5})
    trained["ood"], trained["ood_ci"] = [42.5, 44.0, 50.0], 1.0
    said(neighbours["told_parameters"](trained, 42.0, 0.9, -0.9), ["is B, with 100"], ["is A"])
    said(neighbours["told_parameters"](trained, 60.0, 0.9, -0.9), ["0.90, with OOD -0.90"], ["The smallest"])
    said(neighbours["told_parameters"](trained.assign(seeds=2), 42.0, 0.9, 0.9), [], ["The smallest"])


def test_searches_and_the_line_are_told_as_they_ended() -> None:
    said(neighbours["told_search"](5, 1, 18), ["In 1 of 18"], ["In all"])
    said(neighbours["told_search"](5, 0, 18), ["In all 18"], ["smallest"])
    plain = pd.DataFrame({"id": [20.0, 40.0, 60.0], "ood": [20.0, 35.0, 50.0]})
    residual = pd.Series([0.1, -0.2, 0.1])
    said(neighbours["told_line"](plain, 0.75, residual, []), ["All methods lie within"], ["Outside"])
    said(neighbours["told_line"](plain, 0.75, residual, ["CoOp"]), ["Outside that range", "CoOp"], ["All methods"])


def test_the_distance_is_told_whichever_way_it_goes() -> None:
    places = ["stem", "block 1", "block 2"]
    tell = severity["told_distance"]
    said(tell(pd.Series([0.75, 0.7, 0.66], places), 1.0), ["farthest after the stem", "closer together"], ["apart: "])
    said(tell(pd.Series([0.4, 0.7, 0.8], places), 1.0), ["block number 2", "move the two apart: 50%"], ["closer"])
    said(tell(pd.Series([0.5, 0.7, 0.51], places), 1.0), ["block number 1", "about as it came"], ["closer", "apart:"])


def test_zero_shot_may_rise_with_severity() -> None:
    said(severity["told_start"](pd.Series([48.0, 25.0], [0.0, 1.0]), 400), ["23.0 points less"], ["more"])
    said(severity["told_start"](pd.Series([25.0, 48.0], [0.0, 1.0]), 400), ["23.0 points more"], ["less"])


def test_a_rule_is_within_a_point_only_if_it_is() -> None:
    lost = pd.DataFrame({"worst": [1.0, 1.4]}, ["one standard error", "tuned"])
    said(severity["told_rules"](lost), ["**one standard error**", "every severity: one standard error."], ["No rule"])
    said(severity["told_rules"](lost + 0.5), ["No rule stays"], ["Within one point"])
