"""How a budget is shared out. Oracle: sums done by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqprop.errors import EqpropError
from eqprop.paper.budget import NOTHING, Demand, Share, seconds_in, share_out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), (" 2h ", 7200)]
)
def test_a_time_is_read(text, seconds):
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "0s", "30 min", "1e3s", "nans", "3d"])
def test_what_is_no_time(text):
    with pytest.raises(EqpropError, match=r"budget is .*30m"):
        seconds_in(text)


def test_what_one_does_not_need_goes_to_the_others():
    """Parts of 50 s: one needs 10 s, so 90 s are left for epochs of 10 s."""
    demands = {"cheap": Demand(10, 1, 1.0), "dear": Demand(100, 5, 10.0)}
    assert share_out(demands, 100.0) == {"cheap": Share(10, 1), "dear": Share(9, 1)}


def test_what_is_too_dear_gets_nothing_and_the_rest_buys_seeds():
    """An epoch of 100 s is not within 60 s; the other takes 10 s a seed, of which there are 5."""
    demands = {"cheap": Demand(10, 5, 1.0), "dear": Demand(5, 5, 100.0)}
    assert share_out(demands, 60.0) == {"cheap": Share(10, 5), "dear": NOTHING}
    assert share_out(demands, 35.0) == {"cheap": Share(10, 3), "dear": NOTHING}


def test_the_dearest_is_left_out_first():
    """Parts of 10 s suffice for none. Without the one at 40 s parts of 15 s do for the other."""
    demands = {"a": Demand(5, 1, 40.0), "b": Demand(5, 1, 12.0), "c": Demand(9, 1, 4.0)}
    # 30 / 3 = 10: c gets 2 epochs of 4 s, b none, a none; 30 / 2 = 15: b gets 1, c 3.
    assert share_out(demands, 30.0) == {"a": NOTHING, "b": Share(1, 1), "c": Share(3, 1)}


def test_what_is_done_and_starting():
    """3 s to start, then 4 epochs of 2 s on top of the 4 that are done."""
    assert share_out({"a": Demand(10, 1, 2.0, 3.0, (4,))}, 11.9) == {"a": Share(8, 1)}
    finished = {"a": Demand(10, 2, 2.0, 3.0, (10, 10)), "b": Demand(10, 1, 1.0)}
    # What is finished costs nothing, so all of the time is for the other.
    assert share_out(finished, 5.0) == {"a": Share(10, 2), "b": Share(5, 1)}


def test_seeds_that_were_begun_together_go_on_together():
    assert share_out({"a": Demand(10, 3, 1.0, done=(2, 2, 0), together=2)}, 7.0) == {
        "a": Share(5, 2)
    }


def test_further_seeds_come_in_turn_the_cheapest_first():
    """20 s and 30 s for a seed of each; 60 s more buy 20 and 30 s, and 10 s are too little."""
    demands = {"b": Demand(10, 9, 3.0), "a": Demand(10, 9, 2.0)}
    assert share_out(demands, 110.0) == {"a": Share(10, 2), "b": Share(10, 2)}
    assert share_out(demands, 120.0) == {"a": Share(10, 3), "b": Share(10, 2)}


_FIELDS = st.tuples(
    st.integers(1, 30),
    st.integers(1, 5),
    st.floats(0.01, 100),
    st.floats(0, 10),
    st.lists(st.integers(0, 30), max_size=1).map(tuple),
)


@given(st.lists(_FIELDS, max_size=6), st.floats(0, 3000))
def test_a_budget_is_kept(fields, seconds):
    demands = {str(n): Demand(*values) for n, values in enumerate(fields)}
    shares = share_out(demands, seconds)
    assert shares.keys() == demands.keys()
    assert sum(demands[n].cost(share) for n, share in shares.items()) <= seconds * (1 + 1e-9)
    for name, share in shares.items():
        assert share == NOTHING or 1 <= share.epochs <= demands[name].epochs
        assert share.seeds <= demands[name].seeds
