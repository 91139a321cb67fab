"""Times that are typed go in the order of the files; where names say that this is wrong, it is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rimap.errors import InputError
from rimap.workflow.read_series import read


def files(folder: Path, names: list[str]) -> list[Path]:
    for n, name in enumerate(names):
        nib.save(nib.Nifti1Image(np.full((4, 5, 2), 100.0 + n, np.float32), np.eye(4)), folder / name)
    return [folder / name for name in names]


@pytest.mark.parametrize("pattern", ["TI_{}.nii", "sub7_TI{}ms.nii.gz", "{}.nii"])
def test_the_order_of_a_shell_is_not_that_of_the_times(tmp_path: Path, pattern: str) -> None:
    times = (50.0, 400.0, 1100.0, 2500.0)
    paths = files(tmp_path, [pattern.format(f"{t:g}") for t in times])
    assert read(paths, times_ms=times, sequence="ir").model.times.tolist() == list(times)
    shell = sorted(paths)  # 1100, 2500, 400, 50
    with pytest.raises(InputError, match=r"--times-ms gives 50 ms to .*1100.*: times go in the order of the files"):
        read(shell, times_ms=times, sequence="ir")
    assert read(shell, times_ms=(1100, 2500, 400, 50), sequence="ir").model.times.tolist() == [1100, 2500, 400, 50]


def test_names_that_say_nothing_of_the_times_are_taken_as_they_come(tmp_path: Path) -> None:
    paths = files(tmp_path, ["scan_1.nii", "scan_2.nii", "scan_3.nii", "scan_4.nii"])
    assert read(paths, times_ms=(400, 50, 1100, 2500), sequence="ir").model.times.tolist() == [400, 50, 1100, 2500]
    paths = files(tmp_path, ["50_400.nii", "400_50.nii", "x1100.nii", "x2500.nii"])  # two times in a name
    assert len(read(paths, times_ms=(50, 400, 1100, 2500), sequence="ir").images) == 4


@pytest.mark.parametrize("pattern", ["ti{}.nii", "s3_ti{}_a.nii.gz"])
def test_files_as_a_shell_sorts_them_are_refused(tmp_path: Path, pattern: str) -> None:
    times = (50.0, 100.0, 200.0, 400.0, 700.0, 1100.0, 1600.0, 2500.0, 3000.0, 4000.0)
    numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    paths = files(tmp_path, [pattern.format(n) for n in numbers])
    shell = [paths[0], paths[9], *paths[1:9]]
    with pytest.raises(
        InputError, match=r"order .*ti1\D.*, .*ti10.*, .*ti2.* …, as a shell sorts names.*leading zeros"
    ):
        read(shell, times_ms=times, sequence="ir")
    for inputs in (paths, tmp_path):
        series = read(inputs, times_ms=times, sequence="ir")
        assert series.model.times.tolist() == list(times) and (np.diff(series.images[:, 0, 0, 0]) > 0).all()
    meant = (50, 4000, *times[1:9])  # in the order of the files that came
    assert read(shell, times_ms=meant, sequence="ir").model.times.tolist() == list(meant)
    any_order = [paths[1], paths[0], *paths[2:]]
    assert len(read(any_order, times_ms=times, sequence="ir").images) == 10
