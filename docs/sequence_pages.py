"""A page for each signal model, from its declarations: nobody writes these pages, and a new model has one."""

from __future__ import annotations

import os

from mkdocs.structure.files import File, Files

from rimap.signals import signal_models
from rimap.workflow.sequence_page import sequence_page, sequences_page
from rimap.workflow.sequence_picture import sequence_caption, sequence_picture

#: The item of the navigation whose pages these are.
ITEM = "Sequences"
_INDEX = "sequences/index.md"
#: Set it to leave the pictures out, as the outputs of notebooks (docs/hooks.py).
UNRUN = "RIMAP_DOCS_UNRUN"


def on_config(config):
    """Put the pages into the navigation."""
    pages = [_INDEX, *({model.title: _path(name)} for name, model in sorted(signal_models().items()))]
    config.nav = [{ITEM: pages} if isinstance(item, dict) and ITEM in item else item for item in config.nav]
    return config


def on_files(files: Files, config) -> Files:
    """Add the pages and their pictures."""
    models = sorted(signal_models().items())
    files.append(File.generated(config, _INDEX, content=sequences_page({name: f"{name}.md" for name, _ in models})))
    for name, model in models:
        picture = caption = ""
        if not os.environ.get(UNRUN):
            picture, caption = f"{name}.png", sequence_caption(model)
            files.append(File.generated(config, f"sequences/{picture}", content=sequence_picture(model)))
        content = sequence_page(model, picture=picture, caption=caption)
        files.append(File.generated(config, _path(name), content=content))
    return files


def _path(name: str) -> str:
    return f"sequences/{name}.md"
