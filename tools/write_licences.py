"""Write LICENSES-third-party.md: the licence of every package that rimap needs, from what is installed.

Usage: `python tools/write_licences.py`.

Packages and versions are those of the lock files. A licence is what the package's own metadata say.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "LICENSES-third-party.md"
PARTS = (
    ("requirements.lock", "To map", "`pip install rimap` installs these."),
    ("requirements-container.lock", "In the container as well", "The extra `cluster`."),
    ("requirements-dev.lock", "To train, test and build", "The other extras and `make test`. Maps need none of these."),
    ("requirements-torch.lock", "To train", "The extra `train`."),
)
#: Licences as packages write them in one line, or as classifiers name them, by their SPDX identifier.
SPDX = {
    "MIT": "MIT",
    "MIT License": "MIT",
    "Apache 2.0": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD-2-Clause": "BSD-2-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MPL-2.0": "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
#: Where the metadata say only "BSD" or hold a whole text: read in the file of the licence that the package installs.
READ_IN_ITS_FILE = {
    "colorama": "BSD-3-Clause",
    "contourpy": "BSD-3-Clause",
    "cycler": "BSD-3-Clause",
    "dask-jobqueue": "BSD-3-Clause",
    "dcm2niix": "BSD-2-Clause and others, file by file",
    "dipy": "BSD-3-Clause",
    "grimp": "BSD-2-Clause",
    "import-linter": "BSD-2-Clause",
    "jinja2": "BSD-3-Clause",
    "kiwisolver": "BSD-3-Clause",
    "matplotlib": "PSF-2.0 with the names changed (licence of matplotlib)",
    "numba": "BSD-2-Clause",
    "scipy": "BSD-3-Clause; its wheels contain libgfortran (GPL-3.0 with the GCC runtime exception)",
    "tqdm": "MPL-2.0 AND MIT",
    "trx-python": "BSD-2-Clause",
}
INTRODUCTION = """# Licences of the packages that rimap needs

rimap itself is under the [Apache License 2.0](LICENSE) and contains no code of other projects. The packages below are
installed with it. `python tools/write_licences.py` writes this page from the metadata of the installed packages; a test
checks that no package is missing.
"""


def locked(lock: str) -> dict[str, str]:
    """Return the version of each package of a lock file."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==([^\s;]+)", text, re.MULTILINE))


def licence(name: str) -> str:
    """Return the licence of an installed package as an SPDX expression, or in its own words.

    Raises
    ------
    ValueError
        If the metadata do not say it in one line.
    """
    if name in READ_IN_ITS_FILE:
        return READ_IN_ITS_FILE[name]
    about = metadata.metadata(name)
    if expression := about.get("License-Expression"):
        return expression
    line = (about.get("License") or "").strip().split("\n")[0]
    classes = [c.split(" :: ")[-1] for c in about.get_all("Classifier") or [] if c.startswith("License :: OSI")]
    for words in (line, *classes):
        if words in SPDX:
            return SPDX[words]
    raise ValueError(
        f"{name}: expected a licence in one line, got {line!r} and {classes}. Read its file and add it to "
        "READ_IN_ITS_FILE."
    )


def page() -> str:
    """Return the page; a package appears where it is needed first."""
    seen: set[str] = set()
    text = INTRODUCTION
    for lock, title, about in PARTS:
        rows = {n: v for n, v in locked(lock).items() if n not in seen}
        seen |= set(rows)
        text += f"\n## {title}\n\n{about}\n\n| package | version | licence |\n|---|---|---|\n"
        text += "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in rows.items())
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
