from ._version import __version__ as __version__
from .analysis.check import check as check
from .authors import load_authors_checkpoint as load_authors_checkpoint
from .calculator import CrystalFramerCalculator as CrystalFramerCalculator
from .checkpoint import save as save
from .config import (
    Config as Config,
    DataConfig as DataConfig,
    ModelConfig as ModelConfig,
    Target as Target,
    TrainingConfig as TrainingConfig,
)
from .crystals.crystal import Crystal as Crystal
from .datasets.dataset import CrystalDataset as CrystalDataset
from .datasets.sources import dataset as dataset
from .embedding import embed as embed
from .errors import (
    AuthorsCheckpointError as AuthorsCheckpointError,
    CheckpointError as CheckpointError,
    ConfigError as ConfigError,
    CrystalError as CrystalError,
    CrystalFramerError as CrystalFramerError,
    CrystalWarning as CrystalWarning,
    DataError as DataError,
    MotifError as MotifError,
    PolyhedronError as PolyhedronError,
    RankError as RankError,
    ScreeningError as ScreeningError,
    TraceError as TraceError,
    TrainingError as TrainingError,
    UncertaintyError as UncertaintyError,
    UnknownTarget as UnknownTarget,
    WorkerError as WorkerError,
)
from .estimator import (
    CrystalFramerClassifier as CrystalFramerClassifier,
    CrystalFramerEmbedding as CrystalFramerEmbedding,
    CrystalFramerRegressor as CrystalFramerRegressor,
)
from .evaluation import (
    calibrate as calibrate,
    calibrate_probabilities as calibrate_probabilities,
    evaluate as evaluate,
    index_training_crystals as index_training_crystals,
)
from .explaining.attribution import explain as explain
from .explaining.faithfulness import faithfulness as faithfulness
from .explaining.heads import head_importance as head_importance
from .explaining.interventions import Intervention as Intervention, intervene as intervene
from .explaining.substitution import substitute as substitute
from .explanations import Explanation as Explanation
from .learning import learn_soundness as learn_soundness
from .model.network import CrystalFramer as CrystalFramer
from .nearest import nearest_training as nearest_training
from .prediction import load as load, predict as predict, trace as trace
from .presets import PRESETS as PRESETS, preset as preset
from .reading.inputs import read as read, read_all as read_all
from .screening import read_screen as read_screen, screen as screen
from .stability import above_hull as above_hull
from .studies import Choice as Choice, Range as Range, ablate as ablate, sweep as sweep
from .submission import submit as submit
from .traces import CrystalTrace as CrystalTrace
from .training import fit as fit

__all__: list[str]
