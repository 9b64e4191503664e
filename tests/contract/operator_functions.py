"""Functions that the contract of `map` is tested with."""

import numpy as np


def excess(batch):
    """Some arithmetic; square roots of what is below are not finite."""
    return batch.with_values(np.sqrt(batch.values - 95.0))


def fails(batch):
    """A function with a defect."""
    raise RuntimeError(f"{len(batch.names)} columns are too many")
