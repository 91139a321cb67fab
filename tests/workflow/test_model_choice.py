"""T2 decay or a train with stimulated echoes: what the images support, what the user names, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from benchmarks.bench_epg import ASKED_BIAS, mean_bias, phantom

import rimap
from rimap import Gaussian, MultiEchoSpinEcho, Rician, T2Decay
from rimap.errors import InputError
from rimap.estimators.checks.model_selection import evidence
from rimap.io import find_series
from rimap.signals.slice_profile import PROFILES, Gauss, Hard, Sinc
from rimap.workflow import Request, map_series, summary
from rimap.workflow.checks import finished
from rimap.workflow.model_choice import MARGIN, Decision, decide, possible_models, settled

TRAINS = {
    "32 echoes": 10.0 * np.arange(1, 33),
    "10 echoes": 12.9 * np.arange(1, 11),
    "5 echoes": 20.0 * np.arange(1, 6),
}
SHAPE = (36, 36, 1)


def tissue(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A and T2 in patches, and a field of B1 that falls off, around 1."""
    rng = np.random.default_rng(seed)
    T2 = rng.choice([45.0, 70.0, 110.0, 250.0], (9, 9, 1)).repeat(4, 0).repeat(4, 1) * rng.normal(1, 0.05, SHAPE)
    y, x = np.meshgrid(np.linspace(-1, 1, 36), np.linspace(-1, 1, 36), indexing="ij")
    return rng.uniform(0.8, 1.2, SHAPE), T2, (1 - 0.12 * (x**2 + y**2))[..., None]


def decay(te: Any, noise: Any, seed: int = 0) -> np.ndarray:
    A, T2, _ = tissue(seed)
    return np.asarray(noise.sample(T2Decay(tau=te).signal(np.stack([A, T2])), np.random.default_rng(seed)))


def train(te: Any, profile: Any, noise: Any, B1: float = 0.9, seed: int = 0) -> np.ndarray:
    A, T2, field = tissue(seed)
    model = MultiEchoSpinEcho(te=te, profile=profile)
    maps = {"A": A, "B1": B1 * field, "T1": 0 * A + 1000.0, "T2": T2}
    clean = model.signal(np.stack([maps[p.name] for p in model.parameters]))
    return np.asarray(noise.sample(clean, np.random.default_rng(seed)))


def written(folder: Path, images: np.ndarray, te: Any) -> Path:
    """Write a BIDS series."""
    anat = folder / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (folder / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    for n, (image, t) in enumerate(zip(images, te), start=1):
        stem = f"sub-01_echo-{n}_MESE"
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.diag([2.0, 2, 3, 1])), anat / f"{stem}.nii.gz")
        (anat / f"{stem}.json").write_text(json.dumps({"EchoTime": t / 1000}))
    return folder


def choice(folder: Path, out: Path, **options: Any) -> tuple[Request, Decision | None]:
    request = Request(inputs=folder, out=out, **options)
    (files,) = find_series(folder, sequence=request.sequence)
    return decide(request, files)


@pytest.mark.parametrize(("noise", "snr"), [(Gaussian, 10), (Rician, 10), (Rician, 100)])
@pytest.mark.parametrize("te", TRAINS.values(), ids=TRAINS)
def test_a_single_exponential_stays_t2(te: Any, snr: float, noise: Any, tmp_path: Path) -> None:
    request, decision = choice(written(tmp_path / "in", decay(te, noise(sigma=1 / snr)), te), tmp_path / "out")
    assert request.sequence == "t2" and request.settings == {} and decision is not None
    assert "T2 decay (t2) was chosen" in decision.text and "--sequence mese" in decision.text


@pytest.mark.parametrize("channels", [4, 8])
def test_the_noise_floor_of_several_coils_is_not_taken_for_stimulated_echoes(channels: int, tmp_path: Path) -> None:
    te, sigma = TRAINS["32 echoes"], 1 / 30
    A, T2, _ = tissue(1)
    clean, rng = T2Decay(tau=te).signal(np.stack([A, T2])), np.random.default_rng(1)
    power = rng.chisquare(2 * channels - 1, clean.shape) * sigma**2
    images = np.sqrt((clean + sigma * rng.standard_normal(clean.shape)) ** 2 + power)
    assert choice(written(tmp_path / "in", images, te), tmp_path / "out")[0].sequence == "t2"


