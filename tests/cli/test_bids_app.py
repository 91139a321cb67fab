"""`rimap bids`: the whole data set on several processes or a Dask cluster, with the maps of one process."""

from __future__ import annotations

import contextlib
import csv
import functools
import gzip
import json
import multiprocessing
import os
import re
import shutil
import signal
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from rimap.errors import InputError
from rimap.workflow import SILENT, Request, memory
from rimap.workflow.bids import execution
from rimap.workflow.bids.participant_level import _find
from rimap.workflow.bids.workers import Team

SUBJECTS = ("01", "02", "03")


@pytest.fixture(scope="module")
def original(tmp_path_factory, make):
    """A data set of three subjects whose T1 differ."""
    root = tmp_path_factory.mktemp("study") / "bids"
    for n, subject in enumerate(SUBJECTS):
        make.bids(root, images=np.roll(make.images(shape=(12, 10, 4)), n, axis=1), subject=subject)
    return root


@pytest.fixture
def study(original, tmp_path):
    """A copy of it that a test may harm."""
    return Path(shutil.copytree(original, tmp_path / "bids"))


@pytest.fixture(scope="module")
def whole(original, app, tmp_path_factory):
    """What `rimap map` makes of it with one process, by name of estimator."""

    @functools.cache
    def of(estimator):
        out = tmp_path_factory.mktemp("whole")
        args = ["map", original, "-o", out, "--quiet", "--estimator", estimator, "--threads", 1]
        done = CliRunner().invoke(app, [str(a) for a in args], prog_name="rimap")
        assert done.exit_code == 0, done.output
        return images(out)

    return of


def assert_same(found, expected):
    """Sidecars agree exactly; maps to the precision of their files, because threads may sum in another order."""
    assert found.keys() == expected.keys()
    for name, content in found.items():
        if name.endswith(".json"):
            assert content == expected[name], name
            continue
        here, there = (nib.Nifti1Image.from_bytes(gzip.decompress(x)).get_fdata() for x in (content, expected[name]))
        assert np.allclose(here, there, rtol=1e-5, atol=1e-6 * np.nanmax(abs(there)), equal_nan=True), name


def images(out):
    """The bytes of every map and sidecar, by name."""
    return {
        p.name: p.read_bytes()
        for p in out.rglob("sub-*")
        if p.name.endswith((".nii.gz", ".json")) and ".rimap" not in p.parts
    }


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


# -- participant ----------------------------------------------------------------------------------


def test_finished_series_are_kept_and_half_written_ones_done_again(rimap, study, tmp_path):
    out = tmp_path / "out"
    args = ("bids", study, out, "participant", "--nprocs", 1, "--estimator", "nlls")
    assert rimap(*args).exit_code == 0
    before, times = images(out), {p.name: p.stat().st_mtime_ns for p in out.rglob("*.nii.gz")}
    (out / "sub-02" / "anat" / "sub-02_M0map.nii.gz").unlink()
    done = rimap(*args)
    assert done.exit_code == 0 and "1 series mapped" in done.output and "2 series were already finished" in done.output
    changed = {p.name for p in out.rglob("*.nii.gz") if p.stat().st_mtime_ns != times[p.name]}
    assert changed and all(name.startswith("sub-02") for name in changed) and images(out) == before
    refused = rimap(*args, "--skip-first", 1)
    assert refused.exit_code == 2 and "3 of 3 series already have maps with other settings" in refused.output
    assert "skip_first" in refused.output and "--overwrite" in refused.output and images(out) == before
    assert rimap(*args, "--skip-first", 1, "--noise", "gaussian", "--sigma", 1, "--overwrite").exit_code == 0
    assert images(out) != before


def break_image(study):
    path = study / "sub-02" / "anat" / "sub-02_inv-3_IRT1.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    return path


def break_sidecar(study):
    path = study / "sub-02" / "anat" / "sub-02_inv-3_IRT1.json"
    path.write_text("{")
    return path


def same_image_twice(study):
    path = study / "sub-02" / "anat" / "sub-02_inv-3_IRT1.nii.gz"
    twin = path.with_name("sub-02_inv-3_IRT1.nii")
    twin.write_bytes(b"")
    return twin


