"""How often do 95 % intervals contain the truth? Textures, structures and interpolated images, from SNR 5 to 100.

    python -m benchmarks.bench_intervals rim:universal mle
    python -m benchmarks.bench_intervals rim:universal --protocols TI9 --snrs 10 --draws 6

It prints the percentage of voxels whose interval (estimate ± 1.96 standard deviations) of the relaxation time contains
the truth. The field is estimated, so its error is part of it. The anatomy is one that no network was trained on:

    smooth        a texture that is smooth in space, 6 %
    texture       every voxel differs by 3 %
    paper's       every voxel differs as in Sabidussi et al. 2021: by 100 ms of T1, or 10 ms of T2
    structures    voxels, discs and stripes that the data show clearly (d' of 6 and more, see bench_structures)
    filled 1.33   the smooth texture, with noise as in images that were interpolated (zero-filled) by this factor in
    filled 2      both directions of the plane; nobody states sigma, rimap finds it
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from benchmarks.bench_networks import (
    MODELS,
    SEED,
    Array,
    Scene,
    asked,
    brain,
    found,
    found_in,
    of_structures,
    scenes,
    series_of,
)
from benchmarks.bench_structures import AMPLITUDE
from rimap import WeightedSeries
from rimap.signals.base import SignalModel
from rimap.simulation.recipe import signal_level
from rimap.simulation.subjects import simulate_subject

PROTOCOLS = ("TI31", "TI9", "TI6", "t2")
FACTORS = (4 / 3, 2.0)


def paper(model: SignalModel, like: Scene) -> Scene:
    """Return the truth with the paper's texture, which is judged where `like` is."""
    return replace(like, kappa=simulate_subject(brain(), model, np.random.default_rng(SEED), texture="white"))


def interpolated(model: SignalModel, kappa: Array, sigma: float, factor: float, draw: int) -> WeightedSeries:
    """Return a series whose noise has an empty outer k-space, with the same standard deviation; sigma is not given."""
    rng = np.random.default_rng([draw, round(1e6 * sigma), round(100 * factor)])
    white = rng.standard_normal((model.n_images, *kappa.shape[1:]))
    k = np.fft.fftn(white, axes=(1, 2))
    for axis in (1, 2):
        measured = abs(np.fft.fftfreq(k.shape[axis])) <= 0.5 / factor
        k *= np.expand_dims(measured, tuple(a for a in range(3) if a != axis))
    noise = np.fft.ifftn(k, axes=(1, 2)).real
    images = model.signal(kappa) + sigma * noise / noise.std()
    return replace(series_of(model, kappa, sigma, draw), images=images.astype(np.float32), noise=None)


def coverages(spec: str, protocol: str, snr: float, draws: int) -> Iterator[float]:
    """Yield the coverage of each column, as a share."""
    model = MODELS[protocol]
    sigma = signal_level(model.name) * AMPLITUDE / snr
    truths, q = scenes(model), model.time_index
    truths["paper"] = paper(model, truths["smooth"])
    for name in ("smooth", "texture", "paper"):
        scene = truths[name]
        everywhere = np.logical_or.reduce(list(scene.inside.values()))
        yield found(spec, model, scene, sigma, draws).coverage(scene.kappa[q], everywhere)
    own = found(spec, model, truths["structures"], sigma, draws)
    yield of_structures(own, own, truths["structures"], model, sigma)[1]
    scene = truths["smooth"]
    everywhere = np.logical_or.reduce(list(scene.inside.values()))
    for factor in FACTORS:
        scans = [interpolated(model, scene.kappa, sigma, factor, draw) for draw in range(draws)]
        yield found_in(spec, scans).coverage(scene.kappa[q], everywhere)


def main() -> None:
    """Print a line for each estimator, protocol and SNR."""
    args = asked(__doc__, PROTOCOLS, "5,10,30,100", 3)
    columns = ("smooth", "texture", "paper's", "structures", *(f"filled {factor:.3g}" for factor in FACTORS))
    print(f"{'estimator':<28}{'protocol':<10}{'SNR':>5}" + "".join(f"{column:>13}" for column in columns))
    for spec in args.estimators:
        for protocol in args.protocols.split(","):
            for snr in map(float, args.snrs.split(",")):
                shares = coverages(spec, protocol, snr, args.draws)
                numbers = "".join(f"{100 * share:>13.1f}" for share in shares)
                print(f"{spec[-27:]:<28}{protocol:<10}{snr:>5g}{numbers}", flush=True)


if __name__ == "__main__":
    main()
