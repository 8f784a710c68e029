"""report.html: needs no other file, says what is missing, and is sound in a real browser."""

import csv
import json
import re
import shutil
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import ser_jax
from ser_jax.report import page as pages
from ser_jax.report.analysis import analyse
from ser_jax.report.claims import CLAIMS
from ser_jax.report.evidence_files import load_evidence
from ser_jax.report.figure_sections import draw_overviews
from ser_jax.report.grid_report import make_report
from ser_jax.report.rebuild import rebuild
from tests.browser import find_browser, open_browser
from tests.handmade import LABELS, write_grid, write_results

SYSTEMS: dict[str, dict[str, Any]] = {
    "lstm": {"model.name": "lstm", "skill": 0.3},
    "cnn_lstm": {"model.name": "cnn_lstm", "skill": 0.55},
}
PROTOCOLS = {"study": [1], "emobox6": range(1, 7)}


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """A finished grid and its report; not to be changed."""
    folder = tmp_path_factory.mktemp("study") / "grid"
    seeds = {"study": [0, 1, 2], "emobox6": [0]}
    write_grid(folder, SYSTEMS, protocols=PROTOCOLS, seeds=seeds, epochs=4)
    rebuild(folder)
    return folder


@pytest.fixture
def copy(grid, tmp_path) -> Path:
    leave = shutil.ignore_patterns("figures", "tables", "report.*")
    return Path(shutil.copytree(grid, tmp_path / "grid", ignore=leave))