@pytest.mark.parametrize("harm", [break_image, break_sidecar, same_image_twice])
def test_one_subject_that_fails_stops_no_other(rimap, study, tmp_path, harm):
    out = tmp_path / "out"
    args = ("bids", study, out, "participant", "--nprocs", 1, "--estimator", "nlls", "--skip-bids-validation")
    original = {p: p.read_bytes() for p in study.rglob("*") if p.is_file()}
    broken = harm(study)
    done = rimap(*args)
    assert done.exit_code == 2 and "bug" not in done.output, done.output
    assert {p.name for p in out.glob("*.html")} == {"sub-01_T1map.html", "sub-03_T1map.html"}
    (row,) = table(out / "failed.tsv")
    assert row["participant_id"] == "sub-02" and row["reason"] and row["reason"] in done.output
    again = rimap(*args)
    assert again.exit_code == 2 and "2 series were already finished" in again.output
    if broken in original:
        broken.write_bytes(original[broken])
    else:
        broken.unlink()
    repaired = rimap(*args)
    assert repaired.exit_code == 0 and not (out / "failed.tsv").exists(), repaired.output
    assert len(list(out.glob("*.html"))) == 3


def test_no_more_series_at_once_than_memory_holds(rimap, study):
    each = memory.needed("nlls", (12, 10, 4), 4) >> 20
    args = ("bids", study, "out", "participant", "--estimator", "nlls", "--nprocs", 3, "--participant-label", "01,02")
    done = rimap(*args, "--memory", f"{int(1.5 * each)}M")
    assert done.exit_code == 0 and "1 series in parallel instead of 3" in done.output, done.output


def test_labels_choose(rimap, study, tmp_path):
    args = ("participant", "--estimator", "nlls", "--nprocs", 1)
    done = rimap("bids", study, "out", *args, "--participant-label", "sub-01", "03")  # as other BIDS Apps have it
    assert done.exit_code == 0 and {p.name[:6] for p in Path("out").glob("*.html")} == {"sub-01", "sub-03"}
    missing = rimap("bids", study, "out", *args, "--participant-label", "09")
    assert missing.exit_code == 2 and "sub-09" in missing.output and "sub-01" in missing.output


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("study", "out", "session"), ("level of analysis", "participant, group")),
        (("study", "out", "participant", "01"), ("got also 01", "--participant-label 01,02")),
        (("nothing", "out", "participant"), ("expected an existing BIDS folder",)),
        (("study", "out", "participant", "--scheduler", "tcp://a:1", "--cluster", "local"), ("one of them",)),
        (("study", "out", "participant", "--cluster", "slumr"), ("slurm",)),
        (("study", "out", "participant", "--cluster", "local", "--cluster-options", "x.toml"), ("--cluster slurm",)),
        (("study", "out", "participant", "--cluster", "slurm", "--cluster-options", "x.toml"), ("x.toml",)),
        (("study", "out", "participant", "--estimator", "mel"), ("mle",)),
        (("study", "out", "participant", "--estimator", "nlls", "--noise", "rician"), ("Gaussian", "--estimator mle")),
        (("study", "study", "participant"), ("input data set itself",)),
        (("study", "out", "participant", "--sequence", "MESE"), ("--sequence mese", "sub-01 IRT1")),
        (
            ("study", "out", "participant", "--mask", "nowhere"),
            ("--mask: expected an existing file or folder, got nowhere",),
        ),
        (("study", "out", "group"), ("expected T1 or T2 maps, got none", "participant")),
    ],
)
def test_refusals(rimap, study, args, words):
    study.rename(study.with_name("study"))
    done = rimap("bids", *args)
    assert done.exit_code == 2 and all(w in done.output for w in words), done.output
    assert not Path("out").exists()


def test_what_belongs_to_no_subject_is_refused(rimap, nifti):
    nifti.parent.joinpath("loose").mkdir()
    nifti.rename(nifti.parent / "loose" / nifti.name)
    done = rimap("bids", "loose", "out", "participant", "--skip-bids-validation", "--sequence", "ir")
    assert done.exit_code == 2 and "expected series of subjects" in done.output and "rimap map" in done.output, (
        done.output
    )


