"""The shape of a model and what follows from it by counting: parameters, floating-point operations, cache bytes.

Pure arithmetic, no torch: `plan` works where no weights are. The counts equal those of the real transformers models
(tested on the meta device for Llama, Qwen3 and Qwen3.5).
"""

from dataclasses import dataclass

from erpd_hub.config import Dtype

BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class LinearAttention:
    """The gated delta-net of Qwen3.5: a fixed-size state in place of a key-value cache."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int

    @property
    def mixed(self) -> int:
        """Width of queries, keys and values together."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim

    @property
    def values(self) -> int:
        return self.value_heads * self.value_dim


@dataclass(frozen=True)
class ModelFacts:
    """Shape of a decoder-only model with gated MLPs."""

    name: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    """The output head is the embedding."""
    qk_norm: bool = False
    qkv_bias: bool = False
    gated_query: bool = False
    """The query projection also makes an output gate (Qwen3.5)."""
    linear: LinearAttention | None = None
    linear_layers: int = 0
    stored: Dtype = "bfloat16"
    """Of the weights as published."""
    mean_response: int | None = None
    """Tokens of a mean response on contest mathematics, where a source says."""

    # ------------------------------------------------------------------------------------ parameters

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden

    @property
    def head(self) -> int:
        """Parameters of the output head that are not those of the embedding."""
        return 0 if self.tied else self.embedding

    @property
    def mlp(self) -> int:
        return 3 * self.hidden * self.intermediate

    @property
    def attention(self) -> int:
        """Parameters of a layer with softmax attention, its norms included."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        gates = 2 if self.gated_query else 1
        bias = q + 2 * kv if self.qkv_bias else 0
        norms = 2 * self.head_dim if self.qk_norm else 0
        return self.hidden * (gates * q + 2 * kv) + q * self.hidden + bias + norms + 2 * self.hidden

    @property
    def linear_attention(self) -> int:
        """Parameters of a layer with linear attention, its norms included."""
        if self.linear is None:
            return 0
        it = self.linear
        projections = self.hidden * (it.mixed + it.values + 2 * it.value_heads) + it.values * self.hidden
        return projections + it.mixed * it.kernel + 2 * it.value_heads + it.value_dim + 2 * self.hidden

    @property
    def layer(self) -> int:
        """Parameters of the largest layer."""
        return self.mlp + max(self.attention, self.linear_attention)

    @property
    def body(self) -> int:
        """Parameters between embedding and head."""
        softmax = self.layers - self.linear_layers
        return self.layers * self.mlp + softmax * self.attention + self.linear_layers * self.linear_attention

    @property
    def params(self) -> int:
        return self.body + self.hidden + self.embedding + self.head

    @property
    def lora_params_per_rank(self) -> int:
        """Parameters of an adapter on every linear layer, for each unit of its rank."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        gates = 2 if self.gated_query else 1
        softmax = (self.hidden + gates * q) + 2 * (self.hidden + kv) + (q + self.hidden)
        mlp = 3 * (self.hidden + self.intermediate)
        if self.linear is None:
            return self.layers * (softmax + mlp)
        it = self.linear
        delta = (self.hidden + it.mixed) + 2 * (self.hidden + it.values) + 2 * (self.hidden + it.value_heads)
        return self.layers * mlp + (self.layers - self.linear_layers) * softmax + self.linear_layers * delta

    def trained(self, lora_rank: int | None) -> int:
        """Parameters that a training changes and a checkpoint of it holds: all, or those of its adapter."""
        return self.params if lora_rank is None else self.lora_params_per_rank * lora_rank

    # ------------------------------------------------------------------------------------ operations

    def forward_flops(self, tokens: float, length: float) -> float:
        """Floating-point operations of a forward pass with all its logits, a multiply-add counted as two.

        Args:
            tokens: How many in all.
            length: Length of the sequence a mean token stands in; causal attention sees half of it.
        """
        attended = 2 * (self.layers - self.linear_layers) * self.heads * self.head_dim * length
        state = 0.0
        if self.linear is not None:
            state = 6.0 * self.linear_layers * self.linear.values * self.linear.key_dim
        return tokens * (2 * self.body + attended + state) + 2 * tokens * self.embedding

    # ----------------------------------------------------------------------------------------- cache

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token in bfloat16."""
        return 2 * 2 * (self.layers - self.linear_layers) * self.kv_heads * self.head_dim

    @property
    def state_bytes(self) -> int:
        """Recurrent state of one sequence (fp32) and its convolution (bfloat16)."""
        if self.linear is None:
            return 0
        it = self.linear
        return self.linear_layers * (4 * it.values * it.key_dim + 2 * it.mixed * (it.kernel - 1))
