"""The typed steps of a recipe: one frozen model per stage, checked before anything heavy is imported.

Input roles, operational fields and fields that are never recorded are explained in `fields`.
"""

from typing import Annotated

from pydantic import Field

from erpd_hub.config.common import Compute, Dtype, Layout, Numerics, StepConfig
from erpd_hub.config.critic import CriticConfig
from erpd_hub.config.data import (
    TINY_FORMAT,
    BaseConfig,
    CodePrompts,
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
from erpd_hub.config.judge import JudgeConfig, JudgeSettings
from erpd_hub.config.losses import (
    CELoss,
    CISPOLoss,
    CustomLoss,
    DrGRPOLoss,
    GRPOLoss,
    GSPOLoss,
    LossConfig,
    MSELoss,
    PPOLoss,
    SAPOLoss,
    SFTLoss,
    TeacherLoss,
    TOPRLoss,
    VESPOLoss,
)
from erpd_hub.config.measuring import EvaluateConfig, ProbeConfig
from erpd_hub.config.online import OnlineConfig
from erpd_hub.config.sampling import (
    Decoding,
    EngineConfig,
    EngineDtype,
    ImportedRollouts,
    RolloutConfig,
    RolloutsConfig,
    ServerEngine,
    TransformersEngine,
    VLLMEngine,
)
from erpd_hub.config.selection import GateConfig, SelectConfig
from erpd_hub.config.signals import ScoreConfig, SignalConfig
from erpd_hub.config.training import (
    DistillConfig,
    LoRA,
    TeacherConfig,
    TrainingConfig,
)
from erpd_hub.config.unlearned import UnlearnedConfig

AnyStep = Annotated[
    BaseConfig
    | PromptsConfig
    | RolloutsConfig
    | ScoreConfig
    | CriticConfig
    | TeacherConfig
    | UnlearnedConfig
    | SignalConfig
    | DistillConfig
    | OnlineConfig
    | ProbeConfig
    | EvaluateConfig
    | JudgeConfig
    | GateConfig
    | SelectConfig,
    Field(discriminator="stage"),
]

__all__ = [
    "TINY_FORMAT",
    "AnyStep",
    "BaseConfig",
    "CELoss",
    "CISPOLoss",
    "CodePrompts",
    "Compute",
    "CriticConfig",
    "CustomLoss",
    "Decoding",
    "DistillConfig",
    "DrGRPOLoss",
    "Dtype",
    "EngineConfig",
    "EngineDtype",
    "EvaluateConfig",
    "GRPOLoss",
    "GSPOLoss",
    "GateConfig",
    "GeneratedPrompts",
    "HubPrompts",
    "ImportBase",
    "ImportedRollouts",
    "JsonlPrompts",
    "JudgeConfig",
    "JudgeSettings",
    "Layout",
    "LoRA",
    "LossConfig",
    "MSELoss",
    "Numerics",
    "OnlineConfig",
    "PPOLoss",
    "ProbeConfig",
    "PromptFormat",
    "PromptSelection",
    "PromptsConfig",
    "RangeFilter",
    "RolloutConfig",
    "RolloutsConfig",
    "SAPOLoss",
    "SFTLoss",
    "ScoreConfig",
    "SelectConfig",
    "ServerEngine",
    "SignalConfig",
    "StepConfig",
    "TOPRLoss",
    "TeacherConfig",
    "TeacherLoss",
    "TinyBase",
    "TrainingConfig",
    "TransformersEngine",
    "UnlearnedConfig",
    "VESPOLoss",
    "VLLMEngine",
]
