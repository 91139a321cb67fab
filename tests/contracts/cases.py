"""The cases of the contract tests: every signal model found in the folder, and three of other packages.

Those of other packages are loaded from their files; that their entry points bring them to rimap is tested in
tests/test_discovery.py and tests/docs/test_signal_model_package.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from rimap.errors import InputError
from rimap.signals import SignalModel, signal_models
from rimap.testing import example_models

EXAMPLE = Path(__file__).parents[2] / "examples" / "saturation-recovery" / "saturation_recovery.py"
LABORATORY = Path(__file__).parent / "plugins" / "lab_models.py"


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


_lab = _module(LABORATORY)
#: By the name of `--sequence`.
CLASSES: dict[str, type[SignalModel]] = signal_models() | {
    cls.name: cls for cls in (_module(EXAMPLE).SaturationRecovery, _lab.OffsetDecay, _lab.SpoiledEchoes)
}
#: Every one with what its scanner can be set to.
MODELS: dict[str, SignalModel] = {}
#: Models whose examples cannot be made, and why.
WITHOUT_EXAMPLES: dict[str, str] = {}
for name, cls in sorted(CLASSES.items()):
    try:
        MODELS |= {f"{name} {label}".strip(): model for label, model in example_models(cls).items()}
    except InputError as error:
        WITHOUT_EXAMPLES[name] = str(error)

#: For the estimators: one of each sequence, and everything that inversion recovery can be.
ESTIMATED = {label: model for label, model in MODELS.items() if label == model.name or model.name == "ir"}
