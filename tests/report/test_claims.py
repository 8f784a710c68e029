"""Claims: what was planted is found, what is not there is not, and what is lacking is named."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_jax.report import claims, verdicts
from ser_jax.report.contrasts import Contrast, Term, compute_contrast
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.formats import format_detectable
from ser_jax.report.study_systems import find_roles
from ser_jax.statistics import compute_detectable
from tests.handmade import write_grid

PROTOCOLS = {"emobox6": range(1, 7)}


def judge(folder: Path, systems: dict[str, dict[str, Any]], **options: Any) -> dict[str, Any]:
    """Findings of a grid made by hand, by the claim's key."""
    options = {"protocols": PROTOCOLS, "seeds": range(5), "epochs": 3} | options
    results = write_grid(folder, systems, **options)
    return {f.key: f for f in claims.judge_all(load_evidence(folder, results))}


def make_system(model: str, skill: float, **more: Any) -> dict[str, Any]:
    return {"model.name": model, "skill": skill, **more}


def test_planted_differences_are_found_and_their_opposites_refuted(tmp_path):
    order = [("cnn", 0.3), ("lstm", 0.45), ("cnn_lstm", 0.6)]
    grown = {m: make_system(m, skill, gap=0.3) for m, skill in order}
    found = judge(tmp_path / "grown", grown)
    for key in ("cnn_lstm", "lstm", "gender"):
        assert found[key].verdict == "holds"
        assert found[key].survives
    assert found["cnn_lstm"].weakest.contrast.effect == pytest.approx(0.15 * 0.875, abs=0.04)

    turned = {m: make_system(m, 0.9 - skill, gap=-0.3) for m, skill in order}
    found = judge(tmp_path / "turned", turned)
    for key in ("cnn_lstm", "lstm", "gender"):
        assert found[key].verdict == "does not hold"


def test_what_makes_no_difference_is_not_decided(tmp_path):
    same = {m: make_system(m, 0.4, gap=0.0) for m in ("cnn", "lstm", "cnn_lstm")}
    found = judge(tmp_path, same)
    assert {found[key].verdict for key in ("cnn_lstm", "lstm")} == {"not decided"}


def test_a_claim_about_several_systems_is_judged_on_those_that_were_run(tmp_path):
    systems = {m: make_system(m, 0.4) for m in ("cnn", "cnn_lstm", "wav2vec2")}
    found = judge(tmp_path, systems | {"wav2vec2": make_system("wav2vec2", 0.8)})
    absent = "lstm was not run; cnn_lstm_augmented was not run"
    assert (found["chance"].verdict, found["wav2vec2"].verdict) == ("holds", "holds")
    assert found["chance"].reason == f"judged on cnn, cnn_lstm, wav2vec2; {absent}"
    assert found["wav2vec2"].reason == f"judged on cnn, cnn_lstm; {absent}"
    assert found["gender"].reason == "lstm was not run"


def test_slightly_worse_means_by_less_than_five_points(tmp_path):
    def judge_gap(name: str, strong: float) -> Any:
        systems = {"cnn": make_system("cnn", 0.8, strong=strong)}
        return judge(tmp_path / name, systems, seeds=[0])["intensity"]

    far = judge_gap("far", -0.25)
    assert far.parts[0].contrast.effect > 0.1
    assert far.verdict == "does not hold"
    assert far.weakest.name == "5 points \u2212 (normal \u2212 strong)"
    assert far.weakest.contrast.effect == pytest.approx(0.05 - far.parts[0].contrast.effect)
    assert judge_gap("other", 0.25).weakest.contrast.effect < 0


