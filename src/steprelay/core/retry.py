"""Backoff: how long to wait before the n-th try, without a clock and without chance."""

from __future__ import annotations

from zlib import crc32

BASE = 0.5
CAP = 60.0


def backoff(tries: int, seed: str = "") -> float:
    """Seconds before try `tries` + 1 (1 = after the first failure): doubling from 0.5 s to 60 s.

    Half of it is spread by a hash of `seed`, so that runs which failed together do not come back together ("equal
    jitter", AWS Architecture Blog 2015, *Exponential Backoff And Jitter*), and a repeated history is the same history.
    """
    full = min(CAP, BASE * 2.0 ** max(0, min(tries, 32) - 1))
    spread = crc32(f"{seed}:{tries}".encode()) / 0xFFFFFFFF
    return full / 2 + full / 2 * spread
