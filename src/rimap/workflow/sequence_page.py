"""The page of a sequence, from what its signal model declares: nobody writes it, and a model of a plugin has one as
well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rimap.io.naming import main_suffix, outputs_of, own_suffix
from rimap.map_display import shown_name
from rimap.report.formula import as_text
from rimap.report.markdown import cell, code, docstring_of, entries_of, escaped, linked, listed, table
from rimap.signals import Parameter, SignalModel, signal_models
from rimap.signals.base import FIELD, TIME, Setting, axis_of, image_suffix
from rimap.signals.model_options import POLARITY, knows_polarity, other_options
from rimap.signals.settings import REPETITION_TIME, settings_of, unit_symbol, with_unit
from rimap.simulation.tissues import GM, WM, table_of
from rimap.workflow.estimator_choice import default_estimator

_TREATMENTS = {
    "smooth": "field, varies smoothly in space",
    "given": "known: a map or a number",
    "free": "field, estimated in each voxel",
}
#: The range for `rimap design` is that of white to grey matter, wider by this factor at both ends.
_WIDER = 1.25


def sequence_page(model: type[SignalModel], *, picture: str = "", caption: str = "", terminal: bool = False) -> str:
    """Return the page of a signal model in Markdown.

    It has the formula, the settings with their units and sidecar fields, the parameters with their roles, units and
    ranges, the names of files, the commands, and the references, all from the declarations of the class and its
    docstring.

    Parameters
    ----------
    model
        The class, of rimap or of your own package.
    picture
        Address of the picture of `sequence_picture`, relative to the page; none by default.
    caption
        What the picture shows.
    terminal
        Whether it is read in a terminal of any width: the formula is a line of text and not LaTeX between ``$$``, and
        lists replace tables.

    Examples
    --------
    >>> import rimap
    >>> sequence_page(rimap.T2Decay).splitlines()[0]
    '# T2 decay'
    """
    intro, sections = docstring_of(model)
    if intro.startswith(f"{model.__name__}("):  # the signature that a dataclass without a docstring has in its place
        intro = ""
    lines = [f"# {model.title}", "", linked(escaped(intro)), ""]
    if model.formula:
        lines += ["$$", model.formula, "$$", ""] if not terminal else [f"    {as_text(model.formula)}", ""]
    lines += [
        "## Settings of the scan",
        "",
        *_settings(model, terminal),
        *_options(model, sections.get("Parameters", "")),
    ]
    lines += ["## Maps", "", *_parameters(model, terminal), *_files(model)]
    if picture:
        lines += [
            "## Simulated example",
            "",
            f"![Signal and simulated maps: {escaped(model.title)}]({picture}){{.drawn}}",
            "",
            escaped(caption),
            "",
        ]
    lines += ["## Commands", "", "```bash", *_commands(model), "```", "", _default(model), ""]
    if "Examples" in sections:
        lines += ["In Python:", "", "```pycon", sections["Examples"], "```", ""]
    if checks := list(_checks(model)):
        lines += ["## What is checked", "", *checks, ""]
    for title in ("Notes", "Deviations"):
        if title in sections:
            lines += [f"## {title}", "", linked(escaped(sections[title])), ""]
    if references := sections.get("References", model.reference):
        lines += ["## References", "", linked(escaped(references)), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _settings(model: type[SignalModel], terminal: bool) -> Iterator[str]:
    rows, notes = [], []
    for s in settings_of(model).values():
        number = {
            True: "one for each image",
            False: "one for the series",
            None: "one for the series, or one for each image",
        }[s.per_image]
        if s.lengths != (1,):
            number = f"{' or '.join(map(str, s.lengths))} for the series"
        fields = code(s.bids) if s.bids else f"{code([s.sidecar_field])} (not of BIDS)"
        if s.read_from:
            fields += f" of {code([s.read_from])}"
        rows.append(
            (
                f"{_capital(s.title)} ({escaped(s.symbol)})",
                _span(s.plausible, s.unit),
                number + ("" if s.required else "; optional"),
                fields,
                _option(s, model),
            )
        )
        if s.if_unknown:
            notes += [f"If {s.symbol} is not known: {escaped(s.if_unknown)}.", ""]
        if s.if_shorter:
            other = settings_of(model)[s.longer_than]
            notes += [f"A {s.symbol} that is not longer than {other.symbol} is not used. {escaped(s.if_shorter)}", ""]
    head = ("setting", "plausible values", "number of values", "field in the sidecar", "on the command line")
    yield from (listed if terminal else table)(head, rows)
    if any(s.factor != 1 for s in settings_of(model).values()):
        yield "Times are milliseconds on the command line and in Python, and seconds in sidecars, as in BIDS."
        yield ""
    yield from notes


def _options(model: type[SignalModel], described: str) -> Iterator[str]:
    """Yield what else a model is made with, as its docstring describes it."""
    meanings = entries_of(described)
    for name in [*other_options(model), *([POLARITY] if knows_polarity(model) else [])]:
        if name in meanings:
            option = "`--signed`" if name == POLARITY else f"`{name}=` (in Python)"
            yield f"- {option}: {escaped(meanings[name][1])}"
    if len(model.candidates) > 1:
        names = sorted({name for options in model.candidates for name in options})
        yield f"- If you do not specify {code(names)}, the images decide among {len(model.candidates)} values."
    if model.chosen_over:
        simpler = signal_models()[model.chosen_over]
        yield (
            f"- If you do not specify `--sequence`, the images decide between `{model.name}` and `{simpler.name}` "
            f"({simpler.title})."
        )
    yield ""


def _option(s: Setting, model: type[SignalModel]) -> str:
    if s.unit == "ms" and s.name == axis_of(model).name:
        return "`--times-ms`"
    return "`--tr-ms`" if s.name == REPETITION_TIME else f"`--set {s.name}=…`"


def _parameters(model: type[SignalModel], terminal: bool) -> Iterator[str]:
    rows = []
    for q in outputs_of(model):
        role, box = "derived from the other maps", ""
        if isinstance(q, Parameter):
            role = _TREATMENTS[q.treatment] if q.role == FIELD else _role(q)
            if q.given and q.start:
                role += f"; {with_unit(q.start, q.unit)} without a map"
            box = _span(q.bounds, "1" if q.amplitude else q.unit)
        rows.append(
            (escaped(shown_name(q.name)), cell(q.meaning or None), role, unit_symbol(q.unit) or "–", box or "–",
             f"`_{_suffix(q, model)}`")
        )  # fmt: skip
    head = ("map", "meaning", "role", "unit", "range", "name of the file")
    yield from (listed if terminal else table)(head, rows)
    if any(q.unit == "ms" for q in outputs_of(model)):
        yield "Files hold times in seconds, as BIDS does; Python and the report show milliseconds."
        yield ""


def _role(p: Parameter) -> str:
    return "amplitude: the signal is proportional to it" if p.amplitude else "relaxation time"


def _suffix(q: object, model: type[SignalModel]) -> str:
    own = own_suffix(q, model)  # type: ignore[arg-type]
    return own or f"desc-{q.name}_{main_suffix(model)}"  # type: ignore[attr-defined]


def _files(model: type[SignalModel]) -> Iterator[str]:
    axis, suffix, main = axis_of(model), image_suffix(model), main_suffix(model)
    images = dict.fromkeys(f"sub-01{f'_{axis.entity}-{k}' if axis.entity else ''}_{suffix}.nii.gz" for k in (1, 2))
    yield f"**In**: {'image' if len(images) == 1 else 'images'} such as {code(images)}, each with its sidecar."
    if model.bids_suffix and _named(model):
        yield f"Other sequences have the suffix `{suffix}` as well: `--sequence {model.name}` chooses this one."
    elif not model.bids_suffix:
        yield f"BIDS has no suffix for this sequence alone: `--sequence {model.name}` chooses it."
    if others := [s for s in model.also_reads if s != suffix]:
        yield f"With `--sequence {model.name}` rimap also reads images with the suffix {code(others)}."
    yield ""
    yield (
        f"**Out**: the maps of the table, the standard deviation (`_desc-sd_{main}`), the residual "
        f"(`_desc-residual_{main}`), the quality flag of each voxel (`_desc-status_{main}`), a sidecar for each file, "
        f"and a report."
    )
    yield ""


def _commands(model: type[SignalModel]) -> Iterator[str]:
    axis, name = axis_of(model), _named(model)
    measured = any(p.amplitude for p in model.parameters)
    if measured:
        yield f"rimap simulate --sequence {model.name} -o data  # or your own BIDS data set"
    yield f"rimap map data -o maps{name}"
    entity = f"_{axis.entity}-*" if axis.entity else ""
    yield f"rimap map sub-01{entity}_{image_suffix(model)}.nii.gz -o maps{name}"
    if measured:
        time = next(p for p in model.parameters if p.role == TIME)
        mean = table_of(time)[0]
        low, high = min(mean[WM], mean[GM]) / _WIDER, max(mean[WM], mean[GM]) * _WIDER
        yield f"rimap design --sequence {model.name} --T {float(f'{low:.2g}'):g}-{float(f'{high:.2g}'):g} --minutes 5"


def _named(model: type[SignalModel]) -> str:
    """Return ``--sequence NAME`` unless the suffix of the images says which sequence it is."""
    first = next((m for m in signal_models().values() if m.bids_suffix == model.bids_suffix), model)
    return "" if model.bids_suffix and first is model else f" --sequence {model.name}"


def _default(model: type[SignalModel]) -> str:
    estimator, why = default_estimator(model)
    network = f", {why.partition(': ')[2].partition(';')[0]}" if "network" in why else ""
    return f"The default estimator is `{estimator}`{network}; `--estimator` chooses another."


def _checks(model: type[SignalModel]) -> Iterator[str]:
    """Yield what the model declares about values that are not plausible."""
    for p in model.parameters:
        if p.physical and p.if_unphysical:
            yield (
                f"- {p.name} is expected to be {_span(p.physical, p.unit)}. Outside this range rimap asks: "
                f"{escaped(p.if_unphysical)}"
            )
        if p.usual and p.if_unusual:
            yield f"- The median of {p.name} is usually {_span(p.usual, p.unit)}. Otherwise: {escaped(p.if_unusual)}"
    if model.if_misfit:
        yield f"- If the images contradict the model, a common cause is this: {escaped(model.if_misfit)}."
    if model.if_first_is_skipped:
        yield f"- With `--skip-first`: {escaped(model.if_first_is_skipped)}"


def _span(values: tuple[float, float], unit: str) -> str:
    low, high = values
    symbol = unit_symbol(unit)
    end = "" if not symbol else symbol if symbol == "°" else f" {symbol}"
    return f"{low:g}{end} or more" if high == float("inf") else f"{low:g} to {high:,g}{end}"


def _capital(text: str) -> str:
    return escaped(text[:1].upper() + text[1:])


def sequences_page(paths: dict[str, str]) -> str:
    """Return the page with all signal models, each linked to its own at ``paths[name]``."""
    rows = [
        (
            f"[{model.title}]({paths[name]})",
            f"`{name}`",
            code([model.bids_suffix]),
            ", ".join(escaped(shown_name(q.name)) for q in outputs_of(model)),
            f"`{default_estimator(model)[0]}`",
        )
        for name, model in sorted(signal_models().items())
    ]
    return "\n".join(
        [
            "# Sequences",
            "",
            "Each page is made from the declarations of one signal model; `rimap models NAME` prints the same text. "
            "`rimap map` finds the sequence of BIDS files by their suffix. For other files, and for sequences without "
            "a suffix of their own, give `--sequence`.",
            "",
            *table(("sequence", "`--sequence`", "BIDS suffix", "maps", "default estimator"), rows),
        ]
    )