@pytest.mark.parametrize(
    ("normal_less_strong", "verdict"),
    [(0.02, "holds"), (0.17, "does not hold"), (-0.02, "does not hold"), (0.045, "not decided")],
)
def test_a_small_difference_holds_and_one_near_the_bound_is_not_decided(
    normal_less_strong, verdict, monkeypatch, tmp_path
):
    def compute(evidence, terms, constant=0.0, **options):
        effect = constant + sum(t.weight * normal_less_strong for t in terms if "normal" in t.group)
        return Contrast(effect=effect, p_speakers=0.001 if abs(effect) > 0.01 else 0.5)

    monkeypatch.setattr("ser_jax.report.case.compute_contrast", compute)
    monkeypatch.setattr("ser_jax.report.claim_checks.compute_contrast", compute)
    found = judge(tmp_path, {"cnn": make_system("cnn", 0.4)}, seeds=[0])
    assert found["intensity"].verdict == verdict


def test_every_claim_says_which_systems_were_not_run(tmp_path):
    found = judge(tmp_path, {"svm": make_system("svm", 0.4)}, seeds=[0])
    assert set(found) == set(claims.CLAIMS)
    assert {finding.verdict for finding in found.values()} == {"not decided"}
    models = ("cnn", "lstm", "cnn_lstm", "wav2vec2", "cnn_lstm_augmented")
    assert found["wav2vec2"].reason == "; ".join(f"{role} was not run" for role in models)
    assert found["augmentation"].reason.startswith("cnn_lstm was not run")
    assert "none of the study's systems was run" in found["gender"].reason


def test_with_one_seed_the_speakers_decide_alone(tmp_path):
    systems = {m: make_system(m, s) for m, s in (("lstm", 0.3), ("cnn_lstm", 0.6))}
    contrast = judge(tmp_path, systems, seeds=[0])["cnn_lstm"].weakest.contrast
    assert (contrast.p_t, contrast.over_seeds, contrast.size) == (None, None, None)
    assert contrast.detectable is None
    assert contrast.p == contrast.p_speakers < 0.001
    assert contrast.n == 1440


def test_the_detectable_difference_is_that_of_the_cells_paired_by_seed(tmp_path):
    systems = {m: make_system(m, s) for m, s in (("lstm", 0.3), ("cnn_lstm", 0.6))}
    results = write_grid(tmp_path, systems, protocols={"study": [1]}, seeds=range(4), epochs=1)
    found = {f.key: f for f in claims.judge_all(load_evidence(tmp_path, results))}
    by_system = {
        system: [c["accuracy"] for c in results["cells"] if c["system"] == system]
        for system in systems
    }
    less_S = np.subtract(by_system["cnn_lstm"], by_system["lstm"])
    (part,) = found["cnn_lstm"].parts
    assert found["cnn_lstm"].weakest is part
    assert part.contrast.detectable == pytest.approx(compute_detectable(less_S.tolist()))
    shown = {part.name: part.contrast.detectable for part in found["chance"].parts}
    alone = {
        f"{system} \u2212 chance": pytest.approx(compute_detectable(accuracy_S))
        for system, accuracy_S in by_system.items()
    }
    assert shown == alone


@pytest.mark.parametrize(
    ("detectable", "is_share", "text"),
    [(0.0324, True, "3.2 points with 3 seeds"), (1.3, True, "> 100 points with 3 seeds"),
     (0.0324, False, "0.032 with 3 seeds"), (None, True, "")],
)  # fmt: skip
def test_what_is_detectable_is_written_in_points_with_the_number_of_seeds(
    detectable, is_share, text
):
    contrast = Contrast(0.1, (0, 1, 2), detectable=detectable, is_share=is_share)
    assert format_detectable(contrast) == text


def make_part(effect: float, p_t: float | None, p_speakers: float | None) -> verdicts.Part:
    return verdicts.Part("difference", Contrast(effect=effect, p_t=p_t, p_speakers=p_speakers))