class Reader(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_refers_to_nothing_outside_itself(grid):
    page = (grid / "report.html").read_text()
    elements = Reader(page).elements
    assert not {tag for tag, _ in elements} & {"script", "iframe", "object", "embed"}
    links = [(tag, a.get("href") or a.get("src") or "") for tag, a in elements]
    assert {link for tag, link in links if tag == "a"} == {
        f"#{a['id']}" for tag, a in elements if tag == "section" and a["id"] != "summary"
    }  # the table of contents, and no link leads astray
    assert all(link.startswith("data:") for tag, link in links if tag in ("img", "link"))
    assert not re.findall(r"url\(|@import", page)


def test_every_picture_has_words_for_those_who_cannot_see_it(grid):
    elements = Reader((grid / "report.html").read_text()).elements
    images = [a for tag, a in elements if tag == "img"]
    assert len(images) == 14  # 2 systems x 2 protocols x (curves, confusion), 3 groups x 2
    assert all(len(image["alt"] or "") > 30 for image in images)
    marks = [a for tag, a in elements if tag == "svg" and a.get("aria-hidden") != "true"]
    drawn = [a for a in marks if "class" in a]
    assert drawn
    assert all(a.get("aria-label") for a in drawn)


def test_every_claim_and_every_system_has_its_place_in_page_and_markdown(grid):
    page = "".join(Reader((grid / "report.html").read_text()).words)
    markdown = (grid / "report.md").read_text()
    for text in (*CLAIMS.values(), *SYSTEMS, "p < 0.05", "0123abcd4567", "Some processor, 2 cores",
                 "0011223344556677", "ser-jax ablate --config configs/study.yaml"):  # fmt: skip
        assert text in page
        assert text in markdown
    for path in re.findall(r"\]\((figures/.*?)\)", markdown):
        assert (grid / path).exists()
        assert (grid / path).with_suffix(".svg").read_text().startswith("<?xml")


def load_table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_1_has_the_studys_figures_beside_the_means_of_the_cells(grid):
    cells = json.loads((grid / "results.json").read_text())["cells"]
    rows = {(row["system"], row["protocol"]): row for row in load_table(grid, "table_1")}
    accuracy = [c["accuracy"] for c in cells
                if (c["system"], c["protocol"]) == ("lstm", "study")]  # fmt: skip
    row = rows["lstm", "study"]
    assert float(row["accuracy"]) == pytest.approx(sum(accuracy) / 3)
    assert (row["study_accuracy"], row["study_weighted_f1"]) == ("0.4352", "0.4044")
    assert (row["interval_over"], row["seeds"], row["clips"]) == ("seeds", "0 1 2", "216")
    worst = min(accuracy)
    seed = accuracy.index(worst)  # cells stand in the order of seeds 0, 1 and 2
    assert (float(row["accuracy_worst"]), row["worst_seed"]) == (pytest.approx(worst), str(seed))
    assert f" | {worst:.3f} (seed {seed}) | " in (grid / "report.md").read_text()
    page = (grid / "report.html").read_text()
    assert f"{worst:.3f}<small>(seed {seed})</small>" in page
    assert f"worst seed {100 * worst:.1f} % (seed {seed})" in page  # of the line in words
    assert rows["lstm", "emobox6"]["interval_over"] == "speakers"
    assert f"{float(row['accuracy']):.3f} [" in (grid / "report.md").read_text()


def test_a_claim_says_what_its_seeds_would_detect_and_one_seed_says_nothing(grid):
    rows = {(row["claim"], row["protocol"]): row for row in load_table(grid, "claims")}
    points = 100 * float(rows["cnn_lstm", "study"]["detectable"])
    assert rows["cnn_lstm", "emobox6"]["detectable"] == ""
    text = f"{points:.1f} points with 3 seeds"
    (line,) = [
        line for line in (grid / "report.md").read_text().splitlines()
        if line.startswith("| CNN-LSTM beats LSTM. | study ")
    ]  # fmt: skip
    assert f" | {text} | 3 seeds, " in line
    page = (grid / "report.html").read_text()
    assert f"<p>detectable at power 0.8: {text}</p>" in page
    assert "with 1 seed<" not in page


def test_systems_stand_in_one_order_in_every_table_and_figure(grid):
    order = ["cnn_lstm", "lstm"]  # by accuracy, though lstm stands first in the grid
    for name in ("table_1", "leakage", "cost", "groups"):
        assert list(dict.fromkeys(row["system"] for row in load_table(grid, name))) == order, name
    with (grid / "results.csv").open(newline="") as file:
        assert list(dict.fromkeys(row["system"] for row in csv.DictReader(file))) == order
    page = (grid / "report.html").read_text()
    names = re.findall(r"figure-(?:curves|confusion)-(.*?)-", page)
    assert names == 4 * ["cnn_lstm", "lstm"]
    results = json.loads((grid / "results.json").read_text())
    figures = draw_overviews(analyse(load_evidence(grid, results)))
    for draw in figures.values():
        shown = [label.get_text() for label in draw().axes[0].get_yticklabels()]
        assert [text.split()[0] for text in shown] == order


def test_the_report_is_made_again_from_the_results_alone_byte_by_byte(grid, copy):
    rebuild(copy)
    for name in ("report.html", "report.md", "tables/claims.csv", "figures/systems.svg"):
        assert (copy / name).read_bytes() == (grid / name).read_bytes()


def make_text(folder: Path) -> str:
    """The report in Markdown, without drawing its figures."""
    results = json.loads((folder / "results.json").read_text())
    report = make_report(analyse(load_evidence(folder, results)))
    assert pages.to_html(report, lambda picture: "data:,")
    return pages.to_markdown(report)


def test_one_corpus_at_two_rates_is_compared(tmp_path):
    systems: dict[str, Any] = {
        "cnn": {}, "lstm": {}, "wide": {"data.rate_hz": 48000, "checksum": "ffff"},
    }  # fmt: skip
    results = write_grid(tmp_path, systems, protocols={"study": [1]}, epochs=1)
    evidence = load_evidence(tmp_path, results)
    assert (evidence.problems, evidence.n_done) == ([], 9)


def test_cells_that_are_missing_failed_or_foreign_are_named_and_the_report_is_made(copy):
    results = json.loads((copy / "results.json").read_text())
    cells = {(c["system"], c["protocol"], c["fold"], c["seed"]): c for c in results["cells"]}

    def find(system: str, protocol: str, fold: int, seed: int = 0) -> Path:
        return copy / "cells" / f"{system}-{protocol}-{fold}-{seed}"

    cells["lstm", "study", 1, 1] |= {"status": "missing"}
    cells["lstm", "study", 1, 2] |= {"status": "diverged", "reason": "the training loss is nan"}
    cells["cnn_lstm", "study", 1, 0] |= {"status": "failed", "reason": "killed"}
    cells["cnn_lstm", "study", 1, 1]["checksum"] = "ffff"
    write_results(copy, results)
    metrics = find("lstm", "emobox6", 1) / "metrics.json"
    metrics.write_text(metrics.read_text().replace("ab12cd34ef56", "000000000000"))
    (find("lstm", "emobox6", 2) / "metrics.json").write_text("{")
    (find("lstm", "emobox6", 3) / "predictions.csv").write_text("file,actor\nx,1\n")
    (find("lstm", "emobox6", 4) / "events.jsonl").write_text("{oops\n{}\n")
    shutil.rmtree(find("lstm", "emobox6", 5))
    shutil.copy(find("lstm", "emobox6", 4) / "predictions.csv", find("lstm", "emobox6", 6))
    find("strange", "study", 1).mkdir()

    text = make_text(copy)
    for said in (
        "lstm, study, seed 1: missing",
        "lstm, study, seed 2: diverged: the training loss is nan",
        "cnn_lstm, study, seed 0: failed: killed",
        "cnn_lstm, study, seed 1: foreign, trained on other recordings (checksum ffff",
        "lstm, emobox6, seed 0 fold 1: foreign, a run with other settings (identity 000000000000",
        "lstm, emobox6, seed 0 fold 2: metrics.json is no JSON object",
        "lstm, emobox6, seed 0 fold 3: predictions.csv: cannot be read",
        "lstm, emobox6, seed 0 fold 4: events.jsonl: line 1 is no JSON object",
        "lstm, emobox6, seed 0 fold 5: cells/lstm-emobox6-5-0 is gone",
        "lstm, emobox6, seed 0 fold 6: predictions.csv: foreign, counts other clips",
        "cells/strange-study-1-0: foreign, no cell of this grid",
    ):
        assert f"- {said}" in text
    assert "14 of 18 runs count" in text


def test_a_published_system_that_has_not_run_yet_is_left_out_of_its_figure(copy):
    results = json.loads((copy / "results.json").read_text())
    published = {"accuracy": 0.4, "weighted_f1": 0.4}
    for cell in results["cells"]:
        if cell["system"] == "lstm" and cell["protocol"] == "study":
            cell["status"] = "missing"
    write_results(copy, results | {"study": dict.fromkeys(SYSTEMS, published)})
    rebuild(copy)
    assert (copy / "figures" / "comparison-study.png").exists()


def test_runs_of_older_versions_are_reported_and_what_needs_their_clips_says_so(copy):
    for path in (copy / "cells").glob("*/predictions.csv"):
        path.unlink()
    text = make_text(copy)
    assert "predictions.csv: missing, as in runs of older versions" in text
    assert "needs predictions.csv of every cell" in text
    assert "lstm, study, seeds 0, 1, 2: predictions.csv" in text  # a line for all of a row


def test_a_grid_of_which_nothing_has_run_yet_has_a_report(copy):
    results = json.loads((copy / "results.json").read_text())
    place = ("system", "protocol", "fold", "seed")
    cells = [{key: cell[key] for key in place} | {"status": "missing"} for cell in results["cells"]]
    write_results(copy, {"cells": cells})
    text = make_text(copy)
    assert "0 of 18 runs count" in text
    assert "lstm, emobox6, seed 0 folds 1, 2, 3, 4, 5, 6: missing" in text


def test_names_are_text_and_never_markup(tmp_path):
    name = "<b>a</b>|`x`"
    write_grid(
        tmp_path, {name: {"model.name": "cnn"}}, protocols={"study": [1]}, seeds=[0], epochs=2
    )
    results = json.loads((tmp_path / "results.json").read_text())
    report = make_report(analyse(load_evidence(tmp_path, results)))
    body = pages.to_html(report, lambda picture: "data:,")
    assert "<b>a</b>" not in body.replace("<wbr>", "")
    assert "&lt;b&gt;a" in body
    for line in pages.to_markdown(report).splitlines():
        if line.startswith("| `<b>") and "Protocol" not in line:
            assert "\\|" in line


TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => {
  const r = e.getBoundingClientRect()
  return r.width && r.right > WIDTH + 1 && !e.closest('.scroll') && !e.closest('pre')
    && !e.closest('svg')
}).map(e => e.tagName + ' ' + e.className).slice(0, 5)"""
IMAGES = "[...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt.length > 30])"


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome")
def test_a_browser_loads_all_of_it_without_a_word_and_a_phone_shows_it_whole(grid, tmp_path):
    path = grid / "report.html"
    with open_browser(tmp_path / "profile") as page:
        for width in (1280, 390):
            page.open(path, width)
            assert page.evaluate(IMAGES) == [[True, True]] * 14
            # innerWidth grows with what overflows on a phone, so the width is given
            assert page.evaluate(TOO_WIDE.replace("WIDTH", str(width))) == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.find("Runtime.consoleAPICalled") + page.find("Log.entryAdded") == []
            assert page.find("Runtime.exceptionThrown") == []
            asked = [
                request["request"]["url"] for request in page.find("Network.requestWillBeSent")
            ]
            assert asked[0] == path.resolve().as_uri()
            assert all(url.startswith("data:") for url in asked[1:])
        assert len(page.evaluate("document.querySelector('table').innerText")) > 200
        assert LABELS[0] in page.evaluate("document.body.innerText")


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome")
def test_long_names_wrap(tmp_path):
    name = "a" * 100
    write_grid(tmp_path, {name: SYSTEMS["lstm"]}, protocols={"study": [1]}, seeds=[0], epochs=2)
    results = json.loads((tmp_path / "results.json").read_text())
    report = make_report(analyse(load_evidence(tmp_path, results)))
    path = tmp_path / "report.html"
    path.write_text(pages.to_html(report, lambda picture: "data:,"))
    heads = "[...document.querySelectorAll('tbody th, .forest .name')]"
    with open_browser(tmp_path / "profile") as page:
        for width in (360, 1280):
            page.open(path, width)
            assert page.evaluate(f"{heads}.some(e => e.innerText.includes('{name}'))")
            assert max(page.evaluate(f"{heads}.map(e => e.scrollWidth)")) < 450
            assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome")
def test_the_browser_test_would_see_a_fault(tmp_path):
    page_file = tmp_path / "bad.html"
    page_file.write_text(
        '<!DOCTYPE html><meta name="viewport" content="width=device-width">'
        '<link rel=icon href="data:,"><body><img src="gone.png" alt="">'
        '<div style="width:900px">wide</div><script>console.error("x")</script>'
    )
    with open_browser(tmp_path / "profile") as page:
        page.open(page_file, 390)
        assert page.evaluate(IMAGES) == [[False, False]]
        assert page.evaluate(TOO_WIDE.replace("WIDTH", "390"))
        assert page.find("Runtime.consoleAPICalled")
        assert any(
            "gone.png" in r["request"]["url"] for r in page.find("Network.requestWillBeSent")
        )


def test_validation_stands_beside_the_test_where_runs_have_recorded_it(grid, copy):
    assert not (grid / "tables" / "validation.csv").exists()
    path = copy / "results.json"
    results = json.loads(path.read_text())
    for cell in results["cells"]:
        cell["val_accuracy"] = 0.25 + cell["seed"] / 4
    path.write_text(json.dumps(results))
    rebuild(copy)
    rows = {(row["system"], row["protocol"]): row for row in load_table(copy, "validation")}
    assert float(rows["lstm", "study"]["val_accuracy"]) == pytest.approx(0.5)
    assert rows["lstm", "emobox6"]["runs"] == "6"
    accuracies = [
        cell["accuracy"] for cell in results["cells"]
        if (cell["system"], cell["protocol"]) == ("lstm", "study")
    ]  # fmt: skip
    mean = sum(accuracies) / len(accuracies)
    assert float(rows["lstm", "study"]["test_accuracy"]) == pytest.approx(mean)
    assert "Validation beside test" in (copy / "report.md").read_text()


def test_every_template_is_packaged():
    root = Path(ser_jax.__file__).parent
    project = tomllib.loads((root.parent / "pyproject.toml").read_text())
    declared = project["tool"]["setuptools"]["package-data"]
    found = {
        path for package, patterns in declared.items() for pattern in patterns
        for path in root.parent.joinpath(*package.split(".")).glob(pattern)
    }  # fmt: skip
    others = {p for p in root.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert found == others
    assert len(others) >= 4
