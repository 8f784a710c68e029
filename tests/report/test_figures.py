"""Figures show the numbers of their results, in one order, and names stay legible."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from sklearn.metrics import confusion_matrix

from ser_jax.report import figures
from ser_jax.report.analysis import Analysis, analyse
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.figure_sections import draw_overviews, make_confusions, make_curves
from ser_jax.report.group_sections import make_groups
from ser_jax.statistics import Interval, Mark
from tests.handmade import LABELS, STUDY, write_grid

LONG = "cnn_lstm_augmented_peak_once"
SYSTEMS: dict[str, dict[str, Any]] = {
    "cnn": {"model.name": "cnn", "skill": 0.3},
    LONG: {"model.name": "cnn_lstm", "augment.enabled": True, "skill": 0.5},
    "lstm": {"model.name": "lstm", "skill": 0.4},
}


@pytest.fixture(scope="module")
def analysis(tmp_path_factory) -> Analysis:
    folder = tmp_path_factory.mktemp("grid")
    write_grid(folder, SYSTEMS, protocols={"study": [1], "emobox6": range(1, 7)}, epochs=3)
    results = json.loads((folder / "results.json").read_text())
    return analyse(load_evidence(folder, results))


def list_dots(figure: Any) -> list[list[float]]:
    """Shares of the dots and diamonds of a forest, by series."""
    found = [
        c.get_offsets() for c in figure.axes[0].collections if type(c).__name__ == "PathCollection"
    ]
    return [np.asarray(xy)[:, 0].tolist() for xy in found]


def list_bars(figure: Any) -> list[list[float]]:
    """Ends of the horizontal lines of a forest."""
    lines = [c for c in figure.axes[0].collections if type(c).__name__ == "LineCollection"]
    return [segment[:, 0].tolist() for line in lines for segment in line.get_segments()]


def list_rows(figure: Any) -> list[str]:
    """Names of a forest's rows, from top to bottom."""
    texts = [text.get_text().replace("\n", "") for text in figure.axes[0].get_yticklabels()]
    return texts if figure.axes[0].yaxis_inverted() else texts[::-1]


def make_events(values: Sequence[float | None]) -> list[dict[str, Any]]:
    names = [f"{part}_{figure}" for part in ("train", "val") for figure in ("loss", "accuracy")]
    epochs = [{"event": "epoch", **dict.fromkeys(names, value)} for value in values]
    return [{"event": "start"}, *epochs, {"event": "end"}]


def test_a_confusion_matrix_shows_scikit_learns_percentages_and_the_clips_of_each_class():
    rng = np.random.default_rng(0)
    true_B, pred_B = rng.integers(0, 3, (2, 500))
    figure = figures.draw_confusion(confusion_matrix(true_B, pred_B), ["a", "b", "c"], "title")
    expected = confusion_matrix(true_B, pred_B, normalize="true")
    shown = [int(text.get_text()) for text in figure.axes[0].texts]
    assert shown == [round(100 * share) for share in expected.flat]
    clips = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert clips == [f"{name} ({n})" for name, n in zip("abc", np.bincount(true_B), strict=True)]


def test_what_is_never_predicted_is_left_blank_and_an_absent_class_divides_by_nothing():
    figure = figures.draw_confusion([[4, 0], [0, 0]], ["a", "b"], "title")
    assert [text.get_text() for text in figure.axes[0].texts] == ["100"]


def test_curves_are_means_over_the_runs_that_reached_an_epoch():
    runs = [make_events([0.2, 0.4, 0.6]), make_events([0.4, None]), make_events([0.3, 0.8])]
    figure = figures.draw_curves([figures.Panel("cnn", runs, "accuracy")], "title")
    ax = figure.axes[0]
    for line in ax.lines:
        assert np.asarray(line.get_ydata()) == pytest.approx([0.3, 0.6, 0.6])
    band: Any = ax.collections[0].get_paths()[0].vertices
    for epoch, values in ((1, [0.2, 0.4, 0.3]), (2, [0.4, 0.8])):
        ends = {round(float(y), 9) for x, y in band if x == epoch}
        mean, std = np.mean(values), np.std(values, ddof=1)
        assert ends == {round(mean - std, 9), round(mean + std, 9)}


def test_a_single_epoch_is_marked_by_dots():
    ax = figures.draw_curves([figures.Panel("cnn", [make_events([0.5])], "loss")], "title").axes[0]
    assert [line.get_marker() for line in ax.lines] == ["o", "o"]
    assert [line.get_linestyle() for line in ax.lines] == ["--", "-"]


def test_a_run_without_any_known_value_has_a_panel():
    figure = figures.draw_curves([figures.Panel("cnn", [make_events([None])], "loss")], "title")
    figures.save_figure(figure, Path("/dev/null"), ())
    assert figure.axes[0].get_title() == "cnn"


def test_ten_epochs_fill_their_panel_beside_a_hundred():
    panels = [
        figures.Panel("short", [make_events([0.5] * 10)], "loss"),
        figures.Panel("long", [make_events([0.5] * 99 + [2.5])], "loss"),
        figures.Panel("third", [make_events([0.5] * 10)], "loss"),
    ]
    axes = figures.draw_curves(panels, "title").axes
    assert [round(ax.get_xlim()[1]) for ax in axes[:3]] == [10, 105, 10]
    assert len({ax.get_ylim() for ax in axes[:3]}) == 1
    assert axes[0].get_ylim()[1] > 2.5  # nothing is cut off
    assert [ax.get_xlabel() for ax in axes] == ["", "epoch", "epoch", ""]


