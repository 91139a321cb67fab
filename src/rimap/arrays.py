"""The one array-API helper: the same physics serves NumPy and torch."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import array_api_compat
import numpy as np
from numpy.typing import NDArray

#: A NumPy array or a torch tensor.
Array = Any


def is_torch(x: object) -> bool:
    """Tell whether `x` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(x: Any) -> NDArray[Any]:
    """Return an array or a torch tensor (of any device) as a NumPy array."""
    if is_torch(x):
        x = x.detach().cpu()
        return np.asarray((x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy())
    return np.asarray(x)


def namespace(*arrays: Any) -> Any:
    """Return the array namespace of the inputs: torch if any is a tensor, else NumPy."""
    tensors = [x for x in arrays if is_torch(x)]
    return array_api_compat.array_namespace(*tensors) if tensors else array_api_compat.array_namespace(np.empty(0))


def floating(x: Any, like: Any = None) -> Array:
    """Return `x` as a floating-point array of the namespace, dtype and device of `like` (or of itself)."""
    if is_torch(like):
        return namespace(like).asarray(x, dtype=like.dtype, device=like.device)
    if is_torch(x):
        return x if x.is_floating_point() else x.double()
    x = np.asarray(x)
    return x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64)


def column(x: Any, like: Array) -> Array:
    """Reshape `(N,)` to `(N, 1, …)` so that it broadcasts against maps with the axes of `like` (shape X)."""
    x = np.asarray(x, dtype=float).reshape((-1,) + (1,) * like.ndim)
    return floating(x, like) if is_torch(like) else x.astype(like.dtype, copy=False)


def bessel_e(order: int, x: Array) -> Array:
    """Return the exponentially scaled modified Bessel function of the first kind, order 0 or 1."""
    special = sys.modules["torch"].special if is_torch(x) else importlib.import_module("scipy.special")
    return special.i0e(x) if order == 0 else special.i1e(x)
