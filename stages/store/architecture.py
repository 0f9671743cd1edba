"""A model's shape as data: everything that fixes its parameters and its function but the weights themselves.

A family is a file format. `ALLOWED` says which shapes each can express; the models themselves know no families.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

Family = Literal["gpt2", "gpt1", "llama", "mistral", "qwen2", "qwen3", "bert", "t5", "transformer-xl"]
MODERN = ("llama", "mistral", "qwen2", "qwen3")
ENCODERS = ("bert",)
"""Families that read a text in both directions and write none."""
ENCODER_DECODERS = ("t5",)
"""Families that read one text in both directions and write another."""
RECURRENT = ("transformer-xl",)
"""Families that continue a text segment by segment and remember those before."""
Kind = Literal["decoder", "encoder", "encoder-decoder", "recurrent decoder"]


class Biases(NamedTuple):
    """Which linear layers of a block have bias vectors."""

    qkv: bool
    out: bool
    mlp: bool


class Rope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), and how they were stretched to a longer context.

    linear divides the positions; dynamic changes nothing within the model's context, which is where we use it; llama3
    divides low frequencies only; yarn is Peng et al. 2023 (arXiv 2309.00071).
    """

    theta: Annotated[float, Meta(gt=1, le=1e12, description="Base of the wavelengths.")] = 10_000.0
    kind: Annotated[
        Literal["default", "linear", "dynamic", "llama3", "yarn"], Meta(description="How positions are stretched.")
    ] = "default"
    factor: Annotated[float, Meta(ge=1, le=1e6, description="By how much the context was stretched.")] | None = None
    original_context: (
        Annotated[int, Meta(ge=1, le=16_777_216, description="The context before it was stretched.")] | None
    ) = None
    low_freq_factor: Annotated[float, Meta(gt=0, le=1e6, description="llama3: from here on all is divided.")] | None = (
        None
    )
    high_freq_factor: Annotated[float, Meta(gt=0, le=1e6, description="llama3: up to here nothing is.")] | None = None
    beta_fast: Annotated[float, Meta(gt=0, le=1e6, description="yarn: turns that stay as they are.")] | None = None
    beta_slow: Annotated[float, Meta(gt=0, le=1e6, description="yarn: turns that are divided whole.")] | None = None
    attention_factor: Annotated[float, Meta(gt=0, le=1e6, description="yarn: scale of queries and keys.")] | None = None
    mscale: Annotated[float, Meta(ge=0, le=1e6, description="yarn: what the scale is made of.")] | None = None
    mscale_all_dim: Annotated[float, Meta(ge=0, le=1e6, description="yarn: and divided by.")] | None = None
    truncate: Annotated[bool, Meta(description="yarn: whether the range of frequencies is rounded.")] | None = None

    def __post_init__(self) -> None:
        needs = {"linear": ("factor",), "dynamic": ("factor",), "yarn": ("factor", "original_context")} | {
            "llama3": ("factor", "original_context", "low_freq_factor", "high_freq_factor")
        }
        lacking = [name for name in needs.get(self.kind, ()) if getattr(self, name) is None]
        if lacking:
            raise ValueError(f"rotary positions of kind {self.kind} need {', '.join(lacking)}")
        if self.kind == "llama3" and not (self.low_freq_factor or 0) < (self.high_freq_factor or 0):
            raise ValueError("`low_freq_factor` must be below `high_freq_factor`")


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The shape of a decoder, an encoder, or both in one."""

    family: Annotated[Family, Meta(description="The published architecture whose file format a checkpoint takes.")] = (
        "gpt2"
    )
    layers: Annotated[int, Meta(ge=1, le=1000, description="Number of transformer blocks.")]
    decoder_layers: Annotated[
        Annotated[int, Meta(ge=1, le=1000)] | None,
        Meta(description="Blocks of an encoder-decoder's decoder; as many as the encoder's when left out."),
    ] = None
    heads: Annotated[int, Meta(ge=1, le=1024, description="Query heads in each block.")]
    kv_heads: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | None,
        Meta(description="Key and value heads, shared by groups of query heads; as many as those when left out."),
    ] = None
    head_dim: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Meta(description="Width of one head; the width divided by the heads when left out."),
    ] = None
    width: Annotated[int, Meta(ge=1, le=65_536, description="Numbers in the vector that stands for one token.")]
    ff_width: Annotated[
        Annotated[int, Meta(ge=1, le=1_048_576)] | None,
        Meta(description="Width of the hidden layer of each feed-forward network; four times the width when left out."),
    ] = None
    context: Annotated[int, Meta(ge=1, le=16_777_216, description="The most tokens that the model can look at.")]
    memory: Annotated[
        int, Meta(ge=0, le=16_777_216, description="Tokens before a segment that Transformer-XL remembers.")
    ] = 0
    vocab_size: Annotated[int, Meta(ge=1, le=4_194_304, description="Number of different tokens.")]
    types: Annotated[
        int, Meta(ge=0, le=1024, description="Vectors that tell the parts of an encoder's input apart, as BERT's two.")
    ] = 0
    norm: Annotated[
        Literal["pre", "post"],
        Meta(description="Whether a norm stands before each sub-layer (GPT-2) or after the residual sum (GPT-1)."),
    ] = "pre"
    norm_kind: Annotated[Literal["layer", "rms"], Meta(description="LayerNorm, or RMSNorm, which does not centre.")] = (
        "layer"
    )
    norm_eps: Annotated[float, Meta(gt=0, lt=1, description="Added to the variance in a norm.")] = 1e-5
    qk_norm: Annotated[bool, Meta(description="Whether each head's queries and keys are normalised.")] = False
    positions: Annotated[
        Literal["learned", "rotary", "relative", "sinusoidal"],
        Meta(
            description="A vector for each position, turns of queries and keys, a bias for each distance (T5), or "
            "sinusoids of the distance (Transformer-XL)."
        ),
    ] = "learned"
    rope: Annotated[Rope, Meta(description="Rotary positions in detail.")] = Rope()
    buckets: Annotated[
        int, Meta(ge=4, le=65_536, description="Distances that a T5 tells apart; farther ones share a bias.")
    ] = 32
    bucket_distance: Annotated[
        int, Meta(ge=4, le=16_777_216, description="From this distance on, all share one bias.")
    ] = 128
    window: Annotated[
        Annotated[int, Meta(ge=1, le=16_777_216)] | None,
        Meta(description="How many tokens back attention sees; all when left out."),
    ] = None
    windowed_layers: Annotated[
        tuple[int, ...] | None, Meta(description="The blocks whose attention has the window; all when left out.")
    ] = None
    dropout: Annotated[
        float, Meta(ge=0, lt=1, description="Share of activations set to zero while training; 0 turns it off.")
    ] = 0.0
    tied: Annotated[bool, Meta(description="Whether the output layer is the token embedding itself.")] = True
    scaled_logits: Annotated[
        bool, Meta(description="Whether what the output layer reads is divided by the root of the width, as in T5 1.0.")
    ] = False
    bias: Annotated[bool, Meta(description="Whether linear layers and layer norms have bias vectors.")] = True
    qkv_bias: Annotated[bool | None, Meta(description="The same for queries, keys and values alone.")] = None
    out_bias: Annotated[bool | None, Meta(description="The same for the output of attention alone.")] = None
    mlp_bias: Annotated[bool | None, Meta(description="The same for the feed-forward network alone.")] = None
    activation: Annotated[
        Literal["gelu_tanh", "gelu", "relu", "silu"],
        Meta(description="The non-linearity of the feed-forward network."),
    ] = "gelu_tanh"
    gated: Annotated[
        bool, Meta(description="Whether the feed-forward network multiplies two halves, as SwiGLU does.")
    ] = False

    def __post_init__(self) -> None:
        if self.width % self.heads and (self.head_dim is None or self.family == "llama"):
            raise ValueError(f"`heads` must divide `width`, but {self.width} is no multiple of {self.heads}")
        if self.heads % self.key_heads:
            raise ValueError(f"`kv_heads` must divide `heads`, but {self.heads} is no multiple of {self.key_heads}")
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need heads of even width, not {self.head_width}")
        if self.positions == "relative" and self.bucket_distance <= self.buckets // 2:
            raise ValueError(f"`bucket_distance` must exceed half the buckets, {self.buckets // 2}")
        if self.windowed_layers is not None:
            if self.window is None or list(self.windowed_layers) != sorted(set(self.windowed_layers)):
                raise ValueError("`windowed_layers` must rise, and need a `window`")
            if self.windowed_layers and not 0 <= self.windowed_layers[0] <= self.windowed_layers[-1] < self.layers:
                raise ValueError(f"`windowed_layers` must lie between 0 and {self.layers - 1}")
        for trait, allowed in ALLOWED[self.family].items():
            value = getattr(self, trait)
            if value not in allowed:
                known = " or ".join(map(repr, allowed))
                raise ValueError(f"`{trait}` of the family {self.family} is {known}, not {value!r}")

    @property
    def kind(self) -> Kind:
        """What the model does with a text."""
        if self.family in ENCODERS:
            return "encoder"
        if self.family in RECURRENT:
            return "recurrent decoder"
        return "encoder-decoder" if self.family in ENCODER_DECODERS else "decoder"

    @property
    def head_width(self) -> int:
        """The width of a head that is in force."""
        return self.head_dim or self.width // self.heads

    @property
    def writing_layers(self) -> int:
        """Blocks of an encoder-decoder's decoder; 0 for other models."""
        return (self.decoder_layers or self.layers) if self.kind == "encoder-decoder" else 0

    @property
    def key_heads(self) -> int:
        """Heads of keys and of values."""
        return self.kv_heads or self.heads

    @property
    def grouped(self) -> bool:
        """Whether several query heads share one of keys and values."""
        return self.key_heads != self.heads

    @property
    def plain_heads(self) -> bool:
        """Whether the heads side by side are as wide as the model."""
        return self.heads * self.head_width == self.width

    @property
    def inner_width(self) -> int:
        """The feed-forward width that is in force."""
        return self.ff_width or 4 * self.width

    @property
    def inner_is_fourfold(self) -> bool:
        """Whether the feed-forward width is four times the model's."""
        return self.inner_width == 4 * self.width

    @property
    def biases(self) -> Biases:
        """The biases that are in force."""
        given = (self.qkv_bias, self.out_bias, self.mlp_bias)
        return Biases(*(self.bias if own is None else own for own in given))

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The window of each layer; None where attention sees everything."""
        seen = range(self.layers) if self.windowed_layers is None else set(self.windowed_layers)
        return tuple(self.window if layer in seen else None for layer in range(self.layers))

    @property
    def windowed(self) -> bool:
        """Whether any layer sees a window only."""
        return any(self.windows)


_ONE_STACK: dict[str, tuple[Any, ...]] = {"decoder_layers": (None,), "scaled_logits": (False,), "memory": (0,)}
_ANY_GPT: dict[str, tuple[Any, ...]] = _ONE_STACK | {
    "types": (0,),
    "norm_kind": ("layer",),
    "positions": ("learned",),
    "qk_norm": (False,),
    "gated": (False,),
    "grouped": (False,),
    "plain_heads": (True,),
    "windowed": (False,),
    "biases": (Biases(True, True, True), Biases(False, False, False)),
}
_MODERN: dict[str, tuple[Any, ...]] = _ONE_STACK | {
    "types": (0,),
    "norm": ("pre",),
    "norm_kind": ("rms",),
    "positions": ("rotary",),
    "gated": (True,),
}
_NO_BIAS = Biases(qkv=False, out=False, mlp=False)
_QKV_BIAS = Biases(qkv=True, out=False, mlp=False)
_ATTENTION_BIAS = Biases(qkv=True, out=True, mlp=False)

ALLOWED: dict[str, dict[str, tuple[Any, ...]]] = {
    "gpt2": {"norm": ("pre",)} | _ANY_GPT,
    "gpt1": {"norm": ("post",), "inner_is_fourfold": (True,), "activation": ("gelu_tanh", "relu", "silu")} | _ANY_GPT,
    "bert": {"norm": ("post",), "tied": (True,)} | _ANY_GPT | {"types": (1, 2), "biases": (Biases(True, True, True),)},
    "t5": {
        "types": (0,),
        "memory": (0,),
        "norm": ("pre",),
        "norm_kind": ("rms",),
        "positions": ("relative",),
        "qk_norm": (False,),
        "grouped": (False,),
        "windowed": (False,),
        "biases": (_NO_BIAS,),
        "activation": ("relu", "gelu_tanh", "silu"),
    },
    "transformer-xl": {
        "types": (0,),
        "decoder_layers": (None,),
        "scaled_logits": (False,),
        "norm": ("post",),
        "norm_kind": ("layer",),
        "positions": ("sinusoidal",),
        "qk_norm": (False,),
        "gated": (False,),
        "grouped": (False,),
        "windowed": (False,),
        "tied": (True,),
        "biases": (Biases(qkv=False, out=False, mlp=True),),
    },
    "llama": _MODERN
    | {
        "qk_norm": (False,),
        "windowed": (False,),
        "biases": (_NO_BIAS, _ATTENTION_BIAS, Biases(False, False, True), Biases(True, True, True)),
    },
    "mistral": _MODERN | {"qk_norm": (False,), "biases": (_NO_BIAS,), "windowed_layers": (None,)},
    "qwen2": _MODERN | {"qk_norm": (False,), "biases": (_QKV_BIAS,)},
    "qwen3": _MODERN | {"qk_norm": (True,), "biases": (_NO_BIAS, _ATTENTION_BIAS)},
}
"""By family: what its published format can say, by fields and properties of ModelConfig."""
