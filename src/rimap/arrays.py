"""Functions for NumPy arrays and torch tensors: one namespace, so that physics is written once, and even samples."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

#: A complex step is that small: no difference is taken, so nothing cancels.
_COMPLEX_STEP = 1e-30

#: A NumPy array or a torch tensor.
Array = Any
#: A module with the functions of the array API: that of NumPy or of torch.
Namespace = Any
#: A sequence whose slices are of its own kind.
Sliced = TypeVar("Sliced", bound=Any)


def is_torch(x: object) -> bool:
    """Return whether `x` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(x: Array) -> NDArray[Any]:
    """Return an array or a torch tensor (of any device) as a NumPy array; masked values become NaN."""
    if is_torch(x):
        x = x.detach().cpu()
        if x.layout != sys.modules["torch"].strided:
            x = x.to_dense()
        return np.asarray((x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy())
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        return np.ma.filled(x if x.dtype.kind in "fc" else x.astype(float), np.nan)
    return np.asarray(x)


def namespace(*arrays: Array) -> Namespace:
    """Return the array namespace of the inputs: torch if any is a tensor, else NumPy."""
    tensors = [array for array in arrays if is_torch(array)]
    if tensors:
        return importlib.import_module("array_api_compat").array_namespace(*tensors)
    return _of_numpy()


@cache
def _of_numpy() -> Any:
    """Return NumPy itself from version 2.1 on, which follows the standard; the wrapper would import all of NumPy."""
    return np if hasattr(np, "astype") else importlib.import_module("array_api_compat.numpy")


def floating(x: Array, like: Array = None) -> Array:
    """Return `x` as a floating-point array of the namespace, dtype and device of `like` (or of itself)."""
    if is_torch(like):
        return namespace(like).asarray(x, dtype=like.dtype, device=like.device)
    if is_torch(x):
        return x if x.is_floating_point() else x.double()
    x = np.asarray(x)
    return x if np.issubdtype(x.dtype, np.inexact) else x.astype(np.float64)  # complex: the step of a derivative


def stride(count: int, most: int) -> int:
    """Return the smallest step that selects at most `most` of `count` values."""
    return -(-count // most) or 1


def at_most(values: Sliced, most: int) -> Sliced:
    """Return values from all parts, at most `most` of them. The step between them varies (`places`).

    >>> at_most(list(range(10)), 4), at_most([1, 2], 4)
    ([0, 4, 7, 9], [1, 2])
    """
    return _at_places(values, stride(len(values), most))


def at_least(values: Sliced, least: int) -> Sliced:
    """Return values from all parts: at least `least` of them, if there are as many, and fewer than twice `least`. The
    step between them varies (`places`).

    >>> at_least(list(range(10)), 4), at_least([1, 2], 4)
    ([0, 3, 4, 7, 9], [1, 2])
    """
    return _at_places(values, max(1, len(values) // least))


#: The fractional part of the golden ratio, in units of 2⁻³²: its multiples by square numbers fill an interval evenly,
#: with no pattern.
_GOLDEN = np.uint64(0x9E3779B9)


@lru_cache(maxsize=8)  # several checks sample the same voxels
def places(count: int, step: int) -> NDArray[np.intp]:
    """Return places among `count` values, one in each `step` of them. (The array cannot be written.)

    Where it is varies from step to step. A fixed step that is a multiple of the number of slices would take all voxels
    of a volume from one slice.
    """
    place = np.arange(-(-count // step), dtype=np.uint64)
    fraction = (place * place * _GOLDEN) & np.uint64(0xFFFFFFFF)  # in whole numbers, which is ten times as fast
    beyond = (fraction * np.uint64(step)) >> np.uint64(32)
    found = np.minimum((place * np.uint64(step) + beyond).astype(np.intp), count - 1)
    found.flags.writeable = False
    return found


def _at_places(values: Sliced, step: int) -> Sliced:
    if step == 1:
        return values
    place = places(len(values), step)
    return cast(Sliced, values[place] if isinstance(values, np.ndarray) else [values[k] for k in place])


def column(x: Array, like: Array) -> Array:
    """Reshape `(N,)` to `(N, 1, …)` so that it broadcasts against maps with the axes of `like` (shape X)."""
    x = np.asarray(x, dtype=float).reshape((-1,) + (1,) * like.ndim)
    return floating(x, like) if is_torch(like) else x.astype(like.dtype, copy=False)


def derivative(function: Callable[..., Array], at: Mapping[str, Array], name: str) -> Array:
    """Return the derivative of `function` in one of its arguments (*X), which are given by name.

    Every voxel is a function of its own. NumPy takes a complex step, torch differentiates twice: both are exact, for
    functions that are analytic (no modulus, no branch on a value).
    """
    x = at[name]
    if any(is_torch(v) for v in at.values()):
        torch = sys.modules["torch"]
        with torch.enable_grad():  # ∂(vᵀg)/∂x is linear in v: its derivative in v is ∂g/∂x
            x = x.detach().requires_grad_()
            value = function(**{**{key: value.detach() for key, value in at.items()}, name: x})
            v = torch.zeros_like(value).requires_grad_()
            (backward,) = torch.autograd.grad(value, x, v, create_graph=True)
            (slope,) = torch.autograd.grad(backward, v, torch.ones_like(x))
        return slope
    x = np.asarray(x)
    step = _COMPLEX_STEP * max(float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x))), 1.0)
    moved = function(**{**{key: np.asarray(value) for key, value in at.items()}, name: x + 1j * step})
    return np.asarray(moved.imag / step, dtype=x.dtype)


def bessel_e(order: int, x: Array) -> Array:
    """Return the exponentially scaled modified Bessel function of the first kind, order 0 or 1."""
    special = sys.modules["torch"].special if is_torch(x) else importlib.import_module("scipy.special")
    return special.i0e(x) if order == 0 else special.i1e(x)
