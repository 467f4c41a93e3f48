from .ranks import RankError as RankError
from .result import FitResult as FitResult, Score as Score
from .run import Interrupted as Interrupted, fit as fit
from .task import TrainingError as TrainingError

__all__: list[str]
