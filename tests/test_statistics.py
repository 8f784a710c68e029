"""Intervals, tests and corrections equal SciPy's; speakers are drawn, not clips."""

import numpy as np
import pytest
from scipy import stats

from ser_jax import statistics
from ser_jax.metrics import compute_metrics

RNG = np.random.default_rng(0)
VALUES = [RNG.normal(0.03, 0.05, n).tolist() for n in (2, 3, 5, 9)]


@pytest.mark.parametrize("values", VALUES)
def test_interval_and_p_over_seeds_are_scipys(values):
    other = RNG.normal(0.5, 0.1, len(values))
    reference = stats.ttest_rel(other + values, other)
    low, high = reference.confidence_interval(0.95)
    interval = statistics.compute_seed_interval(values)
    assert interval == pytest.approx((low, high), abs=1e-12)
    assert statistics.compute_t_p(values) == pytest.approx(reference.pvalue, abs=1e-12)


@pytest.mark.parametrize("values", VALUES)
def test_sign_flips_are_scipys_exact_test(values):
    reference = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=2**12
    )
    assert statistics.compute_flip_p(values) == pytest.approx(reference.pvalue, abs=1e-12)


def test_a_single_seed_has_no_test_over_seeds():
    names = ("compute_seed_interval", "compute_t_p", "compute_flip_p", "compute_effect_size",
             "compute_detectable")  # fmt: skip
    assert [getattr(statistics, name)([0.1]) for name in names] == [None] * 5


@pytest.mark.parametrize(
    ("values", "p"),
    [([0.0, 0.0, 0.0], 1.0), ([0.1, 0.1], 0.0), ([0.6 - 0.5, 0.5 - 0.4], 0.0),
     ([0.3 - 0.2 - 0.1, 0.0], 1.0)],
)  # fmt: skip
def test_seeds_that_agree_but_for_rounding_need_no_warning(values, p):
    assert statistics.compute_t_p(values) == p
    assert statistics.compute_effect_size(values) is None
    assert statistics.compute_detectable(values) is None


def detect(n: int, sd: float, mean: float = 0.0) -> float:
    """What is detectable with n differences of exactly this mean and standard deviation."""
    values_S = np.linspace(-1, 1, n)
    found = statistics.compute_detectable((mean + sd * values_S / values_S.std(ddof=1)).tolist())
    assert found is not None
    return found


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_the_t_test_finds_the_detectable_difference_in_four_of_five_simulations(n):
    sd, n_drawn = 0.03, 40_000
    effect = detect(n, sd)
    drawn_DS = np.random.default_rng(n).normal(effect, sd, (n_drawn, n))
    _, p_D = stats.ttest_1samp(drawn_DS, 0.0, axis=1)
    found = np.mean(np.asarray(p_D) < 0.05)
    assert found == pytest.approx(statistics.POWER, abs=4 * (0.8 * 0.2 / n_drawn) ** 0.5)


def test_of_many_seeds_the_detectable_difference_is_that_of_the_normal_distribution():
    n, sd = 5000, 0.03
    expected = (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * sd / n**0.5
    found = detect(n, sd)
    assert found == pytest.approx(expected, rel=1e-3)
    few = detect(5, sd)
    assert few > 1.3 * expected * (n / 5) ** 0.5  # where the normal distribution promises too much


@pytest.mark.parametrize(("size", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_as_many_pairs_detect_an_effect_as_the_published_tables_say(size, n):
    # Two-sided paired t test, alpha 0.05, power 0.80: Cohen's small, medium and large effect.
    enough, fewer = (detect(k, 1.0) for k in (n, n - 1))
    assert enough <= size < fewer


@pytest.mark.parametrize("mean", [-0.4, 0.0, 0.4])
def test_the_detectable_difference_depends_on_the_spread_and_not_on_the_mean(mean):
    assert detect(5, 0.06, mean) == pytest.approx(2 * detect(5, 0.03))


def test_holms_correction_is_that_of_rs_p_adjust():
    found = statistics.correct_by_holm([0.01, 0.04, 0.03, 0.005, 0.9])
    assert found == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert statistics.correct_by_holm([]) == []


def test_the_bootstrap_of_a_difference_is_scipys_over_speakers():
    n_A = RNG.integers(5, 15, 24)
    hit_A = RNG.binomial(n_A, RNG.uniform(0.3, 0.7, 24))
    other_A = RNG.binomial(n_A, 0.4)
    weight_DA = statistics.draw_speakers(24)
    shares = [
        statistics.compute_shares(hits[None], n_A[None], weight_DA) for hits in (hit_A, other_A)
    ]
    summary = statistics.summarise_draws(shares[0] - shares[1])
    assert summary is not None

    def compute_difference(hits, others, counts, axis):
        return (hits.sum(axis) - others.sum(axis)) / counts.sum(axis)

    reference = stats.bootstrap(
        (hit_A, other_A, n_A), compute_difference, paired=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(1),
    )  # fmt: skip
    assert summary[0] == pytest.approx(tuple(reference.confidence_interval), abs=0.008)
    tail = (reference.bootstrap_distribution <= 0).mean()
    assert summary[1] == pytest.approx(2 * min(tail, 1 - tail), abs=0.02)


def test_speakers_that_differ_make_the_interval_wider_than_their_clips_do():
    n_A = np.full(24, 60)
    hit_A = np.where(np.arange(24) % 2, 54, 12)  # everyone is either easy or hard
    shares_D = statistics.compute_shares(hit_A[None], n_A[None], statistics.draw_speakers(24))
    (low, high), _ = statistics.summarise_draws(shares_D) or ((0, 0), 0)
    by_clip = stats.binomtest(int(hit_A.sum()), int(n_A.sum())).proportion_ci()
    assert high - low > 3 * (by_clip.high - by_clip.low)


def test_a_draw_without_clips_of_a_group_is_left_out():
    values_D = np.concatenate([np.full(50, np.nan), np.linspace(-0.1, 0.3, 1000)])
    interval, p = statistics.summarise_draws(values_D) or ((0, 0), 0)
    assert interval == pytest.approx((-0.09, 0.29), abs=1e-3)
    assert p == pytest.approx(0.5, abs=0.01)
    assert statistics.summarise_draws(np.full(10_000, np.nan)) is None


def test_figures_of_many_matrices_at_once_are_those_of_each():
    confusion_SCC = RNG.integers(0, 9, (5, 8, 8))
    confusion_SCC[0, 3] = 0  # a class that does not occur
    confusion_SCC[1, :, 2] = 0  # one that is never predicted
    for name in ("accuracy", "weighted_f1", "uar"):
        expected = [compute_metrics(matrix)[name] for matrix in confusion_SCC]
        found = statistics.compute_figure(name, confusion_SCC.astype(float))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_interval_of_a_figure_over_speakers_holds_its_own_value():
    confusion_SACC = RNG.integers(0, 3, (1, 24, 8, 8)).astype(float)
    for name in ("accuracy", "weighted_f1", "uar"):
        value = float(statistics.compute_figure(name, confusion_SACC.sum((0, 1))))
        interval = statistics.bootstrap_figure(name, confusion_SACC)
        assert interval is not None
        assert interval.low < value < interval.high
    assert statistics.bootstrap_figure("accuracy", confusion_SACC[:, :1]) is None
