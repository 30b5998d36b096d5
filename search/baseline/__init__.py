"""Baselines: what Super Neurons must beat before they mean anything, at equal numbers of labels."""

from .answer import predict_base, predict_baselines, predict_majority, predict_question_only
from .basis import RotatedRun, rotate_units
from .budget import BUDGETS, plan_budget
from .calibration import predict_batch_calibrated, predict_calibrated, predict_contextual
from .control import VisualGain, measure_visual_gain, randomize_labels
from .lens import predict_lens, predict_lens_calibrated
from .probe import predict_image_probe, predict_layer_probes
from .sav import predict_sav

__all__ = [
    "BUDGETS",
    "RotatedRun",
    "VisualGain",
    "measure_visual_gain",
    "plan_budget",
    "predict_base",
    "predict_baselines",
    "predict_batch_calibrated",
    "predict_calibrated",
    "predict_contextual",
    "predict_image_probe",
    "predict_layer_probes",
    "predict_lens",
    "predict_lens_calibrated",
    "predict_majority",
    "predict_question_only",
    "predict_sav",
    "randomize_labels",
    "rotate_units",
]
