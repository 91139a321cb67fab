"""The acquisition protocols of the paper's Table 2, by name.

Deviations
----------
The table's repetition time of the T1 scans, 8192, is most likely 8.192 ms between readouts (the inversion
times are four times that apart): it is not the time from inversion to inversion, so no TR is set. What such
a Look-Locker readout gives is an apparent T1 (T1*), shortened by the readout pulses.
"""

from __future__ import annotations

from types import MappingProxyType

from rimap.signals.base import SignalModel
from rimap.signals.inversion_recovery import InversionRecovery
from rimap.signals.t2_decay import T2Decay

_23 = (
    172,
    204,
    237,
    270,
    303,
    335,
    368,
    401,
    434,
    467,
    499,
    532,
    565,
    598,
    630,
    663,
    696,
    729,
    761,
    794,
    827,
    860,
    893,
)
_31 = (139, 166, 193, 219, 246, 272, 299, 325, 352, 379, 405, 432, 458, 485, 511, 538, 565, 591, 618, 644, 671, 697,
       724, 751, 777, 804, 838, 857, 883, 915, 937)  # fmt: skip

#: Table 2, doi:10.1016/j.media.2021.102220. HP: phantom, IV: in vivo. Times in ms.
PROTOCOLS: MappingProxyType[str, SignalModel] = MappingProxyType(
    {
        "HP_T1": InversionRecovery(tau=_23),
        "IV_T1": InversionRecovery(tau=_31),
        "IV_T1_noisy": InversionRecovery(tau=(*_23, 925, 958)),
        "HP_T2": T2Decay(tau=(10, 20, 40, 80, 160, 320)),
        "IV_T2": T2Decay(tau=(10, 20, 40, 80, 160, 320)),
    }
)
