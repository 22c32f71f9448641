"""The suite's app, where Restate takes each step by an entry of its own, however quick."""

from __future__ import annotations

from steprelay.drivers import restate
from steprelay.testing.driver_subject import build

restate.SPAN = 0.0
app = build()
