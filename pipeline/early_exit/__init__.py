"""Early exit: answers from the first layers of a model, by the vote of a portable classifier.

Heavy libraries are imported when a model is loaded.
"""

from .classifier import EarlyExitClassifier, Predictions
from .prediction import NeuronVote, Prediction
from .question_file import AnsweredLine, answer_lines

__all__ = ["AnsweredLine", "EarlyExitClassifier", "NeuronVote", "Prediction", "Predictions", "answer_lines"]