@pytest.mark.parametrize(("te", "snr"), [(TRAINS["32 echoes"], 100), (TRAINS["10 echoes"], 10)], ids=["32", "10"])
@pytest.mark.parametrize("profile", [Hard(), Sinc(2.0, 1.3), Sinc(3.0, 1.0), Sinc(2.5, 1.15), Gauss(1.7, 1.1)], ids=str)
def test_a_train_is_known_by_its_stimulated_echoes(te: Any, profile: Any, snr: float, tmp_path: Path) -> None:
    folder = written(tmp_path / "in", train(te, profile, Rician(sigma=1 / snr)), te)
    request, decision = choice(folder, tmp_path / "out")
    assert request.sequence == "mese" and decision is not None
    assert "Multi-echo spin echo (mese) was chosen instead of T2 decay (t2)" in decision.text
    assert "per voxel" in decision.text and "--sequence t2" in decision.text
    found = request.settings["profile"]
    if snr == 100 and profile in PROFILES:
        assert found == profile
    # An equivalent profile has the same T2: noise-free echoes of the true one, fitted with it.
    true, fitted = (MultiEchoSpinEcho(te=te, profile=p) for p in (profile, found))
    T2 = np.array([50.0, 80.0, 150.0])
    echoes = true.shape(B1=np.full(3, 0.87), T1=np.full(3, 1000.0), T2=T2)
    B1, grid = np.linspace(0.5, 1.3, 81), np.geomspace(20, 400, 600)
    atoms = fitted.shape(B1=B1[:, None], T1=np.array([[1000.0]]), T2=grid[None])
    alike = np.einsum("nv,nbt->vbt", echoes, atoms) / np.linalg.norm(atoms, axis=0)
    best = grid[alike.reshape(3, -1).argmax(1) % len(grid)]
    assert abs(best / T2 - 1).max() < (0.02 if snr == 100 else 0.06)  # a single exponential is off by 10 % and more


def test_hard_pulses_of_180_degrees_are_t2(tmp_path: Path) -> None:
    te = TRAINS["32 echoes"]
    A, T2, _ = tissue(0)
    kappa = np.stack([A, 0 * A + 1, 0 * A + 1000, T2])
    images = Rician(sigma=0.02).sample(MultiEchoSpinEcho(te=te, profile="hard").signal(kappa), np.random.default_rng(0))
    assert choice(written(tmp_path / "in", images, te), tmp_path / "out")[0].sequence == "t2"


def test_uneven_echo_times_are_t2_without_a_word(tmp_path: Path) -> None:
    te = [10.0, 25.0, 50.0, 90.0, 150.0]
    folder = written(tmp_path / "in", decay(te, Gaussian(sigma=0.01)), te)
    request, decision = choice(folder, tmp_path / "out")
    assert request.sequence == "t2" and decision is not None and decision.text == ""
    (result,) = map_series(Request(inputs=folder, out=tmp_path / "maps", estimator="nlls")).results
    assert not any("chosen" in n for n in result.notes)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    te = TRAINS["10 echoes"]
    images = train(te, Sinc(2.0, 1.1), Rician(sigma=0.01))
    return written(tmp_path_factory.mktemp("scan") / "in", images, te)


def test_sequence_overrides_and_is_silent(scan: Path, tmp_path: Path) -> None:
    for name in ("t2", "mese"):
        request, decision = choice(scan, tmp_path / name, sequence=name)
        assert request.sequence == name and decision is None and "profile" not in request.settings


