"""Randomness as a function of (seed, purpose, step): nothing depends on what was drawn before."""

import hashlib

import torch


def derive(seed: int, *key: int | str) -> int:
    """A 63-bit seed that is a function of `seed` and `key` alone."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rng(seed: int, *key: int | str) -> torch.Generator:
    """A CPU generator whose stream is a function of `seed` and `key` alone, e.g. rng(0, "noise", step)."""
    return torch.Generator().manual_seed(derive(seed, *key))
