"""How well a network, or an engine that is shipped, labels images that people labelled.

The measures need NumPy and OpenCV only; what runs a network imports torch when it is called.
"""

from edgeseg.evaluate.boundary import BOUNDARY_TOLERANCE, boundary_f
from edgeseg.evaluate.models import (
    describe_checkpoint,
    evaluate_checkpoint,
    evaluate_network,
    evaluate_runtime,
    evaluation_size,
)
from edgeseg.evaluate.scores import Scores, confusion_matrix
from edgeseg.evaluate.views import Views, Window

__all__ = [
    "BOUNDARY_TOLERANCE",
    "Scores",
    "Views",
    "Window",
    "boundary_f",
    "confusion_matrix",
    "describe_checkpoint",
    "evaluate_checkpoint",
    "evaluate_network",
    "evaluate_runtime",
    "evaluation_size",
]
