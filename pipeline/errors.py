"""What can go wrong between a model, a task and a store."""

from __future__ import annotations


class PipelineError(Exception):
    """Any fault of a model, a task or an extraction."""


class TaskNotFoundError(PipelineError):
    """No task of that name is known."""


class TaskError(PipelineError):
    """A task's description or its source does not hold what it should."""


class ModelNotFoundError(PipelineError):
    """A model is neither built in, nor a local folder, nor on the hub."""


class UnsupportedModelError(PipelineError):
    """A model's decoder has a layout whose sites are not known."""


class OptionEvidenceError(PipelineError):
    """The options of a task cannot be told apart by the first token of the answer."""


class SampleError(PipelineError):
    """A sample cannot be read or does not fit its task."""


class ClassifierError(PipelineError):
    """A portable classifier cannot be run: it is of another model, or of what is not computed early."""


class EngineError(PipelineError):
    """The workers that were asked for cannot be had."""


class ExtractionError(PipelineError):
    """Some blocks could not be computed; what was committed stays."""


class ExperimentError(PipelineError):
    """An experiment's file cannot be read, or asks for what there is not."""


class CapacityError(PipelineError):
    """A planned run does not fit the memory or the disk that is there for it."""


class ArrayFileError(PipelineError):
    """A file does not hold the arrays of a run, or not in a form that is read."""


class OutputError(PipelineError):
    """Standard output does not take what is printed."""


class SelectionError(PipelineError):
    """A selection of neurons cannot be understood."""


class PublicationError(PipelineError):
    """A dataset cannot be published as it is asked for."""
