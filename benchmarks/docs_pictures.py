"""Draw the figures of the README and of the tutorials from simulated data: `python -m benchmarks.docs_pictures`.

The pictures of reports and pages are screenshots of what the commands of the same page write, in a browser.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

import rimap
from rimap import colours
from rimap.simulation.anatomies import brain_mask, digital_affine, digital_brain
from rimap.simulation.subjects import simulate_series, simulate_subject
from rimap.simulation.tissues import GM, WM

mpl.use("Agg")
from matplotlib import pyplot as plt

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
#: Matrix of the built-in head, and the slice that is drawn.
SHAPE, SLICE = (128, 144, 48), 24
#: Inversion times and TR, ms, and the signal-to-noise ratio of white matter in the brightest image.
TIMES_MS, TR_MS, SNR = (50, 200, 500, 1000, 2000, 4000), 6000.0, 10.0
WINDOW_MS, ERROR_PERCENT = (0, 2500), 30


def main() -> None:
    """Draw all figures."""
    IMAGES.mkdir(exist_ok=True)
    estimators(IMAGES / "estimators.webp")


def estimators(path: Path) -> None:
    """Map one slice of the built-in head with three estimators and draw T1 and its error."""
    rng = np.random.default_rng(0)
    labels = digital_brain(SHAPE)[:, :, SLICE : SLICE + 1]
    model = rimap.InversionRecovery(tau=TIMES_MS, tr=TR_MS)
    truth = simulate_subject(labels, model, rng)
    brightest = abs(model.signal(truth)[:, labels == WM]).mean(axis=1).max()
    noise, brain = rimap.Gaussian(sigma=float(brightest) / SNR), brain_mask(labels)
    series = simulate_series(truth, model, noise, rng, mask=brain, affine=digital_affine(SHAPE))
    box = tuple(slice(places.min() - 2, places.max() + 3) for places in np.nonzero(brain)[:2])
    chosen = {"nlls": rimap.NLLS(), "mle": rimap.MLE(), "rim": rimap.RIM.load("universal")}
    shown = {"truth": np.where(brain, truth[-1], np.nan)}
    shown |= {name: estimator.estimate(series)["T1"] for name, estimator in chosen.items()}

    figure, axes = plt.subplots(2, len(shown), figsize=(9.2, 5.0), layout="constrained")
    scale = error_scale = None
    for column, (name, T1) in enumerate(shown.items()):
        scale = _show(axes[0, column], T1[box], colours.of_relaxation("T1"), WINDOW_MS)
        axes[0, column].set_title(name)
        if name == "truth":
            axes[1, column].axis("off")
            continue
        error = 100 * (T1 / truth[-1] - 1)
        error_scale = axes[1, column].imshow(
            _turned(error[box]), cmap="RdBu_r", vmin=-ERROR_PERCENT, vmax=ERROR_PERCENT
        )
        axes[1, column].set(xticks=[], yticks=[], facecolor="black")
        figures = (f"{tissue} {_rmse(error[labels == label]):.1f} %" for tissue, label in (("GM", GM), ("WM", WM)))
        axes[1, column].set_xlabel("RMSE: " + ", ".join(figures), fontsize=9)
        print(name, *(f"{_rmse(error[labels == label]):.2f}" for label in (GM, WM)))
    figure.colorbar(scale, ax=axes[0], label="T1, ms", shrink=0.9)
    figure.colorbar(error_scale, ax=axes[1], label="error of T1, %", shrink=0.9)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _show(
    axis: plt.Axes, values: NDArray[np.floating], palette: str, window: tuple[float, float]
) -> mpl.image.AxesImage:
    axis.set(xticks=[], yticks=[], facecolor="black")
    return axis.imshow(
        _turned(values), cmap=mpl.colors.ListedColormap(colours.palette(palette) / 255), vmin=window[0], vmax=window[1]
    )


def _turned(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a slice with the nose at the top."""
    return np.rot90(values[:, :, 0])


def _rmse(error: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.nanmean(error**2)))


if __name__ == "__main__":
    main()
