"""One corpus against another: which clips, which classes, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named_corpora import RATE_HZ, TINY, write_corpus

from ser_jax.api import ablate, train
from ser_jax.cli.commands import main
from ser_jax.config import AblationConfig, Config, DataConfig, override
from ser_jax.data.cross_corpus import list_corpora, name_pair
from ser_jax.data.protocols import check_protocols
from ser_jax.data.splits import check_split, count_folds, draw_split, make_split
from ser_jax.data.store import load_corpus, load_facts
from ser_jax.errors import UserError, warn_once
from ser_jax.grid.cells import list_cells
from ser_jax.grid.schedule import choose_cells
from ser_jax.inference.evaluate import measure
from ser_jax.report.run_report import name_split
from ser_jax.run.run_dir import default_run_dir
from tests.tolerance import tolerance

NAMES = ("emodb", "ravdess", "savee")  # sorted
# What their documentation has in common: neither bored, nor calm, nor surprised.
COMMON = ("neutral", "happy", "sad", "angry", "fearful", "disgust")
PAIRS = [(source, target) for source in NAMES for target in NAMES]
N_OF_COMMON = {"emodb": 6 * 6, "ravdess": 6 * 6, "savee": 4 * 6}  # speakers x classes


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, str]:
    """A folder per corpus, which must not be written to."""
    names = (*NAMES, "tess")
    return {name: str(write_corpus(tmp_path_factory.mktemp(name), name)) for name in names}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("store"))


@pytest.fixture
def make_data(roots, store):
    def make(*names: str, **changes) -> DataConfig:
        return DataConfig(**{
            "corpus": "joined", "roots": {name: roots[name] for name in names or NAMES},
            "protocol": "cross_corpus", "rate_hz": RATE_HZ, "store_dir": store, **changes,
        })  # fmt: skip

    return make


# Clips.


def test_folds_are_the_ordered_pairs_by_name(make_data):
    data = make_data(roots={"savee": "x", "ravdess": None, "emodb": "y"})
    assert count_folds("cross_corpus", n_corpora=3) == 9
    named = [name_pair(dataclasses.replace(data, fold=fold)) for fold in range(1, 10)]
    assert named == [f"{source} -> {target}" for source, target in PAIRS]
    assert name_pair(dataclasses.replace(data, protocol="speakers")) == ""


@pytest.mark.parametrize("fold", [2, 3, 4, 6, 7, 8])
def test_across_corpora_all_of_one_is_tested_and_the_third_is_not_used(make_data, fold):
    data = make_data(fold=fold)
    corpus = load_corpus(data)
    source, target = PAIRS[fold - 1]
    split = draw_split(data, 0, corpus)
    corpus_B = corpus.attributes["corpus"]
    np.testing.assert_array_equal(split.test, np.flatnonzero(corpus_B == target))
    known = np.sort(np.concatenate([split.train, split.val]))
    np.testing.assert_array_equal(known, np.flatnonzero(corpus_B == source))
    train, val = (set(corpus.actor_B[index].tolist()) for index in (split.train, split.val))
    assert not train & val
    assert len(val) == 1  # of 4 or 6 speakers, nearest to 15 %


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("place", range(3))
def test_within_a_corpus_the_parts_are_those_of_its_speakers_alone(make_data, roots, place, seed):
    joined, name = make_data(fold=4 * place + 1), NAMES[place]
    alone = dataclasses.replace(
        joined, corpus=name, root=roots[name], roots={}, protocol="speakers", fold=1,
        labels=dict.fromkeys(["calm", "boredom", "surprise", "surprised"]),
    )  # fmt: skip
    found = []
    for data, prefix in ((joined, f"{name}/"), (alone, "")):
        corpus = load_facts(data)
        # As the names within their corpus.
        split = draw_split(data, seed, corpus)
        found.append([
            [corpus.file_names[clip].removeprefix(prefix) for clip in index]
            for index in (split.train, split.val, split.test)
        ])  # fmt: skip
    assert found[0] == found[1]


@st.composite
def corpora(draw):
    """Speakers, classes and corpora of clips in any order."""
    n_corpora = draw(st.integers(2, 4))
    speakers = [draw(st.integers(3, 9)) for _ in range(n_corpora)]
    corpus_of = np.repeat(np.arange(n_corpora), speakers)
    clips = [draw(st.integers(6, 20)) for _ in corpus_of]
    actor_B = np.repeat(np.arange(1, len(corpus_of) + 1), clips)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(actor_B))
    actor_B = actor_B[order]
    names = np.array([f"c{number}" for number in range(n_corpora)])
    return actor_B, np.arange(len(actor_B)) % 3, names[corpus_of[actor_B - 1]]


@settings(max_examples=25, deadline=None)
@given(corpora(), st.integers(0, 5), st.data())
def test_no_speaker_is_in_two_parts_and_no_clip_of_the_pair_is_lost(made, seed, data):
    actor_B, emotion_B, corpus_B = made
    names = np.unique(corpus_B)
    fold = data.draw(st.integers(1, len(names) ** 2))
    split = make_split("cross_corpus", fold, seed, emotion_B, actor_B, corpus_B=corpus_B)
    source, target = names[(fold - 1) // len(names)], names[(fold - 1) % len(names)]
    parts = [split.train, split.val, split.test]
    speakers = [set(actor_B[index].tolist()) for index in parts]
    assert len(set.union(*speakers)) == sum(map(len, speakers))
    np.testing.assert_array_equal(
        np.sort(np.concatenate(parts)), np.flatnonzero(np.isin(corpus_B, (source, target)))
    )
    for index, own in zip(parts, (source, source, target), strict=True):
        assert set(corpus_B[index].tolist()) == {str(own)}


def break_third(split, corpus_B):
    """A clip of a third corpus in training."""
    return dataclasses.replace(split, train=np.append(split.train, np.argmax(corpus_B == "savee")))


def break_swap(split, corpus_B):
    """Training and test exchanged."""
    del corpus_B
    return dataclasses.replace(split, train=split.test, test=split.train)


def break_lost(split, corpus_B):
    del corpus_B
    return dataclasses.replace(split, test=split.test[1:])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_third, r"clip \[\d+\] of training is not of emodb"),
        (break_swap, "of training is not of emodb"),
        (break_lost, "is used in no part"),
    ],
)
def test_the_check_allows_absent_clips_of_a_third_corpus_and_nothing_else(make_data, damage, said):
    data = make_data(fold=2)
    corpus = load_corpus(data)
    corpus_B = np.array(list_corpora(corpus.file_names))
    split = draw_split(data, 0, corpus)
    check_split(split, corpus.actor_B, corpus_B)
    with pytest.raises(UserError, match=said):
        check_split(damage(split, corpus_B), corpus.actor_B, corpus_B)
    other = dataclasses.replace(split, protocol="speakers")
    with pytest.raises(UserError, match="is used in no part"):
        check_split(other, corpus.actor_B, corpus_B)


def test_sub_corpora_of_a_manifest_are_one_corpus(tmp_path, make_data, roots):
    rows = ["path,emotion,speaker,corpus"]
    for number, speaker in enumerate(("03", "08", "09", "10", "11")):
        for letter, word in (("W", "anger"), ("F", "joy"), ("T", "sadness")):
            path = f"{roots['emodb']}/wav/{speaker}a01{letter}{'a' if letter == 'F' else ''}.wav"
            rows.append(f"{path},{word},{speaker},part {number % 2}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    both = {"manifest": str(tmp_path / "mine.csv"), "savee": roots["savee"]}
    data = make_data(roots=both, fold=2)
    assert name_pair(data) == "mine -> savee"
    corpus = load_corpus(data)
    split = draw_split(data, 0, corpus)
    assert len(split.train) + len(split.val) == 15
    assert set(corpus.attributes["corpus"][split.train].tolist()) == {"part 0", "part 1"}


# Classes.


def test_only_classes_that_every_corpus_has_remain_and_one_line_says_so(make_data, capsys):
    data = make_data()
    corpus = load_corpus(data)
    assert corpus.labels == COMMON
    for name, count in N_OF_COMMON.items():
        assert (corpus.attributes["corpus"] == name).sum() == count
    warn_once.cache_clear()
    check_protocols([(dataclasses.replace(data, fold=fold), 0) for fold in range(1, 10)])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    # EmoDB's six bored, RAVDESS' six calm, six and four surprised.
    assert "data.protocol=cross_corpus: 22 clips of calm (6), surprised (10) and bored (6)" in line
    whole = load_corpus(dataclasses.replace(data, protocol="speakers"))
    assert len(whole.file_names) == len(corpus.file_names) + 22
    assert whole.checksum != corpus.checksum


def test_merged_words_are_compared_after_the_merger(make_data):
    merged = {"calm": "neutral", "boredom": "neutral", "surprised": None}
    corpus = load_corpus(make_data(labels=merged))
    assert corpus.labels == COMMON
    counts = {name: int((corpus.attributes["corpus"] == name).sum()) for name in NAMES}
    assert counts == {"emodb": 6 * 7, "ravdess": 6 * 7, "savee": 4 * 6}


def test_corpora_without_two_common_classes_are_refused(make_data):
    few = {word: None for word in ("happy", "sad", "angry", "fearful", "disgust")}
    data = make_data("ravdess", "savee", labels={**few, "surprised": None})
    for act in (load_corpus, lambda data: check_protocols([(data, 0)])):
        with pytest.raises(UserError, match="two classes that all corpora have, and there is one"):
            act(data)


# What is refused.


@pytest.mark.parametrize("argv", [["train"], ["ablate", "--protocols", "[cross_corpus]"]])
def test_a_single_corpus_is_refused_in_one_line(argv, capsys):
    own = ["--data.protocol", "cross_corpus"] if argv == ["train"] else ["--systems", "{a: {}}"]
    assert main([*argv, *own]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.protocol=cross_corpus: requires data.corpus=joined" in line


def test_other_protocols_and_absent_folds_are_refused(make_data):
    grid = {"data": make_data(), "systems": {"a": {}}}
    with pytest.raises(UserError, match="cross_corpus keeps only classes"):
        AblationConfig(**grid, protocols=("speakers", "cross_corpus"))
    with pytest.raises(UserError, match=r"folds=\[10\]: cross_corpus has 1 to 9"):
        list_cells(AblationConfig(**grid, protocols=("cross_corpus",), folds=(10,)))
    with pytest.raises(UserError, match=r"data.fold=10: data.protocol=cross_corpus has folds 1 to"):
        check_protocols([(make_data(fold=10), 0)])


def test_two_speakers_train_for_another_corpus_but_not_for_their_own(make_data):
    pair = ("savee", "tess")
    for fold in (1, 2, 3):
        check_protocols([(make_data(*pair, fold=fold), 0)])
    said = r"data.fold=4 \(tess -> tess\): needs at least 3 speakers of tess, and there are 2; add"
    with pytest.raises(UserError, match=said):
        check_protocols([(make_data(*pair, fold=4), 0)])


def test_a_warning_counts_against_the_corpus_that_trains(make_data, capsys):
    check_protocols([(make_data("ravdess", "savee", fold=fold), 0) for fold in (2, 3)])
    said = capsys.readouterr().err
    # RAVDESS' one validation speaker is a man or a woman; SAVEE has no women to lack.
    assert said.count("speakers in validation; take another data.split_seed") == 1
    assert "data.fold=2" in said
    assert "in test" not in said


# Runs.


@pytest.fixture(scope="module")
def grid(roots, store, tmp_path_factory):
    """A finished grid of two corpora, and its settings."""
    parts = {name: roots[name] for name in ("savee", "emodb")}
    data = DataConfig(corpus="joined", roots=parts, rate_hz=RATE_HZ, store_dir=store)
    keys = {"out": str(tmp_path_factory.mktemp("grid") / "out"), "workers": 1, "seeds": (0, 1),
            "protocols": ("cross_corpus",), "systems": {"tiny": {}}}  # fmt: skip
    config = override(AblationConfig(data=data), TINY | keys)
    return config, ablate(config)


def test_a_grid_runs_every_pair_names_it_and_is_resumed(grid, monkeypatch):
    config, results = grid
    names = ["emodb -> emodb", "emodb -> savee", "savee -> emodb", "savee -> savee"]
    assert [cell["fold_name"] for cell in results["cells"]] == names * 2
    assert all(cell["status"] == "done" for cell in results["cells"])
    assert results["labels"] == list(COMMON)
    started = []

    def run(config, cells, manifest):
        del config, manifest
        started.extend(cells)
        yield from ()

    monkeypatch.setattr("ser_jax.grid.ablate._run_cells", run)
    assert ablate(config)["cells"] == results["cells"]
    assert not started


def test_a_cell_that_is_gone_is_run_again_and_called_by_its_pair(grid, capsys):
    config, results = grid
    (cell,) = [c for c in list_cells(config) if (c.fold, c.seed) == (2, 1)]
    (cell.run_dir / "metrics.json").unlink()
    again = ablate(config)
    assert "tiny  cross_corpus fold 2 (emodb -> savee)  seed 1" in capsys.readouterr().out
    confusions = [[cell["confusion"] for cell in tree["cells"]] for tree in (again, results)]
    assert confusions[0] == confusions[1]


def test_a_run_is_called_by_its_pair_and_is_evaluated_on_its_own_test(grid, tmp_path):
    config, results = grid
    data = dataclasses.replace(config.data, protocol="cross_corpus", fold=3)
    run = override(Config(data=data), TINY | {"run_dir": str(tmp_path / "run")})
    metrics = train(run, observe=lambda event: None)
    (cell,) = [c for c in results["cells"] if (c["fold"], c["seed"]) == (3, 0)]
    assert metrics["test"]["confusion"] == cell["confusion"]  # one command or the other
    assert name_split(metrics) == "cross_corpus split, savee -> emodb"
    assert all(speaker.startswith("emodb/") for speaker in metrics["test_speakers"])
    assert "emodb+savee-cross_corpus-3-seed0-" in default_run_dir(run).name
    found = measure(tmp_path / "run")
    assert found.report["confusion"] == metrics["test"]["confusion"]
    assert found.protocol == "cross_corpus split, savee -> emodb"


def test_pairs_trained_in_one_program_equal_those_trained_one_by_one(grid, tmp_path):
    alone, _ = grid
    together = override(alone, {"out": str(tmp_path), "batching": "vmap", "seeds": (0,)})
    ablate(together)
    for cell in list_cells(together):
        found, expected = (
            measure(folder / "cells" / cell.run_dir.name).heard
            for folder in (tmp_path, Path(alone.out))
        )
        np.testing.assert_array_equal(found.index_B, expected.index_B)
        np.testing.assert_allclose(  # not classes: after one epoch some are tied to eleven digits
            found.probability_BC, expected.probability_BC, rtol=0, atol=tolerance(1e-6)
        )


def test_shards_share_the_pairs_out(grid):
    cells = list_cells(grid[0])
    shards = [choose_cells(cells, f"{number}/3") for number in range(3)]
    names = [cell.run_dir.name for shard in shards for cell in shard]
    assert sorted(names) == sorted(cell.run_dir.name for cell in cells)
