"""A page for each signal model, from its declarations: nobody writes these pages, and a new model has one."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator

from mkdocs.structure.files import File, Files

from rimap.io.naming import main_suffix, outputs_of, own_suffix
from rimap.map_display import shown_name
from rimap.signals import Parameter, SignalModel, signal_models
from rimap.signals.base import Setting, axis_of, image_suffix
from rimap.signals.model_options import POLARITY, knows_polarity, other_options
from rimap.signals.settings import REPETITION_TIME, settings_of, unit_symbol
from rimap.workflow.estimator_choice import default_estimator

#: The item of the navigation whose pages these are.
ITEM = "Sequences"
_INDEX = "sequences/index.md"
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_DOI = re.compile(r"\bdoi:(10\.[^\s,;]+[^\s,;.])")
_TREATMENTS = {
    "smooth": "varies smoothly in space",
    "given": "known: a map or a number",
    "free": "estimated in each voxel",
}


def on_config(config):
    """Put the pages into the navigation."""
    pages = [_INDEX, *({cls.title: _path(name)} for name, cls in sorted(signal_models().items()))]
    config.nav = [{ITEM: pages} if isinstance(item, dict) and ITEM in item else item for item in config.nav]
    return config


def on_files(files: Files, config) -> Files:
    """Add the pages."""
    files.append(File.generated(config, _INDEX, content=index()))
    for name, cls in sorted(signal_models().items()):
        files.append(File.generated(config, _path(name), content=page(cls)))
    return files


def _path(name: str) -> str:
    return f"sequences/{name}.md"


def index() -> str:
    """Return the page with all signal models."""
    rows = [
        f"| [{cls.title}]({name}.md) | `{name}` | {_code([cls.bids_suffix])} | {_maps(cls)} | `{default_estimator(cls)[0]}` |"
        for name, cls in sorted(signal_models().items())
    ]
    return "\n".join(
        [
            "# Sequences",
            "",
            "Each page follows from the declarations of one signal model. `rimap map` finds the sequence of BIDS files by their "
            "suffix. For other files, and for sequences without a suffix of their own, give `--sequence`.",
            "",
            "| sequence | `--sequence` | BIDS suffix | maps | default estimator |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def page(cls: type[SignalModel]) -> str:
    """Return the page of one signal model, in Markdown."""
    intro, sections = _docstring(cls)
    lines = [f"# {cls.title}", "", _prose(intro), ""]
    if cls.formula:
        lines += ["$$", cls.formula, "$$", ""]
    lines += [
        "## Settings",
        "",
        *_settings(cls),
        "",
        *_options(cls, sections.get("Parameters", "")),
        "## Parameters",
        "",
        *_parameters(cls),
        "",
    ]
    lines += ["## Example", "", "```bash", *_commands(cls), "```", "", _default(cls), ""]
    for title in ("Deviations", "References"):
        if title in sections:
            lines += [f"## {title}", "", _linked(_prose(sections[title])), ""]
    return "\n".join(lines)


def _docstring(cls: type[SignalModel]) -> tuple[str, dict[str, str]]:
    """Return the text of a class before its sections, and its sections by title."""
    parts = _SECTION.split(inspect.cleandoc(cls.__doc__ or ""))
    return parts[0].strip(), {title: textwrap.dedent(text).strip() for title, text in zip(parts[1::2], parts[2::2])}


def _settings(cls: type[SignalModel]) -> Iterator[str]:
    yield "| setting | unit | sidecar field | on the command line | |"
    yield "|---|---|---|---|---|"
    for s in settings_of(cls).values():
        each = {True: "one for each image", False: "one for the series", None: "one for the series or for each image"}
        if s.lengths != (1,):
            each[False] = f"{' or '.join(map(str, s.lengths))} for the series"
        needed = each[s.per_image] + ("" if s.required else "; optional")
        title = s.title[:1].upper() + s.title[1:]
        yield f"| {title} ({s.symbol}) | {unit_symbol(s.unit)} | {_code(s.bids)} | {_option(s, cls)} | {needed} |"


def _options(cls: type[SignalModel], described: str) -> Iterator[str]:
    """Yield what else a model is made with, as its docstring describes it."""
    for name in [*other_options(cls), *([POLARITY] if knows_polarity(cls) else [])]:
        found = re.search(rf"^{name}\n((?:[ ]+.*\n?)+)", described, re.MULTILINE)
        if found:
            option = "`--signed`" if name == POLARITY else f"`{name}=` (in Python)"
            yield f"- {option} {_prose(' '.join(found[1].split()))}"
    yield ""


def _option(s: Setting, cls: type[SignalModel]) -> str:
    if s.unit == "ms" and s.name == axis_of(cls).name:
        return "`--times-ms`"
    return "`--tr-ms`" if s.name == REPETITION_TIME else f"`--set {s.name}=VALUES`"


def _parameters(cls: type[SignalModel]) -> Iterator[str]:
    yield "| map | unit | what it is | range | | suffix |"
    yield "|---|---|---|---|---|---|"
    for q in outputs_of(cls):
        suffix = f"`_{own}`" if (own := own_suffix(q, cls)) else f"`_desc-{q.name}_{main_suffix(cls)}`"
        known, box = "follows from the others", ""
        if isinstance(q, Parameter):
            low, high = q.bounds
            known = "amplitude" if q.amplitude else _TREATMENTS[q.treatment]
            known += f", {q.start:g} {unit_symbol(q.unit)}".rstrip() + " without a map" if q.given and q.start else ""
            box = f"{low:g} to {high:,g}" if high < float("inf") else f"from {low:g}"
        yield f"| {_prose(shown_name(q.name))} | {unit_symbol(q.unit)} | {_prose(q.meaning)} | {box} | {known} | {suffix} |"


def _commands(cls: type[SignalModel]) -> Iterator[str]:
    axis, name = axis_of(cls), "" if cls.bids_suffix and not _shares_suffix(cls) else f" --sequence {cls.name}"
    yield (
        f"rimap simulate --sequence {cls.name} -o data"
        if any(p.amplitude for p in cls.parameters)
        else "# a BIDS data set"
    )
    yield f"rimap map data -o maps{name}"
    entity = f"_{axis.entity}-*" if axis.entity else ""
    yield f"rimap map sub-01{entity}_{image_suffix(cls)}.nii.gz -o maps{name}"


def _shares_suffix(cls: type[SignalModel]) -> bool:
    return next(m for m in signal_models().values() if m.bids_suffix == cls.bids_suffix) is not cls


def _default(cls: type[SignalModel]) -> str:
    estimator, why = default_estimator(cls)
    network = f", {why.partition(': ')[2].partition(';')[0]}" if "network" in why else ""
    return f"The default estimator is `{estimator}`{network}. See [Which estimator](../choosing.md)."


def _maps(cls: type[SignalModel]) -> str:
    return ", ".join(_prose(shown_name(q.name)) for q in outputs_of(cls))


def _code(words) -> str:
    return ", ".join(f"`{word}`" for word in words if word) or "–"


def _prose(text: str) -> str:
    """Return text without marks that Markdown would read: T1* is no emphasis."""
    return re.sub(r"([*<|])", r"\\\1", text)


def _linked(text: str) -> str:
    return _DOI.sub(r"[doi:\1](https://doi.org/\1)", text)
