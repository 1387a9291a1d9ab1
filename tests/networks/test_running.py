"""Running a network."""

import pytest
from torch import nn

from gan_runner.networks.running import eval_mode


def test_a_network_is_in_eval_mode_until_the_outermost_call_ends():
    network = nn.Sequential(nn.Dropout())
    with eval_mode(network):
        with eval_mode(network):
            assert not network[0].training
        assert not network[0].training
    assert network[0].training


def test_a_network_trains_on_after_an_error():
    network = nn.Dropout()
    with pytest.raises(ZeroDivisionError), eval_mode(network):
        raise ZeroDivisionError
    assert network.training
