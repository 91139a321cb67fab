"""T1 and T2 maps from a series of MR images.

>>> import rimap
>>> model = rimap.T2Decay(tau=[10, 20, 40, 80])
>>> model.signal([[100.0], [50.0]])[:, 0].round(2)
array([81.87, 67.03, 44.93, 20.19])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: Public name -> the module that has it. Loaded on first use, so that `import rimap` costs nothing.
_NAMES = {
    "read": "rimap.workflow.read_series",
    "Reading": "rimap.io.reading_options",
    "write": "rimap.io.maps_from_memory",
    "WeightedSeries": "rimap.series",
    "ParameterMaps": "rimap.maps",
    "Status": "rimap.maps",
    "InversionRecovery": "rimap.signals.inversion_recovery",
    "T2Decay": "rimap.signals.t2_decay",
    "GradientEcho": "rimap.signals.gradient_echo",
    "GradientEchoWithOffset": "rimap.signals.gradient_echo",
    "LookLocker": "rimap.signals.look_locker",
    "MOLLI": "rimap.signals.look_locker",
    "MP2RAGE": "rimap.signals.mp2rage",
    "UniformMP2RAGE": "rimap.signals.mp2rage",
    "MultiEchoSpinEcho": "rimap.signals.multi_echo_spin_echo",
    "SaturationRecovery": "rimap.signals.saturation_recovery",
    "VariableFlipAngle": "rimap.signals.variable_flip_angle",
    "b1_from_afi": "rimap.b1",
    "b1_from_dam": "rimap.b1",
    "SignalModel": "rimap.signals.base",
    "setting": "rimap.signals.settings",
    "Parameter": "rimap.signals.base",
    "Derived": "rimap.signals.base",
    "FieldPrior": "rimap.signals.base",
    "PROTOCOLS": "rimap.signals.paper_protocols",
    "Gaussian": "rimap.likelihood",
    "Rician": "rimap.likelihood",
    "gradient": "rimap.likelihood",
    "fisher_information": "rimap.likelihood",
    "cramer_rao_sd": "rimap.likelihood",
    "NLLS": "rimap.estimators.nlls.estimator",
    "MLE": "rimap.estimators.mle.estimator",
    "RIM": "rimap.estimators.rim.estimator",
    "ResNet": "rimap.estimators.resnet.estimator",
    "denoise": "rimap.estimators.denoising",
    "plot": "rimap.plotting",
    "rois": "rimap.workflow.rois",
    "compare": "rimap.workflow.compare",
    "design": "rimap.planning.design",
    "Goal": "rimap.planning.goal",
    "phantom": "rimap.workflow.phantom",
    "map_series": "rimap.workflow.mapping",
    "Request": "rimap.workflow.request",
    "InputError": "rimap.errors",
}
__all__ = ["__version__", *sorted(_NAMES)]

if TYPE_CHECKING:  # what type checkers see; tests/test_ways_in.py holds it to _NAMES
    from rimap.b1 import b1_from_afi as b1_from_afi
    from rimap.b1 import b1_from_dam as b1_from_dam
    from rimap.errors import InputError as InputError
    from rimap.estimators.denoising import denoise as denoise
    from rimap.estimators.mle.estimator import MLE as MLE
    from rimap.estimators.nlls.estimator import NLLS as NLLS
    from rimap.estimators.resnet.estimator import ResNet as ResNet
    from rimap.estimators.rim.estimator import RIM as RIM
    from rimap.io.maps_from_memory import write as write
    from rimap.io.reading_options import Reading as Reading
    from rimap.likelihood import Gaussian as Gaussian
    from rimap.likelihood import Rician as Rician
    from rimap.likelihood import cramer_rao_sd as cramer_rao_sd
    from rimap.likelihood import fisher_information as fisher_information
    from rimap.likelihood import gradient as gradient
    from rimap.maps import ParameterMaps as ParameterMaps
    from rimap.maps import Status as Status
    from rimap.planning.design import design as design
    from rimap.planning.goal import Goal as Goal
    from rimap.plotting import plot as plot
    from rimap.series import WeightedSeries as WeightedSeries
    from rimap.signals.base import Derived as Derived
    from rimap.signals.base import FieldPrior as FieldPrior
    from rimap.signals.base import Parameter as Parameter
    from rimap.signals.base import SignalModel as SignalModel
    from rimap.signals.gradient_echo import GradientEcho as GradientEcho
    from rimap.signals.gradient_echo import GradientEchoWithOffset as GradientEchoWithOffset
    from rimap.signals.inversion_recovery import InversionRecovery as InversionRecovery
    from rimap.signals.look_locker import MOLLI as MOLLI
    from rimap.signals.look_locker import LookLocker as LookLocker
    from rimap.signals.mp2rage import MP2RAGE as MP2RAGE
    from rimap.signals.mp2rage import UniformMP2RAGE as UniformMP2RAGE
    from rimap.signals.multi_echo_spin_echo import MultiEchoSpinEcho as MultiEchoSpinEcho
    from rimap.signals.paper_protocols import PROTOCOLS as PROTOCOLS
    from rimap.signals.saturation_recovery import SaturationRecovery as SaturationRecovery
    from rimap.signals.settings import setting as setting
    from rimap.signals.t2_decay import T2Decay as T2Decay
    from rimap.signals.variable_flip_angle import VariableFlipAngle as VariableFlipAngle
    from rimap.workflow.compare import compare as compare
    from rimap.workflow.mapping import map_series as map_series
    from rimap.workflow.phantom import phantom as phantom
    from rimap.workflow.read_series import read as read
    from rimap.workflow.request import Request as Request
    from rimap.workflow.rois import rois as rois


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'rimap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
