"""What mkdocs lacks: equations as MathML (no script, no font), and pages from the notebooks, with what they draw."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import os
import re
import sys
import tempfile
import types
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from rimap.signals import signal_models

ROOT = Path(__file__).resolve().parents[1]
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
#: A function before a symbol, from which MathML does not part it by itself: ln cos α.
_FUNCTION = re.compile(r"(\\(?:ln|log|exp|sin|cos|tan))(?=\s*\\?[A-Za-z])(?!\s*\\(?:left|,|big))")
#: The name of an option or a file in a sentence: it stays on one line, for a browser would break it at its hyphens.
_NAME = re.compile(r"<code>([^\s<]{1,40})</code>")
#: Set it to leave the notebooks' code unrun.
UNRUN = "RIMAP_DOCS_UNRUN"


def on_page_content(content: str, **_: object) -> str:
    """Turn the equations of a page into MathML, and keep names of options and files on one line."""

    def mathml(found: re.Match[str]) -> str:
        block = found[1] == "div"
        tex = _FUNCTION.sub(r"\1\\,", html.unescape(found[2]).strip())
        return f"<{found[1]} class='equation'>{convert(tex, display='block' if block else 'inline')}</{found[1]}>"

    return _NAME.sub(r'<code class="name">\1</code>', _EQUATION.sub(mathml, content))


#: Pages that exist in the site alone, by what links to them lead to where the pages are read as files.
MADE_FROM = {
    "src/rimap/signals": "sequences/index.md",
    "src/rimap/cli": "reference/command-line.md",
    "src/rimap/training/recipe.py": "reference/recipe-keys.md",
}


def on_page_markdown(markdown: str, page=None, **_: object) -> str:
    """Lead links to notebooks and to code, which hold where the pages are read as files, to the pages made of them."""
    up = "../" * page.file.src_uri.count("/") if page is not None else ""
    of_models: dict[str, str] = {}  # several models of one file: the first has the link
    for name, model in sorted(signal_models().items()):
        of_models.setdefault(f"src/{model.__module__.replace('.', '/')}.py", f"sequences/{name}.md")
    for source, made in {**MADE_FROM, **of_models}.items():
        markdown = markdown.replace(f"]({up}../{source})", f"]({up}{made})")
    return re.sub(r"\]\(\.\./notebooks/([\w-]+)\.py", r"](tutorials/\1.md", markdown)


def on_files(files: Files, config) -> Files:
    """Add a page for each notebook."""
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        page = page_of(path.read_text(encoding="utf-8"), path.name, run=not os.environ.get(UNRUN))
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
    return files


def cells(source: str) -> list[tuple[str, str]]:
    """Return the cells of a percent script, each ``markdown`` or ``code`` and its text."""
    found = []
    for part in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            found.append(("markdown", re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip()))
        elif body.strip():
            found.append(("code", body.strip()))
    return found


def page_of(source: str, name: str, *, run: bool) -> str:
    """Return a percent script as Markdown, each code cell followed by what it prints, draws and returns."""
    module = sys.modules["notebook"] = types.ModuleType("notebook")  # a dataclass looks its module up
    names: dict[str, object] = module.__dict__
    text = []
    here, path = Path.cwd(), list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for kind, cell in cells(source):
                text.append(cell if kind == "markdown" else f"```python\n{cell}\n```")
                if kind == "code" and run:
                    text += _outputs(cell, names, name)
        finally:
            os.chdir(here)
            sys.path[:] = path
    text.append(f"*This page is `notebooks/{name}`; Jupyter opens it with jupytext, and `python {name}` runs it.*")
    return "\n\n".join(text)


def _outputs(cell: str, names: dict[str, object], name: str) -> list[str]:
    import ast

    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, name, "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), name, "eval"), names)
    found = [f'```text title="out"\n{printed.getvalue().rstrip()}\n```'] if printed.getvalue().strip() else []
    shown = value._repr_html_() if hasattr(value, "_repr_html_") else None
    if shown:
        found.append(shown)
    elif value is not None and type(value).__module__ != "matplotlib.figure":
        found.append(f'```text title="out"\n{value!r}\n```')
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(picture, format="png", dpi=110, bbox_inches="tight")
        code = base64.b64encode(picture.getvalue()).decode("ascii")
        found.append(f'<img class="drawn" alt="what the cell draws" src="data:image/png;base64,{code}">')
    plt.close("all")
    return found
