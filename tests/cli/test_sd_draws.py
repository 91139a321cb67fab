"""`--sd-draws`: the standard deviations of a network reach files and report, which say what they are."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from rimap.errors import InputError
from rimap.estimators.network_files import CHECKSUMS, WEIGHTS
from rimap.signals.gradient_echo import GradientEcho
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.workflow import Request
from rimap.workflow.estimator_choice import chosen


def test_maps_sidecar_and_report(bids, rimap, tmp_path):
    out = tmp_path / "out"
    done = rimap("map", bids, "-o", out, "--sd-draws", 2, "--threads", 1)
    assert done.exit_code == 0, done.output
    (sd,), (T1,) = (list(out.rglob(f"sub-01_{tail}.nii.gz")) for tail in ("desc-sd_T1map", "T1map"))
    relative = nib.load(sd).get_fdata() / nib.load(T1).get_fdata()
    assert 0.001 < np.nanmedian(relative) < 0.1
    sidecar = json.loads(sd.with_name(sd.name.replace(".nii.gz", ".json")).read_text())
    assert "parametric bootstrap, 2 draws" in sidecar["Description"]
    settings = sidecar["EstimatorSettings"]
    assert settings["sd_draws"] == 2
    sums = (WEIGHTS / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    assert f"{settings['network_sha256']}  {settings['network']}.onnx" in sums  # which file it was, beyond its name
    (page,) = out.rglob("*.html")
    text = page.read_text(encoding="utf-8")
    assert (
        "(parametric bootstrap, 2 draws)" in text and "parametric bootstrap with 2 noise draws around the maps" in text
    )
    assert "are Cramér-Rao bounds at the estimate" not in text


def test_it_is_for_the_series_that_a_network_maps(tmp_path):
    request = Request(inputs=(tmp_path,), out=tmp_path, estimator_options={"sd_draws": 4})
    assert chosen(request, InversionRecovery)[0].sd_draws == 4
    assert chosen(request, GradientEcho)[0].name == "mle"


@pytest.mark.parametrize(("estimator", "n", "message"), [("mle", 4, "no such option"), (None, 1, "2 or more draws")])
def test_refused(estimator, n, message, tmp_path):
    request = Request(inputs=(tmp_path,), out=tmp_path, estimator=estimator, estimator_options={"sd_draws": n})
    with pytest.raises(InputError, match=message):
        chosen(request, InversionRecovery)
