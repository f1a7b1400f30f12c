"""How a checkpoint is scored. Free of torch: the launchpad is made from it."""

from pydantic import Field

from model.common.config import Config


class EvaluationConfig(Config):
    """How a checkpoint is scored."""

    bootstrap_samples: int = Field(1000, ge=2, description="Resamples behind each confidence interval")
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Share of resamples that an interval holds")
    seed: int = Field(0, ge=0, description="Seed of the resamples")
    batch_size: int = Field(1024, ge=1, description="Windows a step")
    device: str = Field("auto", description="auto (CUDA if there is one, else CPU) or a torch device such as cuda:1")
