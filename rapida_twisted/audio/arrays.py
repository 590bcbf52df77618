"""Samples from numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_samples", "float_samples"]


def array_samples(array: NDArray[Any]) -> bytes:
    """s16le mono from an array of int16, or of floating point numbers from -1 to 1.

    :raises TypeError: it has numbers of another type.
    :raises ValueError: it has more than one channel.
    """
    if array.ndim != 1 and array.size != max(array.shape, default=0):
        raise ValueError(f"an array with one channel is needed (mono), not one of shape {array.shape}")
    if array.dtype == np.int16:
        return array.astype("<i2").tobytes()
    if np.issubdtype(array.dtype, np.floating):
        return float_samples(array)
    raise TypeError(f"an array of int16 or float32 (-1 to 1) is needed, not of {array.dtype}")


def float_samples(samples: NDArray[Any]) -> bytes:
    """s16le from floating point numbers from -1 to 1; what is louder is clipped."""
    return bytes(np.clip(np.rint(np.nan_to_num(samples) * 32768), -32768, 32767).astype("<i2").tobytes())
