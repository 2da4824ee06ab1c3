# The public names and where they are defined; lazy_loader reads the imports of this file at run time.

# ruff: noqa: I001
# Stages, in the order of the work.
from .data.prepare import prepare
from .encoding.precompute import precompute
from .encoding.encoders.registered import check_encoder, register_encoder
from .store.consolidation import consolidate
from .training.train import train
from .runs.evaluate import evaluate
from .runs.recommend import recommend
from .explanation.explain import explain
from .benchmark.scoreboard import scoreboard
from .benchmark.rows import register_baseline

# Data types and the functions on them.
from .common.csr import Csr
from .config import ModelConfig, TrainConfig
from .data.dataset import Dataset
from .ranking.scorer import ScoreTables
from .ranking.top_k import rank
from .store.store import EmbeddingStore
from .store.write import write_store
from .training.negatives import sample_negatives

# Errors.
from .common.errors import (
    BusyError,
    DataError,
    InternalError,
    LlmdirectError,
    MismatchError,
    MissingError,
)

# The extension.
from ._core import __version__, num_threads, set_num_threads

__all__ = [
    "BusyError",
    "Csr",
    "DataError",
    "Dataset",
    "EmbeddingStore",
    "InternalError",
    "LlmdirectError",
    "MismatchError",
    "MissingError",
    "ModelConfig",
    "ScoreTables",
    "TrainConfig",
    "__version__",
    "check_encoder",
    "consolidate",
    "evaluate",
    "explain",
    "num_threads",
    "precompute",
    "prepare",
    "rank",
    "recommend",
    "register_baseline",
    "register_encoder",
    "sample_negatives",
    "scoreboard",
    "set_num_threads",
    "train",
    "write_store",
]