@pytest.mark.parametrize(
    "options",
    [{"given": {"T1": 1000.0}}, {"given": {"B1": 0.9}}, {"fixed": {"B1": 0.9}}, {"bounds": {"B1": (0.6, 1.2)}}],
)
def test_a_name_that_only_one_model_has_chooses_it_and_the_images_the_profile(
    scan: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    request, decision = choice(scan, tmp_path / "out", **options)
    assert request.sequence == "mese" and "profile" in request.settings and decision is not None
    (name,) = options
    assert f"because of --{name} {next(iter(options[name]))}" in decision.text
    if name == "given" and "T1" in options[name]:
        assert request.settings["profile"] == Sinc(2.0, 1.1)


def test_a_profile_that_the_user_sets_stays(scan: Path, tmp_path: Path) -> None:
    request, decision = choice(scan, tmp_path / "out", settings={"profile": "gauss"})
    assert request.sequence == "mese" and request.settings == {"profile": "gauss"}
    assert decision is not None and "--set profile" in decision.text and "candidates" not in decision.text


def test_a_name_that_only_a_train_has_needs_a_train(tmp_path: Path) -> None:
    te = [10.0, 25.0, 50.0, 90.0, 150.0]
    folder = written(tmp_path / "in", decay(te, Gaussian(sigma=0.01)), te)
    with pytest.raises(InputError, match="evenly spaced"):
        choice(folder, tmp_path / "out", given={"T1": 1000.0})


def test_a_network_serves_its_own_sequence(scan: Path, tmp_path: Path) -> None:
    (files,) = find_series(scan)
    models = possible_models(Request(inputs=scan, out=tmp_path, estimator="resnet"), files)
    assert [m.name for m in models] == ["t2"]
    of_any = possible_models(Request(inputs=scan, out=tmp_path, estimator="rim"), files)
    assert [m.name for m in of_any] == ["t2", "mese"]
    assert [m.name for m in possible_models(Request(inputs=scan, out=tmp_path), files)] == ["t2", "mese"]


def test_a_map_of_T1_counts_voxel_by_voxel() -> None:
    te = TRAINS["32 echoes"]
    A, T2, B1 = (m.reshape(-1) for m in tissue(3))
    T1 = np.where(np.arange(A.size) % 2, 300.0, 2500.0)
    model = MultiEchoSpinEcho(te=te, profile=Sinc(2.0, 1.2))
    kappa = np.stack([{"A": A, "B1": 0.85 * B1, "T1": T1, "T2": T2}[p.name] for p in model.parameters])
    images = Gaussian(sigma=0.005).sample(model.signal(kappa), np.random.default_rng(0))
    x = np.stack(np.unravel_index(np.arange(A.size), SHAPE)).astype(float)
    models = [T2Decay(tau=te), model, model]
    found = evidence(images, x, models, [{}, {"T1": 1000.0}, {"T1": T1}], has_floor=False)
    assert found.aic[2] < found.aic[1] - MARGIN < found.aic[0] and found.sigma == pytest.approx(0.005, rel=0.1)
    known = evidence(images, x, models, [{}, {"T1": T1, "B1": 0.85 * B1}, {"T1": T1, "B1": B1}], has_floor=False)
    assert known.aic[1] < known.aic[2] - MARGIN


def test_the_decision_is_in_summary_report_and_sidecar_and_is_made_once(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    request = Request(inputs=scan, out=out, estimator="nlls", threads=1)
    run = map_series(request)
    (result,) = run.results
    text = " ".join(" ".join(summary.notes(run.results)).split())
    assert "Multi-echo spin echo (mese) was chosen instead of T2 decay (t2)" in text and "AIC is lower by" in text
    assert not any("chosen" in w for w in result.warnings)
    about = json.loads(next(out.rglob("*_T2map.json")).read_text())
    assert about["SignalModel"] == "mese" and any("--sequence t2" in n for n in about["Notes"])
    assert about["ModelOptions"]["profile"]["Class"] == "Sinc" if "ModelOptions" in about else True
    assert "was chosen instead of T2 decay" in result.report.read_text()
    assert result.main == "T2" and result.statistics["T2"].median > 0
    # OUT keeps the decision: the same request does not look at the images again, and the maps are finished.
    (files,) = find_series(scan)
    kept = settled(request, files)
    assert kept is not None and kept[1] == result.decision and finished(request, files)
    assert map_series(request).kept == (files.label,)
    several = summary.notes([result, result])
    assert sum("was chosen" in n for n in several) == 1 and not any("per voxel" in n for n in several)


def test_a_decision_of_another_request_is_made_again(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    choice(scan, out)
    (files,) = find_series(scan)
    assert settled(Request(inputs=scan, out=out), files) is not None
    assert settled(Request(inputs=scan, out=out, skip_first=1), files) is None


def test_the_first_echo_need_not_be_left_out_of_a_train(scan: Path, tmp_path: Path) -> None:
    request = Request(inputs=scan, out=tmp_path / "out", estimator="nlls", skip_first=1)
    (result,) = map_series(request).results
    assert result.title == "Multi-echo spin echo"
    assert any("need not be left out" in w for w in result.warnings)


def test_loose_files_are_decided_too(scan: Path, tmp_path: Path) -> None:
    files = sorted((scan / "sub-01" / "anat").glob("*.nii.gz"))
    stack = np.stack([np.asarray(nib.load(f).dataobj) for f in files], axis=-1)
    nib.save(nib.Nifti1Image(stack, np.diag([2.0, 2, 3, 1])), tmp_path / "echoes.nii.gz")
    te = TRAINS["10 echoes"]
    (tmp_path / "echoes.json").write_text(json.dumps({"EchoTime": (te / 1000).tolist()}))
    request, decision = choice(tmp_path / "echoes.nii.gz", tmp_path / "out")
    assert request.sequence == "mese" and request.settings["profile"] == Sinc(2.0, 1.1) and decision is not None


def test_few_voxels_decide_nothing(tmp_path: Path) -> None:
    te = TRAINS["10 echoes"]
    images = np.zeros((10, 12, 12, 1))
    images[:, 5, 5] = np.exp(-te / 80)[:, None]
    request, decision = choice(written(tmp_path / "in", images, te), tmp_path / "out")
    assert request.sequence == "t2" and decision is not None and "too few voxels" in decision.text


@pytest.mark.parametrize(
    ("subject", "profile"), [("sub-philips3TplateT2", Sinc(2.0, 1.3)), ("sub-philips3TplateT1", None)]
)
def test_the_phantom_is_a_train(subject: str, profile: Any, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "nist_phantom" / subject
    files = next(f for f in find_series(folder) if f.suffix == "MESE")
    request, _ = decide(Request(inputs=folder, out=tmp_path), files)
    assert request.sequence == "mese" and request.settings["profile"] in (
        (profile,) if profile else (Sinc(2.0, 1.3), Sinc(1.5, 1.35))
    )


@pytest.mark.parametrize("subject", ASKED_BIAS)
def test_T2_of_the_phantom_with_everything_at_its_default(subject: str, shared_data: Path) -> None:
    """Spheres of 16 to 581 ms; T1 is given where the data set has it."""
    spheres, chosen = phantom(shared_data, subject)
    assert "mle" in chosen and "Multi-echo spin echo (mese) was chosen" in chosen
    assert mean_bias(spheres) <= ASKED_BIAS[subject]


@pytest.mark.parametrize("sequence", [None, "t2"])
def test_python_reads_a_series_with_the_model_that_the_command_line_maps(sequence: str | None, tmp_path: Path) -> None:
    te, noise = TRAINS["32 echoes"], Rician(sigma=1 / 60)
    folder = written(tmp_path / "in", train(te, Sinc(2.7, 1.2), noise), te)
    request, decision = choice(folder, tmp_path / "out", sequence=sequence)
    series = rimap.read(folder, sequence=sequence)
    assert series.model.name == request.sequence == ("mese" if sequence is None else "t2")
    if sequence is None:
        assert decision is not None and decision.text in str(series.notes[-1])
        assert all(getattr(series.model, name) == value for name, value in request.settings.items())
    else:
        assert not any("was chosen" in str(n) for n in series.notes)


def test_what_only_a_train_has_can_be_given_in_python(scan: Path) -> None:
    series = rimap.read(
        scan, given={"T1": 900.0}, settings={"refocusing_angle": 170.0}, times_ms=iter(TRAINS["10 echoes"])
    )
    assert isinstance(series.model, MultiEchoSpinEcho) and series.given["T1"] == 900.0
    assert np.all(np.asarray(series.model.refocusing_angle) == 170.0) and len(series.model.times) == 10


@pytest.mark.parametrize("option", [{"settings": {"refocusing_angel": 170.0}}, {"given": {"TT1": 900.0}}])
def test_a_name_that_no_model_has_is_refused_in_python(scan: Path, option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(next(iter(option.values()))))):
        rimap.read(scan, **option)
