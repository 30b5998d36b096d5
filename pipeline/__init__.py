"""Models, tasks and people: extraction on Ray, the demo, the command line."""

from .early_exit import EarlyExitClassifier
from .engine.serial import SerialEngine
from .errors import PipelineError
from .extraction import extract
from .model import find_model
from .request import RunRequest
from .settings import ExtractionSettings
from .task import load_task

__all__ = [
    "EarlyExitClassifier",
    "ExtractionSettings",
    "PipelineError",
    "RunRequest",
    "SerialEngine",
    "extract",
    "find_model",
    "load_task",
]
