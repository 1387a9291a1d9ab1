"""Temporary."""

from gan_runner.machine.devices import Ranks as Ranks