@pytest.mark.parametrize(
    ("parts", "verdict", "p"),
    [
        ([(0.1, 0.04, 0.01)], "holds", 0.04),
        ([(0.1, 0.06, 0.01)], "not decided", 0.06),  # either test alone is not enough
        ([(0.1, 0.01, 0.06)], "not decided", 0.06),
        ([(-0.1, 0.04, 0.01)], "does not hold", 0.04),
        ([(0.1, None, 0.01)], "holds", 0.01),
        ([(0.1, None, None)], "not decided", None),
        ([(0.1, 0.01, 0.01), (0.2, 0.2, 0.01)], "not decided", 0.2),  # all must be above zero
        ([(0.1, 0.01, 0.01), (-0.2, 0.02, 0.01)], "does not hold", 0.04),  # p times two
        ([(0.1, 0.01, 0.01), (-0.2, 0.03, 0.01)], "not decided", 0.06),
    ],
)
def test_verdicts_follow_the_rules_that_the_report_prints(parts, verdict, p):
    finding = verdicts.judge("lstm", "study", [make_part(*part) for part in parts])
    assert finding.verdict == verdict
    assert finding.p == (p if p is None else pytest.approx(p))


@pytest.mark.parametrize("sign", [1, -1])
def test_of_equally_sure_differences_the_one_that_supports_least_is_shown(sign):
    parts = [make_part(sign * effect, None, 2e-4) for effect in (0.3, 0.1, 0.2)]
    finding = verdicts.judge("chance", "emobox6", parts)
    assert finding.weakest is min(parts, key=lambda part: part.contrast.effect)


def test_systems_are_compared_on_the_folds_that_both_have(tmp_path):
    systems = {m: make_system(m, s) for m, s in (("lstm", 0.3), ("cnn_lstm", 0.6))}
    results = write_grid(tmp_path, systems, protocols=PROTOCOLS, seeds=[0], epochs=3)
    for cell in results["cells"]:
        if cell["system"] == "cnn_lstm" and cell["fold"] > 2:
            cell["status"] = "missing"
    evidence = load_evidence(tmp_path, results)
    terms = [Term(1, "cnn_lstm", "emobox6"), Term(-1, "lstm", "emobox6")]
    contrast = compute_contrast(evidence, terms)
    accuracy = {
        system: np.mean([c["accuracy"] for c in results["cells"]
                         if c["system"] == system and c["fold"] <= 2])
        for system in systems
    }  # fmt: skip
    assert contrast.effect == pytest.approx(accuracy["cnn_lstm"] - accuracy["lstm"])
    assert (contrast.n, contrast.folds) == (480, "folds 1, 2 of 6")


