from math import log, sqrt

import pytest

from gan_runner.metrics import ClassBalance, LabelAccuracy, StackedModes
from tests.metrics.conftest import images_of, seen, stacked


def test_stacked_modes_by_hand():
    made = seen([[0.0], [999.0], [999.0], [500.0]])
    result = StackedModes(4).measure(made, made, stacked())
    assert result == pytest.approx({"modes": 3, "reverse_kl": 0.5 * log(250) + 0.5 * log(500)})


def test_class_balance_by_hand():
    made = seen([[0.0]] * 6 + [[1.0]] * 2)
    real = seen([[0.0]] * 5 + [[1.0]] * 10 + [[3.0]] * 5)
    expected = 0.75 * log(0.75 / 0.25) + 0.25 * log(0.25 / 0.5)
    assert ClassBalance(8).measure(made, real, images_of()) == pytest.approx(
        {"class_kl": expected + log(21 / 20), "classes_found": 2}  # class 2 counts once among 21
    )


def test_class_balance_of_equal_shares_and_of_a_class_that_the_data_have_not():
    real = seen([[0.0]] * 50 + [[1.0]] * 50)
    assert ClassBalance(4).measure(seen([[0.0], [1.0]] * 2), real, images_of()) == {"class_kl": 0, "classes_found": 2}
    stray = ClassBalance(4).measure(seen([[2.0]] * 4), real, images_of())
    assert stray == pytest.approx({"class_kl": log(101), "classes_found": 0})


def test_label_accuracy_by_hand():
    # The class seen is the first number; the second separates the samples of a class.
    made = seen([[0, 0], [0, 2], [1, 0], [1, 3], [1, 0]], labels=[0, 0, 1, 1, 0])
    real = seen([[0, 0], [0, 4], [1, 0], [1, 2], [2, 0], [2, 9]], labels=[0, 0, 1, 1, 2, 2])
    result = LabelAccuracy(5).measure(made, real, images_of(3))
    first = (2 + 1 + sqrt(5)) / 3  # the distances of (0, 0), (0, 2) and (1, 0), which was asked for as a 0
    assert result == pytest.approx({"label_accuracy": 0.8, "class_diversity": ((first + 3) / 2) / ((4 + 2) / 2)})


def test_label_accuracy_needs_two_samples_of_a_class():
    made, real = seen([[0.0], [1.0]], labels=[0, 1]), seen([[0.0], [0.0]], labels=[0, 0])
    with pytest.raises(ValueError, match="two samples of a class"):
        LabelAccuracy(2).measure(made, real, images_of(2))
