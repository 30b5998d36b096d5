"""Early exit with adaptive depth: a sample is answered as soon as the layers that ran are sure of it.

A cascade asks Super Neurons of rising depths; how sure each must be is chosen on the validation split.
"""

from .cascade import Cascade, CascadeAnswers, EarlyExit, decide_exit
from .curve import ExitCurve, ExitFigure, measure_exits
from .margin import calibrate_exits, choose_exits, rehearse_exits

__all__ = [
    "Cascade",
    "CascadeAnswers",
    "EarlyExit",
    "ExitCurve",
    "ExitFigure",
    "calibrate_exits",
    "choose_exits",
    "decide_exit",
    "measure_exits",
    "rehearse_exits",
]
