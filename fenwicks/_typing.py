"""Names for the types that annotations speak of. Keras and TensorFlow publish none for tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

# A tensor or variable of Keras's backend, or a NumPy array, which all operations take too.
Tensor: TypeAlias = Any

# Of a tensor or variable; None where a length is not known before the call.
Shape: TypeAlias = tuple[int | None, ...]

# What a schedule takes: the number of updates made so far, as a number, an array or a tensor.
Step: TypeAlias = Any

# The configuration of a Keras object, made of what JSON holds.
Config: TypeAlias = dict[str, Any]

# From images (batch, height, width, channels) to images.
ImageFunction: TypeAlias = Callable[[Tensor], Tensor]

# Of random transforms: two int32 numbers as a tuple, array or tensor, or (batch, 2).
Seed: TypeAlias = Any
