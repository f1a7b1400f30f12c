"""How a checkpoint is scored. Free of torch: the launchpad is made from it."""

from dataclasses import dataclass

from model.common.config import option
from model.common.errors import DataError


@dataclass(frozen=True)
class EvaluationConfig:
    """How a checkpoint is scored."""

    bootstrap_samples: int = option(1000, "Resamples behind each confidence interval")
    confidence_level: float = option(0.95, "Share of resamples that an interval holds")
    seed: int = option(0, "Seed of the resamples")
    batch_size: int = option(1024, "Windows a step")
    device: str = option("auto", "auto (CUDA if there is one, else CPU) or a torch device such as cuda:1")

    def __post_init__(self) -> None:
        if self.bootstrap_samples < 2 or not 0 < self.confidence_level < 1 or self.batch_size < 1:
            raise DataError(f"{self}: expected at least 2 samples, a level within (0, 1) and a positive batch_size.")
