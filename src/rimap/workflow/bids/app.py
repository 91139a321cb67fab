"""The options of the BIDS App."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rimap.errors import InputError, one_of
from rimap.workflow.bids.validation import check_dataset
from rimap.workflow.request import Request

if TYPE_CHECKING:
    from rimap.io import SeriesFiles
    from rimap.parallel.cluster import ClusterOptions


@dataclass(frozen=True, kw_only=True)
class App:
    """The options of `rimap bids` in addition to those of `rimap map`.

    Parameters
    ----------
    request
        The options of each series. Its only input is the data set.
    masks, rois
        A file, a pattern or a BIDS folder with the mask or the labels of each series; ``"auto"`` for foreground masks.
    nprocs
        Cores to use.
    work_dir
        Folder for temporary files.
    scheduler, cluster, cluster_options
        The address of a Dask scheduler, or the kind of cluster to start and the TOML file of its jobs.
    validate
        Whether to check that the data set is valid BIDS.
    """

    request: Request
    masks: Path | str | None = None
    rois: Path | None = None
    nprocs: int | None = None
    work_dir: Path | None = None
    scheduler: str | None = None
    cluster: str | None = None
    cluster_options: Path | None = None
    validate: bool = True

    @property
    def data(self) -> Path:
        """BIDS_DIR."""
        return self.request.inputs[0]


def check(app: App) -> ClusterOptions | None:
    """Refuse invalid options before any work, and return the options of the cluster."""
    from rimap.parallel.cluster import KINDS, read_options

    if not app.data.is_dir():
        raise InputError(f"BIDS_DIR: expected an existing BIDS folder, got {app.data}.")
    if app.scheduler is not None and app.cluster is not None:
        raise InputError(
            "expected --scheduler (a running cluster) or --cluster (start one), got both. Give one of them."
        )
    if app.cluster is not None:
        one_of(app.cluster, KINDS, "--cluster")
    if app.cluster_options is not None and app.cluster != "slurm":
        raise InputError("--cluster-options: expected with --cluster slurm only. Leave it out.")
    for where, option in ((app.masks, "--mask"), (app.rois, "--rois")):
        if isinstance(where, Path) and "{" not in str(where) and not where.exists():
            raise InputError(f"{option}: expected an existing file or folder, got {where}.")
    if app.validate:
        check_dataset(app.data)
    return None if app.cluster_options is None else read_options(app.cluster_options)


def own_request(app: App, files: SeriesFiles) -> Request:
    """Return the request of one series, with its mask and its labels."""
    from rimap.io.companion_images import image_for

    time = next(
        parameter.name for parameter in files.model_class(app.request.sequence).parameters if parameter.role == "time"
    )
    entities = {**files.entities, "map": time}
    mask, rois = (  # "auto" and None are kept as they are
        image_for(where, entities, suffixes, option=option, label=files.label, prefer=d)
        if isinstance(where, Path)
        else where
        for where, suffixes, option, d in (
            (app.masks, ("mask",), "--mask", "brain"),
            (app.rois, ("dseg",), "--rois", ""),
        )
    )
    return replace(app.request, mask=mask, rois=None if rois is None else Path(rois))