def test_a_contrast_between_groups_is_counted_clip_by_clip(tmp_path):
    results = write_grid(
        tmp_path, {"cnn": make_system("cnn", 0.4)}, protocols={"study": [1]}, seeds=[3], epochs=3
    )
    terms = [Term(1, "cnn", "study", ("gender", "female", "emotion!=", "neutral")),
             Term(-1, "cnn", "study", ("gender", "male", "emotion!=", "neutral"))]  # fmt: skip
    contrast = compute_contrast(load_evidence(tmp_path, results), terms)
    with (tmp_path / "cells" / "cnn-study-1-3" / "predictions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["emotion"] != "neutral"]
    right = {
        gender: np.mean([r["emotion"] == r["predicted"] for r in rows if r["gender"] == gender])
        for gender in ("female", "male")
    }
    assert contrast.effect == pytest.approx(right["female"] - right["male"], abs=1e-12)


AUGMENTED: dict[str, Any] = {"model.name": "cnn_lstm", "augment.enabled": True}


def test_augmentation_is_judged_for_each_setting_that_the_study_leaves_open(tmp_path):
    systems = {
        "plain": make_system("cnn_lstm", 0.6),
        "first": AUGMENTED | {"skill": 0.3, "calm": 0.8},
        "second": AUGMENTED | {"skill": 0.8, "augment.normalise": "peak"},
        "third": AUGMENTED | {"skill": 0.3, "augment.when": "once"},
    }
    results = write_grid(tmp_path, systems, protocols=PROTOCOLS, seeds=range(4), epochs=3)
    evidence = load_evidence(tmp_path, results)
    found = {(v.normalise, v.when): v for v in claims.judge_variants(evidence, "emobox6")}
    verdicts = {key: variant.findings["augmentation"].verdict for key, variant in found.items()}
    assert verdicts == {
        ("none", "epoch"): "holds", ("none", "once"): "holds",
        ("peak", "epoch"): "does not hold", ("peak", "once"): "not decided",
    }  # fmt: skip
    assert found["none", "epoch"].row == "first"
    assert found["none", "epoch"].findings["calm"].verdict == "holds"
    assert found["peak", "once"].findings["augmentation"].reason == "not run"
    whole = {f.key: f for f in claims.judge_all(evidence)}["augmentation"]
    assert whole.verdict == "not decided"
    assert whole.reason == "of 3 settings of augmentation: holds in 2, does not hold in 1"


def test_what_a_claim_about_augmentation_lacks_is_called_by_its_row(tmp_path):
    systems = {"plain": make_system("cnn_lstm", 0.6), "first": AUGMENTED | {"skill": 0.3}}
    results = write_grid(tmp_path, systems, protocols={"study": [1]}, seeds=[0], epochs=1)
    results["cells"][0] |= {"status": "missing"}
    found = {f.key: f for f in claims.judge_all(load_evidence(tmp_path, results))}
    assert found["augmentation"].reason == "plain was not run"


def test_more_epochs_are_compared_with_their_twin_and_else_the_slope_is_taken(tmp_path):
    systems = {
        "cnn": make_system("cnn", 0.3),
        "longer": make_system("cnn", 0.6) | {"train.epochs": 50},
    }
    finding = judge(tmp_path / "twin", systems)["epochs"]
    assert finding.weakest.name == "longer \u2212 cnn"
    assert finding.verdict == "holds"
    finding = judge(tmp_path / "slope", {"cnn": systems["cnn"]}, epochs=10)["epochs"]
    assert "validation loss" in finding.reason
    assert finding.weakest.contrast.effect > 0  # losses fall in what is made by hand


def test_roles_are_found_by_settings_and_the_plain_name_wins():
    settings = {
        "cnn_lstm_50": {"model.name": "cnn_lstm", "train.epochs": 50},
        "cnn_lstm": {"model.name": "cnn_lstm", "train.epochs": 10},
        "other": {"model.name": "cnn_lstm", "train.epochs": 10, "model.mask_padding": True},
        "wav2vec2_small_random": {"model.name": "wav2vec2", "backbone.pretrained": False},
        "wav2vec2_small": {"model.name": "wav2vec2"},
    }
    roles = find_roles(settings)
    assert roles.plain == {"cnn_lstm": "cnn_lstm", "wav2vec2": "wav2vec2_small"}
    assert roles.longer == {"cnn_lstm": "cnn_lstm_50"}


def test_known_speakers_are_worth_what_was_planted(tmp_path):
    from ser_jax.report.analysis import analyse
    from ser_jax.report.result_sections import compute_leakage

    systems = {"cnn": make_system("cnn", 0.4, leak=0.2), "lstm": make_system("lstm", 0.4, leak=0)}
    write_grid(
        tmp_path, systems, protocols={"study": [1], **PROTOCOLS},
        seeds={"study": range(5), "emobox6": [0]}, epochs=3,
    )  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    found = dict(compute_leakage(analyse(load_evidence(tmp_path, results)))["emobox6"])
    assert found["cnn"].effect == pytest.approx(0.2 * 0.85, abs=0.05)
    interval = found["cnn"].over_speakers
    assert interval is not None
    assert interval.low > 0
    interval = found["lstm"].over_speakers
    assert interval is not None
    assert interval.low < 0 < interval.high
    assert found["cnn"].p_t is None  # seeds 0 to 4 against seed 0 are no pairs
