"""Every signal model has a page, which says what its declarations say."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from rimap import Parameter, SignalModel, setting
from rimap.arrays import Array, column, namespace
from rimap.io.settings import option_of
from rimap.map_display import shown_name
from rimap.report.formula import as_text
from rimap.signals import signal_models
from rimap.signals.settings import settings_of
from rimap.simulation.usual_protocols import usual_protocol
from rimap.workflow.sequence_page import sequence_page, sequences_page
from rimap.workflow.sequence_picture import sequence_caption, sequence_picture


@dataclass(frozen=True)
class OfAPlugin(SignalModel):
    te: tuple[float, ...] = setting("echo time", "TE", bids="EchoTime", plausible=(5.0, 500.0))

    name: ClassVar[str] = "of-a-plugin"
    title: ClassVar[str] = "Decay of a plugin"
    formula: ClassVar[str] = r"S = A\,e^{-TE/T_2}"
    reference: ClassVar[str] = "Somebody 2020, doi:10.1000/xyz"
    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter("A", "a.u.", (0.0, np.inf), "amplitude", meaning="amplitude"),
        Parameter("T2", "ms", (1.0, 5_000.0), "time", suffix="T2map", meaning="transverse relaxation time"),
    )

    def shape(self, T2: Array) -> Array:  # type: ignore[override]
        return namespace(T2).exp(-column(self.te, T2) / T2)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("model", signal_models().values(), ids=signal_models())
def test_the_page_has_what_the_model_declares(model: type[SignalModel]) -> None:
    text = sequence_page(model)
    assert text.startswith(f"# {model.title}\n") and model.formula and f"$$\n{model.formula}\n$$" in text
    for s in settings_of(model).values():
        (row,) = [line for line in rows(text) if line.startswith(f"| {s.title[:1].upper()}{s.title[1:]} (")]
        assert all(f"`{field}`" in row for field in s.sidecar_fields)
        option = option_of(s, model)
        assert (f"{option}=" if option.startswith("--set") else option) in row
        low, high = s.plausible
        assert f"{low:g}" in row and (high == np.inf or f"{high:,g}" in row)
    for q in (*model.parameters, *model.derived):
        name = shown_name(q.name).replace("*", r"\*")
        (row,) = [line for line in rows(text) if line.startswith(f"| {name} |")]
        assert q.meaning[:20].replace("*", r"\*") in row and ("map`" in row)
    assert "https://doi.org/10." in text and f"rimap map data -o maps{' --sequence' * (not model.bids_suffix)}" in text
    assert f"](../there/{model.name}.html)" in sequences_page({n: f"../there/{n}.html" for n in signal_models()})


@pytest.mark.parametrize("model", signal_models().values(), ids=signal_models())
def test_in_a_terminal_it_has_no_table_and_no_latex(model: type[SignalModel]) -> None:
    text = sequence_page(model, terminal=True)
    assert not rows(text) and "$$" not in text and as_text(model.formula) in text
    for q in (*model.parameters, *model.derived):
        name = shown_name(q.name).replace("*", r"\*")
        assert f"- **{name}**: " in text


def test_what_the_paper_measured_is_on_the_page_of_look_locker() -> None:
    text = " ".join(sequence_page(signal_models()["look-locker"]).split())
    assert "The CINE inversion recovery of Sabidussi et al. 2021" in text and r"is T1\*" in text


def test_what_only_some_models_declare_is_said() -> None:
    models = signal_models()
    assert "If TR is not known: T1 is right where TR exceeds 5 T1" in sequence_page(models["ir"])
    assert "B is expected to be 1 to 2.1." in sequence_page(models["ir"])
    assert "the images decide between `mese` and `t2`" in sequence_page(models["mese"])
    assert "1 without a map" in sequence_page(models["vfa"])
    assert "rimap simulate" not in sequence_page(models["mp2rage-uni"])  # its images are computed from others


def test_a_model_of_a_plugin_has_a_page_without_a_docstring() -> None:
    text = sequence_page(OfAPlugin, picture="x.png", caption="What it shows.")
    assert "OfAPlugin(" not in text
    assert "| Echo time (TE) | 5 to 500 ms | one for each image | `EchoTime` | `--times-ms` |" in text
    assert "![Signal and simulated maps: Decay of a plugin](x.png)" in text and "What it shows." in text
    assert "[doi:10.1000/xyz](https://doi.org/10.1000/xyz)" in text


@pytest.mark.parametrize("model", [*signal_models().values(), OfAPlugin], ids=lambda m: m.name)
def test_the_usual_protocol_can_be_estimated_from_and_is_plausible(model: type[SignalModel]) -> None:
    usual = usual_protocol(model)
    assert len(set(usual.conditions)) >= min(2, usual.n_images)
    for s in usual.settings.values():
        values = np.ravel(np.asarray(getattr(usual, s.name) if getattr(usual, s.name) is not None else [], dtype=float))
        assert ((values >= s.plausible[0]) & (values <= s.plausible[1])).all(), s.name


def test_the_picture_shows_the_signal_and_a_map_of_the_simulated_slice() -> None:
    picture = np.asarray(Image.open(io.BytesIO(sequence_picture(OfAPlugin))).convert("RGB")).astype(int)
    height, width, _ = picture.shape
    assert width > 2.5 * height
    halves = {
        side: picture[:, part].reshape(-1, 3)
        for side, part in {"curve": np.s_[: width // 3], "maps": np.s_[width // 2 :]}.items()
    }
    grey = {side: np.ptp(half, axis=1) < 12 for side, half in halves.items()}
    assert 0.005 < (~grey["curve"]).mean() < 0.2, "three coloured lines on white"
    assert (~grey["maps"]).mean() > 0.2, "maps in colours"
    caption = sequence_caption(OfAPlugin)
    assert re.search(r"TE 5 to 500 ms, 8 values", caption) and "T2 of one slice" in caption and "`mle`" in caption