def test_a_forest_shows_means_intervals_numbers_and_what_was_published():
    marks = {"a": Mark(0.5, Interval(0.4, 0.62)), "b": Mark(0.25, None)}
    figure = figures.draw_forest(
        {"a": "first", "b": "second", "c": "third"}, {"one": marks, "two": {"a": Mark(0.3, None)}},
        "title", 0.125, {"one": {"b": 0.35}},
    )  # fmt: skip
    assert list_rows(figure) == ["first", "second", "third"]
    assert list_dots(figure) == [[0.5, 0.25], [0.35], [0.3]]
    assert list_bars(figure) == [[0.4, 0.62]]
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert numbers == ["50.0", "25.0", "30.0", "no result"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["one", "published by the study", "two", "chance"]


def test_the_overview_shows_the_scores_and_the_studys_own(analysis):
    drawn = draw_overviews(analysis)
    dots = list_dots(drawn["systems"]())
    for protocol, shown in (("study", dots[0]), ("emobox6", dots[2])):
        scores = [analysis.scores[system, protocol] for system in analysis.ranking]
        assert shown == [score.marks["accuracy"].mean for score in scores]
    assert sorted(dots[1]) == sorted(figures["accuracy"] for figures in STUDY.values())
    compared = list_dots(drawn["comparison-emobox6"]())
    for name, shown in zip(("accuracy", "weighted_f1"), compared, strict=True):
        scores = [analysis.scores[system, "emobox6"] for system in analysis.ranking]
        assert shown == [score.marks[name].mean for score in scores]


def test_systems_are_ordered_alike_in_every_figure(analysis):
    drawn = draw_overviews(analysis) | make_groups(analysis).figures
    assert analysis.ranking == [LONG, "lstm", "cnn"]
    for name, draw in drawn.items():
        rows = [row.partition(" (")[0].partition("(")[0] for row in list_rows(draw())]
        assert rows == analysis.ranking, name
    others = make_curves(analysis).figures | make_confusions(analysis).figures
    for kind in ("curves", "confusion"):
        names = [name for name in others if name.startswith(kind) and name.endswith("study")]
        assert names == [f"{kind}-{system}-study" for system in analysis.ranking]
    panels = [ax.get_title().replace("\n", "") for ax in others["loss-study"]().axes[:3]]
    assert [title.partition(" (")[0].partition("(")[0] for title in panels] == analysis.ranking


def test_validation_clips_that_were_trained_on_have_no_curve(tmp_path):
    systems: dict[str, Any] = {"cnn": {"skill": 0.5}, "best": {"skill": 0.6}}
    systems["best"]["data.train_on_validation"] = True
    results = write_grid(tmp_path, systems, protocols={"study": [1]}, epochs=3)
    section = make_curves(analyse(load_evidence(tmp_path, results)))
    shown = {
        system: np.isfinite(line.get_ydata()).any()
        for system in systems
        for line in section.figures[f"curves-{system}-study"]().axes[0].lines
        if line.get_label() == "validation"
    }
    assert shown == {"cnn": True}
    assert "trained on their validation clips" in section.text[0]


def find_overlaps(figure: Any) -> list[str]:
    """Texts of a figure that lie on each other or reach over its edge."""
    FigureCanvasAgg(figure).draw()
    ticks = {text for ax in figure.axes for text in ax.get_xticklabels()}  # some lie beyond the end
    texts = [
        text
        for text in figure.findobj(Text)
        if text.get_text() and text.get_visible() and text not in ticks and not text.get_rotation()
    ]
    boxes = {text: text.get_window_extent() for text in texts}
    page = figure.bbox.padded(1)
    out = [t.get_text() for t, box in boxes.items() if not page.fully_containsx(box.x1)]
    out += [t.get_text() for t, box in boxes.items() if not page.fully_containsx(box.x0)]
    pairs = itertools.combinations(boxes, 2)
    return out + [
        f"{one.get_text()} / {other.get_text()}"
        for one, other in pairs
        if boxes[one].padded(-1).overlaps(boxes[other].padded(-1))
    ]


NAMES = [LONG, "wav2vec2_small_random train.learning_rate=0.0001 train.batch_size=256", "x" * 80,
         "cnn", "$2_3$"]  # fmt: skip


def test_long_names_and_titles_overlap_nothing():
    rows = {name: name for name in NAMES}
    marks = {name: Mark(0.5, Interval(0.4, 0.6)) for name in NAMES}
    forest = figures.draw_forest(rows, {"study": marks, "emobox6": marks}, " ".join(NAMES), 0.125)
    assert find_overlaps(forest) == []
    assert [row.replace("…", "")[:20] for row in list_rows(forest)] == [n[:20] for n in NAMES]
    joined = figures.draw_forest(rows, {"study": marks}, "title", 0.125, joined=True)
    assert find_overlaps(joined) == []
    runs = [make_events([0.2, 0.4, 0.6])]
    panels = [figures.Panel(f"{name} (5 runs)", runs, "accuracy") for name in NAMES]
    assert find_overlaps(figures.draw_curves(panels, " ".join(NAMES))) == []
    for labels in (LABELS, NAMES):
        n = len(labels)
        confusion = figures.draw_confusion(np.full((n, n), 12345), labels, " ".join(NAMES))
        assert find_overlaps(confusion) == []


def test_the_test_of_overlaps_would_see_one():
    figure = figures.draw_confusion(np.ones((2, 2)), ["a", "b"], "title")
    figure.text(0.02, 0.96, "on the title")
    figure.text(0.98, 0.1, "over the edge")
    assert find_overlaps(figure) == ["over the edge", "title / on the title"]


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = figures.draw_confusion(np.ones((2, 2)), ["a", "b"], "title")
    written = figures.save_figure(figure, tmp_path / "a.b")
    assert [path.name for path in written] == ["a.b.png", "a.b.svg"]
    assert dict(matplotlib.rcParams) == before
