"""The typed steps of a recipe: one frozen model per stage, checked before anything heavy is imported.

Input roles, operational fields and fields that are never recorded are explained in `fields`.
"""

from typing import Annotated

from pydantic import Field

from erpd_hub.config.common import Compute, Dtype, Layout, Numerics, StepConfig
from erpd_hub.config.data import (
    BaseConfig,
    GeneratedPrompts,
    HubPrompts,
    ImportBase,
    JsonlPrompts,
    PromptFormat,
    PromptsConfig,
    PromptSelection,
    RangeFilter,
    TinyBase,
)
from erpd_hub.config.measuring import EvaluateConfig, ProbeConfig
from erpd_hub.config.sampling import (
    Decoding,
    EngineConfig,
    EngineDtype,
    RolloutConfig,
    ServerEngine,
    TransformersEngine,
    VLLMEngine,
)
from erpd_hub.config.training import (
    CELoss,
    DistillConfig,
    LoRA,
    MSELoss,
    ScoreConfig,
    SignalConfig,
    TeacherConfig,
    TeacherLoss,
    TrainingConfig,
    UnlearnedConfig,
)

AnyStep = Annotated[
    BaseConfig
    | PromptsConfig
    | RolloutConfig
    | ScoreConfig
    | TeacherConfig
    | UnlearnedConfig
    | SignalConfig
    | DistillConfig
    | ProbeConfig
    | EvaluateConfig,
    Field(discriminator="stage"),
]

__all__ = [
    "AnyStep",
    "BaseConfig",
    "CELoss",
    "Compute",
    "Decoding",
    "DistillConfig",
    "Dtype",
    "EngineConfig",
    "EngineDtype",
    "EvaluateConfig",
    "GeneratedPrompts",
    "HubPrompts",
    "ImportBase",
    "JsonlPrompts",
    "Layout",
    "LoRA",
    "MSELoss",
    "Numerics",
    "ProbeConfig",
    "PromptFormat",
    "PromptSelection",
    "PromptsConfig",
    "RangeFilter",
    "RolloutConfig",
    "ScoreConfig",
    "ServerEngine",
    "SignalConfig",
    "StepConfig",
    "TeacherConfig",
    "TeacherLoss",
    "TinyBase",
    "TrainingConfig",
    "TransformersEngine",
    "UnlearnedConfig",
    "VLLMEngine",
]
