"""What a search may choose from, as it is typed."""

import pytest

from gan_runner.config.composition import parse
from gan_runner.errors import UserError
from gan_runner.sweeps.space import Choices, Numbers, dimension


def typed(word: str) -> Numbers | Choices:
    return dimension(parse([word])[0])


@pytest.mark.parametrize(
    ("word", "low", "high", "step", "log"),
    [
        ("a=interval(1e-4,1e-2)", 0.0001, 0.01, None, False),
        ("a=tag(log,interval(1e-4,1e-2))", 0.0001, 0.01, None, True),
        ("a=interval(1,8)", 1.0, 8.0, None, False),
        ("a=int(interval(1,8))", 1, 8, None, False),
        ("a=range(1,8,2)", 1, 7, 2, False),  # Hydra's range leaves out its end
        ("a=range(8,1,-2)", 2, 8, 2, False),
        ("a=range(0.1,0.5,0.1)", 0.1, 0.4, 0.1, False),
    ],
)
def test_numbers(word, low, high, step, log):
    found = typed(word)
    assert found == Numbers(word.removeprefix("a="), low, high, step, log)
    assert isinstance(found, Numbers)
    assert type(found.low) is type(low)


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a=x,y,x", ["x", "y"]),
        ("a=choice([r1,r2],[])", ["[r1,r2]", "[]"]),
        ("a='1e-3',1e-3", ["'1e-3'", "0.001"]),
        ("a=null,1", ["null", "1"]),
    ],
)
def test_choices(word, values):
    assert typed(word).values == values


def test_a_number_is_rounded_before_it_is_used():
    rate, some = typed("a=tag(log,interval(1e-4,1e-2))"), typed("a=interval(0.123449,0.5)")
    assert isinstance(rate, Numbers)
    assert isinstance(some, Numbers)
    assert rate.word(0.00123456789) == "0.001235"
    assert rate.word(0.00099999999) == "0.001"
    assert some.word(0.12344901) == "0.123449"  # 0.1234 would lie outside
    assert typed("a=int(interval(1,8))").word(3) == "3"  # type: ignore[arg-type]


def test_numbers_that_can_be_counted():
    assert typed("a=range(1,8,2)").values == [1, 3, 5, 7]
    fine = typed("a=range(0.1,0.5,0.1)")
    assert isinstance(fine, Numbers)
    assert fine.values == [0.1, 0.2, 0.3, 0.4]
    assert typed("a=interval(1,8)").values is None


@pytest.mark.parametrize(
    "word", ["a=tag(log,interval(0,1))", "a=interval(2,1)", "a=tag(log,range(1,5))", "a=tag(fine,interval(0,1))"]
)
def test_what_cannot_be_searched_is_named(word):
    with pytest.raises(UserError, match=r"^a: found "):
        typed(word)
