"""`rimap design`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rimap.cli import _options as options

if TYPE_CHECKING:
    from rimap.signals.base import SignalModel

NO_ARGS_IS_HELP = True


def command(
    present: Annotated[
        Path | None,
        typer.Argument(
            metavar="[INPUT]", help="A scan with your present protocol: a BIDS folder, or a file of the series."
        ),
    ] = None,
    sequence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Signal model: ir, sr, t2, mese, megre, vfa, look-locker, ...")
    ] = None,
    T: Annotated[
        str | None,
        typer.Option("--T", metavar="LOW-HIGH", help="Range of relaxation times to measure, in ms, such as 600-1600."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="X", help="Scan time in minutes. By default that of the present protocol.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="Folder for a page, tables and a JSON file."),
    ] = None,
    snr: Annotated[
        float,
        typer.Option(
            metavar="X", help="Signal-to-noise ratio of the brightest image of the sequence, without averaging."
        ),
    ] = 50.0,
    images: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of images. By default rimap finds the best number.")
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Repetitions that one image needs: k-space lines divided by the echoes per excitation.",
        ),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(
            metavar="free|smooth|given", help="How B or B1 is treated. By default as the signal model declares."
        ),
    ] = None,
    criterion: Annotated[
        str,
        typer.Option(metavar="worst|mean", help="Minimise the worst or the mean standard deviation over the range."),
    ] = "worst",
    times_ms: Annotated[str | None, typer.Option(metavar="LIST", help="Times of the present protocol in ms.")] = None,
    tr_ms: Annotated[
        str | None, typer.Option(metavar="X", help="Repetition time of the present protocol in ms.")
    ] = None,
    settings: options.Settings = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Keep this setting of the present protocol, such as tr. Repeatable."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Assumed value of a field, such as B=1.9. Repeatable."),
    ] = None,
    limits: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Shortest and longest time (ms), or smallest and largest angle (degrees), to choose from.",
        ),
    ] = None,
    rest_ms: Annotated[
        float, typer.Option(metavar="X", help="Shortest time from an image to the next repetition, in ms.")
    ] = 50.0,
    one_tr: Annotated[bool, typer.Option("--one-tr", help="Use one repetition time for all images.")] = False,
    separate: Annotated[
        bool, typer.Option("--separate", help="Acquire each echo in a scan of its own, not in one echo train.")
    ] = False,
    noise: options.NoiseName = None,
    limit: Annotated[
        float,
        typer.Option(metavar="PERCENT", help="Largest relative standard deviation that counts as measured, in %."),
    ] = 5.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier files.")] = False,
) -> None:
    """Find the best times or flip angles for a scan time.

    rimap minimises the worst or mean standard deviation over the range of T (Cramér-Rao bound, relative to T). If you
    give your present protocol, rimap compares it at the same scan time.

    \b
    rimap design --sequence ir --T 600-1600 --minutes 5
    rimap design --sequence ir --T 600-1600 --images 6 --times-ms "50,400,1100,2500" --tr-ms 2550 -o design
    rimap design --sequence vfa --T 600-1600 --set flip_angle=3,20 --set tr=15 -o design
    rimap design bids/ --sequence t2 --T 40-150 -o design
    """
    import sys

    from rimap.errors import InputError, one_of
    from rimap.planning.design import design
    from rimap.planning.goal import Goal
    from rimap.report.design_text import text_of
    from rimap.signals import signal_models
    from rimap.signals.settings import REPETITION_TIME, settings_of
    from rimap.workflow.protocol_design import (
        FILES,
        present_from_files,
        present_from_options,
        settings_of_goal,
        write_design,
    )
    from rimap.workflow.tables import check_folder, command_line

    if T is None:
        raise InputError('--T: expected a range of relaxation times in ms, as in "--T 600-1600", got none.')
    if sequence is None and present is None:
        raise InputError("expected --sequence NAME (see `rimap models`) or a scan as INPUT, got neither.")
    if sequence is not None:
        sequence = one_of(sequence, sorted(signal_models()), "--sequence")
    if out is not None:
        check_folder(out, FILES, overwrite=overwrite)
    if not limit > 0:
        raise InputError(f"--limit: expected a number above 0 in %, got {limit:g}.")
    typed = options.settings(settings)
    times = options.numbers(times_ms, "--times-ms")
    repetition = options.numbers(tr_ms, "--tr-ms")
    known = settings_of(signal_models()[sequence]) if sequence else {}
    length = None
    if repetition is not None:
        if sequence is not None and REPETITION_TIME not in known:
            if len(repetition) > 1:
                raise InputError(f"--tr-ms: expected one time for {sequence}, got {len(repetition)}.")
            length = repetition[0]
        else:
            typed[REPETITION_TIME] = repetition if len(repetition) > 1 else repetition[0]
    now: SignalModel | None
    if present is not None:
        now = present_from_files(present, sequence, typed, times)
    else:
        now = present_from_options(str(sequence), typed, times)
    name = sequence or (now.name if now is not None else "")
    kind = signal_models()[name]
    assumed = {}
    for parameter, value in options.given_maps(given).items():
        if not isinstance(value, float):
            raise InputError(f"--given {parameter}: expected a number, got {value}. A design uses no maps.")
        assumed[parameter] = value
    goal = Goal(
        sequence=name,
        T_ms=_range(T),
        minutes=minutes,
        snr=snr,
        images=images,
        shots=shots,
        criterion=criterion,
        treatment=field,
        noise=noise or "gaussian",
        settings=settings_of_goal(kind, now, typed, tuple(keep or ())),
        assumed=assumed,
        limits=_pair(limits, "--limits"),
        repetition_ms=length,
        rest_ms=rest_ms,
        one_repetition_time=one_tr,
        separate=separate,
    )
    found = design(goal, now)
    print(text_of(found, limit))
    if out is not None:
        write_design(found, out, limit, command_line(sys.argv[1:]), overwrite=overwrite)
        print(f"\nPage and tables: {out}")


def _range(text: str) -> tuple[float, float]:
    """Return the range from its text: ``600-1600``, ``600,1600``, or one value.

    >>> _range("600-1600"), _range("80")
    ((600.0, 1600.0), (80.0, 80.0))
    """
    from rimap.errors import InputError

    words = text.replace("–", "-").replace(",", "-").replace(" ", "").split("-")
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise InputError(f'--T: expected a range in ms, as in "--T 600-1600", got {text!r}.')
    return values[0], values[-1]


def _pair(text: str | None, option: str) -> tuple[float, float] | None:
    from rimap.errors import InputError

    values = options.numbers(text, option, "")
    if values is None:
        return None
    if len(values) != 2:
        raise InputError(f"{option}: expected two numbers LOW,HIGH, got {len(values)}.")
    return values[0], values[1]
