from .ablation import AblationResult as AblationResult, ablate as ablate
from .search import SweepResult as SweepResult, sweep as sweep
from .space import Choice as Choice, Range as Range, space_from_words as space_from_words

__all__: list[str]