def test_beside_a_broken_subject_the_labels_mean_the_same(make, tmp_path):
    for subject, kind in (("01", "IRT1"), ("02", "IRT1"), ("03", "MESE")):
        make.bids(tmp_path, subject=subject, entities="_run-01", suffix=kind)
    broken = tmp_path / "sub-02" / "anat" / "sub-02_run-01_inv-1_IRT1.nii"
    broken.write_bytes(b"")  # the same image twice
    found, failures = _find(Request(inputs=(tmp_path,), out=tmp_path, runs=("1",), sequence="ir"), SILENT)
    assert [f.label for f in found] == ["sub-01 run-01 IRT1"]
    assert [f.label for f in failures] == ["sub-02 run-01 IRT1"]


def test_what_is_no_data_set_is_refused_unless_told_not_to_look(rimap, study, monkeypatch, tmp_path):
    (study / "dataset_description.json").unlink()
    args = ("bids", study, "out", "participant", "--estimator", "nlls", "--nprocs", 1)
    done = rimap(*args)
    assert done.exit_code == 2 and "--skip-bids-validation" in done.output
    assert rimap(*args, "--skip-bids-validation").exit_code == 0
    (study / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    validator = tmp_path / "bin" / "bids-validator-deno"
    validator.parent.mkdir()
    issue = {"issues": {"issues": [{"code": "ODD_FILE", "severity": "error", "location": "/sub-01/odd.txt"}]}}
    validator.write_text(f"#!/bin/sh\necho '{json.dumps(issue)}'\n")
    validator.chmod(0o755)
    monkeypatch.setenv("PATH", f"{validator.parent}{os.pathsep}{os.environ['PATH']}")
    invalid = rimap(*args)
    assert invalid.exit_code == 2 and "ODD_FILE sub-01/odd.txt" in invalid.output


def test_masks_and_labels_of_each_subject(rimap, study, make, tmp_path):
    for n, subject in enumerate(SUBJECTS):
        labels = np.zeros((12, 10, 4), np.int16)
        labels[: 3 + n], labels[6:] = 1, 2
        anat = tmp_path / "seg" / f"sub-{subject}" / "anat"
        make.save(anat / f"sub-{subject}_dseg.nii.gz", labels)
        make.save(anat / f"sub-{subject}_desc-brain_mask.nii.gz", (labels > 0).astype(np.uint8))
        make.save(anat / f"sub-{subject}_desc-other_mask.nii.gz", np.ones_like(labels))
    (tmp_path / "seg" / "sub-03" / "anat" / "sub-03_dseg.nii.gz").unlink()
    args = ("bids", study, "out", "participant", "--estimator", "nlls", "--nprocs", 1)
    done = rimap(
        *args, "--mask", tmp_path / "seg", "--rois", tmp_path / "seg" / "sub-{sub}" / "anat" / "sub-{sub}_dseg.nii.gz"
    )
    assert done.exit_code == 2 and "sub-03_dseg.nii.gz" in table(Path("out/failed.tsv"))[0]["reason"]
    status = np.asarray(nib.load("out/sub-02/anat/sub-02_desc-status_T1map.nii.gz").dataobj)
    assert (status[4:6] == 6).all() and (status[:4] == 0).all()
    assert [int(r["voxels"]) for r in table(Path("out/sub-02_T1map_rois.tsv"))] == [160, 240]


# -- processes and workers that are killed ---------------------------------------------------------


@contextlib.contextmanager
def killing(victims, until):
    """Kill what `victims` names first, as soon as `until` is true."""
    stop = threading.Event()
    killed = []

    def work():
        while not stop.is_set() and not killed:
            if until():
                for pid in victims()[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield killed
    finally:
        stop.set()
        thread.join()


def test_two_processes_give_the_files_of_one_also_where_one_is_killed(rimap, study, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(sys, "argv", ["rimap", "bids", "as", "typed"])
    out = tmp_path / "out"
    victims = lambda: [p.pid for p in multiprocessing.active_children()]  # noqa: E731
    with killing(victims, lambda: any(out.glob("*.html"))) as killed:
        done = rimap("bids", study, out, "participant", "--nprocs", 2, "--estimator", "nlls")
    assert done.exit_code == 0 and killed, done.output
    assert done.output.count("% ok") == 3 and "3 series mapped" in done.output
    assert "rimap bids as typed" in (out / "sub-01_T1map.html").read_text()
    assert (
        images(out) == whole("nlls")
        and len(whole("nlls")) > 3 * 10
        and not [p for p in out.rglob(".*") if p.suffix in (".tmp", ".old")]
    )


@pytest.fixture(scope="module")
def workers():
    """A Dask cluster of two worker processes, and their process ids."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        yield cluster


def pids(cluster):
    return [nanny.process.pid for nanny in cluster.workers.values() if nanny.process and nanny.process.pid]


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("limit", [None, 6 << 30])
def test_series_at_once_share_the_memory(rimap, study, tmp_path, monkeypatch, cluster, limit):
    told = []

    @contextlib.contextmanager
    def three(app, options, n, listener):
        with ThreadPoolExecutor(3) as executor:
            yield Team(executor, 3, 1, cluster)

    def work(task, crew=None):
        told.append(task.request.memory)
        raise InputError("not mapped")

    monkeypatch.setattr(execution, "team", three)
    monkeypatch.setattr(execution, "work", work)
    monkeypatch.setattr(memory, "available", lambda: 3 << 30)
    more = () if limit is None else ("--memory", f"{limit >> 30}GiB")
    rimap("bids", study, tmp_path / "out", "participant", "--estimator", "nlls", "--nprocs", 3, *more)
    # a worker of a cluster is on another machine, maybe: it finds out what is free there
    share = 2 << 30 if limit else None if cluster else int(0.8 * (3 << 30)) // 3
    assert told == [share] * 3


def test_a_worker_of_a_cluster_takes_of_its_own_memory(workers):
    distributed = pytest.importorskip("distributed")
    with distributed.Client(workers, set_as_default=False) as client:
        (limit, *_) = (w["memory_limit"] for w in client.scheduler_info()["workers"].values())
        assert 0 < client.submit(memory.available, pure=False).result() < limit
    assert memory._of_a_dask_worker() == []


def test_a_worker_of_a_cluster_that_is_killed_costs_no_result(rimap, study, tmp_path, workers, whole):
    out = tmp_path / "out"
    with killing(lambda: pids(workers), lambda: any(out.glob("*.html"))) as killed:
        args = ("--scheduler", workers.scheduler_address, "--estimator", "mle")
        done = rimap("bids", study, out, "participant", *args)
    assert done.exit_code == 0 and killed and "3 series mapped" in done.output, done.output
    assert_same(images(out), whole("mle"))
    done = rimap("bids", study, out, "group", "--scheduler", workers.scheduler_address)
    assert done.exit_code == 0 and len(table(out / "group.tsv")) == 3, done.output


def test_with_more_workers_than_series_a_series_is_cut(rimap, study, tmp_path, workers, whole):
    one = ("--participant-label", "01", "--estimator", "nlls")
    done = rimap("bids", study, tmp_path / "out", "participant", *one, "--scheduler", workers.scheduler_address)
    first = {name: data for name, data in whole("nlls").items() if name.startswith("sub-01")}
    assert done.exit_code == 0 and images(tmp_path / "out") == first, done.output


def test_a_scheduler_that_is_not_there_is_named(rimap, study, monkeypatch):
    monkeypatch.setattr("rimap.parallel.cluster._CONNECT", 0.5)
    done = rimap("bids", study, "out", "participant", "--scheduler", "tcp://127.0.0.1:9")
    assert done.exit_code == 2 and "no Dask scheduler answers" in done.output, done.output


OPTIONS = """
jobs = 2
cores = 4
memory = "16GB"
walltime = "00:30:00"
queue = "short"
interface = "lo"
account = "mri"
job_extra_directives = ["--exclusive"]
job_script_prologue = ["module load python"]
"""


def test_the_toml_of_the_documentation_is_valid(tmp_path):
    from rimap.parallel.cluster import read_options

    (text,) = re.findall(r"```toml[^\n]*\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(), re.S)
    (tmp_path / "slurm.toml").write_text(text)
    assert read_options(tmp_path / "slurm.toml").cores == 8


def test_the_job_script_is_that_of_the_toml(tmp_path):
    jobqueue = pytest.importorskip("dask_jobqueue")
    from rimap.parallel.cluster import read_options, slurm_options

    (tmp_path / "slurm.toml").write_text(OPTIONS)
    with jobqueue.SLURMCluster(**slurm_options(read_options(tmp_path / "slurm.toml"))) as cluster:
        script = cluster.job_script()
    lines = script.splitlines()
    for line in ("-J rimap", "-p short", "-A mri", "--cpus-per-task=4", "--mem=15G", "-t 00:30:00", "--exclusive"):
        assert f"#SBATCH {line}" in lines, script
    assert "module load python" in lines and re.search(r"--nthreads 1 .*--nworkers 4", lines[-1])


def test_jobs_of_slurm_do_the_work(rimap, study, tmp_path, monkeypatch, whole):
    """With an `sbatch` that runs the job script here."""
    pytest.importorskip("dask_jobqueue")
    (tmp_path / "bin").mkdir()
    programs = {
        "sbatch": f'#!/bin/bash\ncp "${{@: -1}}" {tmp_path}/job-$$.sh\n'
        f"setsid bash {tmp_path}/job-$$.sh > {tmp_path}/log 2>&1 < /dev/null &\n"
        'echo "Submitted batch job $!"\n',
        "scancel": '#!/bin/bash\nkill -TERM -- -"$1" 2> /dev/null; exit 0\n',
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "slurm.toml").write_text('cores = 2\nmemory = "8GB"\ninterface = "lo"\n')
    done = rimap(
        "bids", study, tmp_path / "out", "participant", "--estimator", "nlls", "--cluster", "slurm",
        "--cluster-options", tmp_path / "slurm.toml", "--work-dir", tmp_path / "work",
    )  # fmt: skip
    assert done.exit_code == 0 and images(tmp_path / "out") == whole("nlls"), done.output
    assert "waiting for the first worker" in done.output and list(tmp_path.glob("job-*.sh"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("memry = '4GB'", ("unknown key 'memry'", "'memory'")),
        ("cores = 'four'", ("cores: expected a whole number", "'four'")),
        ("memory = 4", ("memory: expected a text",)),
        ("job_extra_directives = '--x'", ("a list of texts",)),
        ("jobs = 0", ("jobs of the cluster: expected a number of 1 or more",)),
        ("jobs = ", ("not valid TOML",)),
    ],
)
def test_what_the_toml_may_say(tmp_path, text, words):
    from rimap.errors import InputError
    from rimap.parallel.cluster import read_options

    (tmp_path / "slurm.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_options(tmp_path / "slurm.toml")
    assert all(w in str(caught.value) for w in words), caught.value


# -- group -----------------------------------------------------------------------------------------


def derivative(out, make, medians, *, labels=True):
    """A derivative with maps of known values: region 1 has the median, region 2 is ten times as long."""
    (out).mkdir()
    (out / "dataset_description.json").write_text('{"Name": "a study", "BIDSVersion": "1.10.0"}')
    for n, T1 in enumerate(medians, start=1):
        anat, stem = out / f"sub-{n:02d}" / "anat", f"sub-{n:02d}"
        values = np.full((6, 5, 4), T1 / 1000)
        values[3:] *= 10
        values[0, 0, 0] = np.nan
        status = np.zeros(values.shape, np.uint8)
        status[0, 0, 0] = 4
        make.save(anat / f"{stem}_T1map.nii.gz", values)
        make.save(anat / f"{stem}_desc-status_T1map.nii.gz", status)
        (anat / f"{stem}_T1map.json").write_text('{"Estimator": "mle"}')
        if labels:
            regions = np.ones(values.shape, np.int16)
            regions[3:] = 2
            make.save(anat / f"{stem}_dseg.nii.gz", regions)
            (anat / f"{stem}_dseg.tsv").write_text("index\tname\n1\twhite matter\n2\tfluid\n")
    return out


def test_the_group_has_the_figures_of_every_region(rimap, make, tmp_path):
    medians = [800, 805, 810, 815, 820, 1200]
    out = derivative(tmp_path / "out", make, medians)
    done = rimap("bids", tmp_path, out, "group", "--skip-bids-validation")
    assert done.exit_code == 0, done.output
    rows = table(out / "group.tsv")
    assert len(rows) == 18 and [r["region"] for r in rows[:3]] == ["signal", "1", "2"]  # the whole, and its regions
    assert rows[0]["participant_id"] == "sub-01" and rows[0]["session_id"] == "n/a"
    white = [r for r in rows if r["region"] == "1"]
    assert [float(r["median"]) for r in white] == pytest.approx(medians, rel=1e-6)
    assert {r["name"] for r in white} == {"white matter"} and {float(r["iqr"]) for r in white} == {0.0}
    assert {(r["voxels"], r["n"]) for r in white} == {("60", "59")}
    assert float(white[0]["share_not_converged"]) == pytest.approx(1 / 60, rel=1e-4)
    assert [r["outlier"] for r in white] == ["n/a"] * 5 + ["high"]
    about = json.loads((out / "group.json").read_text())
    assert list(about) == list(rows[0]) and about["median"]["Units"] == "ms"
    page = (out / "group.html").read_text()
    assert "<script" not in page and not re.search(r"(src|href)=\"(https?:)?//", page)
    assert page.count("<circle") == 3 * 6 + 6 and "Outliers: sub-06" in page and "white matter" in page
    assert 'href="sub-06_T1map.html"' in page and "group.*" in (out / ".bidsignore").read_text().split()


def test_a_map_without_labels_is_listed_and_keeps_the_figures_of_the_whole(rimap, make, tmp_path):
    out = derivative(tmp_path / "out", make, [800, 900], labels=False)
    make.save(tmp_path / "seg" / "sub-01_dseg.nii.gz", np.ones((6, 5, 4), np.int16))
    done = rimap("bids", tmp_path, out, "group", "--skip-bids-validation", "--rois", tmp_path / "seg")
    assert done.exit_code == 0 and "without labels" in done.output and "sub-02_T1map" in done.output
    regions = [(r["participant_id"], r["region"]) for r in table(out / "group.tsv")]
    assert regions == [("sub-01", "signal"), ("sub-01", "1"), ("sub-02", "signal")]
    text = (out / "group.html").read_text()
    assert "Without labels" in text and "sub-02_T1map" in text[text.index("Without labels") :]


def test_without_labels_the_group_has_one_region(rimap, study, tmp_path):
    for level in ("participant", "group"):
        done = rimap("bids", study, "out", level, "--estimator", "nlls", "--nprocs", 1)
        assert done.exit_code == 0, done.output
    rows = table(Path("out/group.tsv"))
    assert [r["region"] for r in rows] == ["signal"] * 3 and all(1000 < float(r["median"]) < 1200 for r in rows)


# -- container -------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def test_the_dockerfile_is_sound():
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    steps = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    assert {name for name, _ in steps} <= {
        "FROM",
        "LABEL",
        "ENV",
        "COPY",
        "RUN",
        "USER",
        "WORKDIR",
        "ENTRYPOINT",
        "CMD",
    }
    last = dict(steps)
    assert json.loads(last["ENTRYPOINT"]) == ["rimap", "bids"] and last["USER"] not in ("root", "0")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for step, args in steps if step == "COPY" for name in args.split()[:-1]}
    assert copied == allowed and all((ROOT / name).exists() for name in copied)
    assert steps[-1][0] == "CMD"
    assert re.search(r"pip install .*--require-hashes -r \S*requirements.lock", text)


def test_the_apptainer_definition_is_sound():
    text = (ROOT / "apptainer.def").read_text()
    sections = re.split(r"^%(\w+)\n", text, flags=re.M)
    parts = dict(zip(sections[1::2], sections[2::2]))
    assert set(parts) <= {"labels", "help", "files", "post", "environment", "runscript", "test"}
    assert "Bootstrap: docker" in sections[0] and parts["runscript"].strip() == 'exec rimap bids "$@"'
    assert all((ROOT / line.split()[0]).exists() for line in parts["files"].splitlines() if line.strip())
    docker = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM (\S+)", docker, re.M)[1] == re.search(r"^From: (\S+)", text, re.M)[1]
