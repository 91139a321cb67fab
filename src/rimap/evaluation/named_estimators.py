"""Estimators by the names that experiments and tables use."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from rimap.errors import InputError
from rimap.estimators import estimators as registered
from rimap.estimators.base import Estimator, Progress
from rimap.estimators.denoising import mppca
from rimap.estimators.network_files import for_model, metadata_of, path_of
from rimap.likelihood import Rician
from rimap.series import ParameterMaps, WeightedSeries
from rimap.signals.base import SignalModel

#: Estimators whose weights come from a file or ship by name: ``rim:universal``, ``resnet:path/to/file.onnx``.
NETWORKS = {"rim": ("rimap.estimators.rim.estimator", "RIM"), "resnet": ("rimap.estimators.resnet.estimator", "ResNet")}
#: ``mppca+nlls``: images denoised first, then any estimator.
DENOISED = "mppca+"


class NotAvailable(InputError):
    """An estimator that this installation cannot give: its network does not ship, or an extra is missing."""


def named(spec: str, *, threads: int | None = None) -> Estimator:
    """Return the estimator that `spec` names.

    Parameters
    ----------
    spec
        ``nlls``, ``mle``, ``global_b`` (the MLE with one B), ``mle:1e4`` (with this λ_B), ``rim:NAME``,
        ``rim:FILE.onnx``, ``resnet:…``, a third party's, or any of them after ``mppca+``.

    Raises
    ------
    NotAvailable
        Where the network does not ship or a package is missing.
    InputError
        For a name that nothing has.

    Examples
    --------
    >>> named("global_b").lambda_B
    inf
    """
    kind, _, rest = spec.partition(":")
    if spec.startswith(DENOISED):
        if importlib.util.find_spec("dipy") is None:
            raise NotAvailable(f'{spec}: MP-PCA comes from dipy, which is not installed. pip install "rimap[denoise]".')
        return Denoised(inner=named(spec.removeprefix(DENOISED), threads=threads), name=spec)
    if kind in NETWORKS:
        return _network(kind, rest, spec, threads)
    found = registered()
    if kind == "global_b":
        return found["mle"](lambda_B=math.inf, threads=threads)  # type: ignore[call-arg]
    if kind not in found:
        known = ", ".join([*sorted(set(found) - set(NETWORKS)), "global_b", "rim:NAME", "resnet:NAME", "mppca+nlls"])
        raise InputError(f"--estimators: expected one of {known}, got {spec!r}.")
    options: dict[str, Any] = {}
    if rest:
        if kind != "mle":
            raise InputError(f"{spec!r}: expected a number (lambda_B) after mle: only, got one after {kind}:.")
        try:
            options["lambda_B"] = float(rest)
        except ValueError:
            raise InputError(f"{spec!r}: expected a number (lambda_B) after mle:, got {rest!r}.") from None
    if threads is not None and "threads" in getattr(found[kind], "__dataclass_fields__", {}):
        options["threads"] = threads
    return found[kind](**options)


def _network(kind: str, what: str, spec: str, threads: int | None) -> Estimator:
    if not what:
        raise InputError(f"{spec!r}: expected {kind}:NAME (see rimap models) or {kind}:FILE.onnx, got no network.")
    module, cls = NETWORKS[kind]
    try:
        loader = getattr(importlib.import_module(module), cls)
    except ImportError:
        raise NotAvailable(f"{spec}: this version of rimap has no {cls}.") from None
    is_file = what.endswith(".onnx") or "/" in what
    if is_file and not Path(what).is_file():
        raise NotAvailable(f"{spec}: there is no such file.")
    try:
        network = loader.load(what)
        known = threads is not None and "threads" in getattr(network, "__dataclass_fields__", {})
        return replace(network, threads=threads) if known else network  # type: ignore[no-any-return]
    except (InputError, FileNotFoundError):
        if is_file:
            raise
        raise NotAvailable(f"{spec}: no network {what!r} ships with this version.") from None


def available(specs: Sequence[str], *, threads: int | None = None) -> tuple[dict[str, Estimator], list[str]]:
    """Return the available estimators by name, and the reason why each of the others is skipped."""
    found: dict[str, Estimator] = {}
    skipped = []
    for spec in specs:
        try:
            found[spec] = named(spec, threads=threads)
        except NotAvailable as reason:
            skipped.append(str(reason))
    return found, skipped


def fingerprint(spec: str) -> str:
    """Return a hash of the network's file behind a name; empty for an estimator without one."""
    kind, _, what = spec.rpartition("+")[2].partition(":")
    if kind not in NETWORKS or not what:
        return ""
    try:
        return hashlib.sha256(path_of(what).read_bytes()).hexdigest()[:12]
    except InputError:
        return ""


def fitting(specs: Sequence[str], model: SignalModel) -> tuple[str, ...]:
    """Return the estimators that are for a model: networks of its sequence, a ResNet of its number of images.

    Without a parameter that is smooth, the MLE with one B and the NLLS are the MLE: of the three that one is kept.

    >>> from rimap import PROTOCOLS
    >>> fitting(["nlls", "mle", "global_b"], PROTOCOLS["IV_T2"])
    ('mle',)
    """
    kept = []
    smooth = any(parameter.smooth for parameter in model.parameters)
    for spec in specs:
        kind, _, what = spec.rpartition("+")[2].partition(":")
        if not smooth and (kind == "global_b" or (spec == "nlls" and "mle" in specs)):
            continue
        if kind in NETWORKS:
            try:
                about = for_model(metadata_of(path_of(what)), model)
            except InputError:
                continue
            least, most = about["trained_on"]["n_images"]
            if kind == "resnet" and not least <= model.n_images <= most:
                continue
        kept.append(spec)
    return tuple(kept)


@dataclass(frozen=True, kw_only=True)
class Denoised(Estimator):
    """Images denoised by MP-PCA over the series, then another estimator.

    Parameters
    ----------
    inner
        The estimator of the denoised images. Its σ stays that of the series: what is left of it is not known.
    radius
        Radius of the patch, voxels.

    References
    ----------
    Veraart et al. 2016, doi:10.1016/j.neuroimage.2016.08.016. dipy: Garyfallidis et al. 2014,
    doi:10.3389/fninf.2014.00008.
    """

    inner: Estimator
    name: str = ""  # type: ignore[misc]
    radius: int = 2

    title: ClassVar[str] = "MP-PCA, then another estimator"
    halo: int | None = None

    def estimate(self, series: WeightedSeries, *, progress: Progress | None = None) -> ParameterMaps:
        """Return the maps of the denoised series."""
        out = mppca(series.images, series.selected, self.radius)
        if isinstance(series.noise, Rician):
            out = abs(out)
        return self.inner.estimate(replace(series, images=out), progress=progress)
