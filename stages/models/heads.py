"""Heads that label: on a decoder as GPT-1 is fine-tuned, on an encoder as BERT is.

    a decoder's sequence     logits = W h_t               t its last token; no bias, as published
    an encoder's sequence    logits = W tanh(P h_0 + p) + b
    a token of either        logits = W h_t + b

Of multiple choice each option is a sequence with one logit, and the options of a question share a softmax; of pairs
without an order the logits of both orders are summed. Dropout stands before W. Sources: Radford et al. (2018), section
3.2 and 3.3; Devlin et al., BERT (arXiv 1810.04805), section 4 and its released code for the pooler P.

On disk it is the family's …ForSequenceClassification, …ForTokenClassification or, for an encoder's multiple choice,
…ForMultipleChoice; where there is no such class, the base folder with head.safetensors beside it.

Shapes: N tokens, C width, S sequences, E records, L labels, P places, K options.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from kernels import linear_cross_entropy
from stages.models.decoder import Decoder
from stages.models.encoder import Encoder
from stages.models.hf import DTYPES, fill, load_model, save_published, save_weights
from stages.models.hf_config import Ids, labels_config_json, read_any_config, read_json, write_json
from stages.models.loss import IGNORED
from stages.models.names import TOKEN_CLASSES
from stages.models.tensors import save_tensors
from stages.models.weights import contents, read_rows
from stages.store.architecture import ENCODERS, ModelConfig
from stages.store.classifiers import FILE, Head
from stages.store.errors import UserError
from stages.store.files import read_facts

HEAD = "head.safetensors"
UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers takes the labels for where config.json names none."""
POOLER = {"weight": "bert.pooler.dense.weight", "bias": "bert.pooler.dense.bias"}


class Classifier(nn.Module):
    """A head on a body, which it takes over. `language` keeps a decoder's own output layer to learn on."""

    def __init__(self, body: Decoder | Encoder, head: Head, *, language: bool = False) -> None:
        super().__init__()
        self.head = head
        self.body = body
        like, C = body.tokens, body.config.width
        encoder = isinstance(body, Encoder)
        if isinstance(body, Encoder):
            del body.transform, body.transform_norm, body.token_bias
        elif not language:
            body.head = None
        pooled = encoder and not head.each_token
        self.pooler = nn.Linear(C, C, dtype=like.dtype, device=like.device) if pooled else None
        layer = nn.Linear(C, head.outputs, bias=encoder or head.each_token, dtype=like.dtype, device=like.device)
        self.token_head = layer if head.each_token else None
        self.sequence_head = None if head.each_token else layer

    @property
    def config(self) -> ModelConfig:
        """The shape of the model below the head."""
        return self.body.config

    @property
    def decodes(self) -> bool:
        """Whether the body is a decoder."""
        return isinstance(self.body, Decoder)

    def hidden_states(self, tokens_1N: Tensor, documents: Tensor, types_1N: Tensor) -> Tensor:
        """(N, C) of sequences laid end to end, none of which sees another. `types_1N`: 1 for second texts."""
        if isinstance(self.body, Decoder):
            return self.body.hidden_states(tokens_1N, documents)
        if self.config.types < 2:
            types_1N = torch.zeros_like(types_1N)
        return self.body.hidden_states(tokens_1N, types_BT=types_1N, documents=documents)

    def answers(self, h_NC: Tensor, documents: Tensor, groups: Tensor, places: Tensor) -> Tensor:
        """Logits in fp32: (E, L) of records, (R, L) of words, (E, K) of options, −inf beyond those of a question.

        `documents` and `groups`: where sequences and records begin and end; `places`: of words (`data.labelled.Batch`).
        """
        if self.head.each_token:
            return self.logits(h_NC[places])
        logits_SL = self.logits(h_NC[documents[1:] - 1 if self.decodes else documents[:-1]])
        if self.head.both_orders:
            return logits_SL.view(-1, 2, logits_SL.shape[1]).sum(1)
        return _by_question(logits_SL[:, 0], groups) if self.head.task == "choice" else logits_SL

    def logits(self, h_PC: Tensor) -> Tensor:
        """What the head makes of hidden states, (P, L) in fp32."""
        if self.pooler is not None:
            h_PC = torch.tanh(self.pooler(h_PC))
        layer = self.token_head if self.token_head is not None else self.sequence_head
        assert layer is not None
        h_PC = functional.dropout(h_PC, self.config.dropout, self.training)
        bias = None if layer.bias is None else layer.bias.float()
        return functional.linear(h_PC.float(), layer.weight.float(), bias)

    def language_loss(self, h_NC: Tensor, tokens_1N: Tensor, documents: Tensor) -> Tensor:
        """Mean −log p of each next token of the same sequence in nats, a fp32 scalar. A decoder's alone."""
        assert isinstance(self.body, Decoder)
        targets_N = torch.cat((tokens_1N[0, 1:], tokens_1N.new_full((1,), IGNORED)))
        targets_N[documents[1:] - 1] = IGNORED
        return linear_cross_entropy(h_NC, self.body.head_weight, targets_N, ignored=IGNORED)


def new_classifier(body: Decoder | Encoder, head: Head, seed: int, *, language: bool = False) -> Classifier:
    """A body with a fresh head: weights N(0, s²), biases 0. The same seed gives the same bits.

    s is 0.02 at a width of 768, as published, and grows as width^-1/2 for narrower models, so that logits begin alike.
    """
    model = Classifier(body, head, language=language)
    generator = torch.Generator().manual_seed(seed)
    spread = 0.02 * max(1.0, (768 / model.config.width) ** 0.5)
    with torch.no_grad():
        for layer in (model.pooler, model.sequence_head, model.token_head):
            if layer is not None:
                layer.weight.copy_(torch.empty(layer.weight.shape).normal_(0.0, spread, generator=generator))
            if layer is not None and layer.bias is not None:
                layer.bias.zero_()
    return model


def take_pooler(model: Classifier, folder: Path) -> bool:
    """Take the pooler of a pre-trained encoder's folder over, where it has one: whether it had."""
    stored = contents(folder)
    if model.pooler is None or not all(name in stored for name in POOLER.values()):
        return False
    with torch.no_grad():
        for ours, name in POOLER.items():
            place = getattr(model.pooler, ours)
            if stored[name].shape != tuple(place.shape):
                raise UserError(f"{name} in {folder} has shape {stored[name].shape}, and config.json asks for another.")
            for _, start, rows in read_rows(stored[name].file, [name]):
                place[start : start + len(rows)].copy_(rows)
    return True


def save_classifier(
    model: Classifier, folder: Path, *, pad_id: int | None, eos_id: int | list[int] | None = None
) -> None:
    """Write config.json, the weights and classifier.json into an existing folder, as transformers' Auto classes open.

    pad_id: None where no token is for padding alone; transformers then reads one text at a time.
    """
    ids: Ids = {"pad": pad_id, "eos": eos_id}
    (folder / FILE).write_bytes(msgspec.json.encode(model.head))
    if stands_apart(model.config, model.head):
        assert isinstance(model.body, Decoder) and model.token_head is not None
        save_weights(model.body, folder, eos_id=eos_id, pad_id=pad_id)
        save_tensors({name: part.detach() for name, part in model.token_head.named_parameters()}, folder / HEAD)
        return
    dtype = DTYPES[model.body.tokens.dtype]
    write_json(folder / "config.json", labels_config_json(model.config, dtype, ids, model.head))
    save_published(model, model.config, folder)


def read_head(folder: Path) -> Head:
    """What the model in a folder says of texts: by classifier.json, or by config.json where others wrote it.

    Raises UserError for a folder whose model labels nothing.
    """
    if (folder / FILE).is_file():
        return read_facts(folder / FILE, Head)
    raw = read_json(folder / "config.json")
    named, found = str((raw.get("architectures") or [""])[0]), raw.get("id2label") or UNNAMED
    if named.endswith("ForMultipleChoice"):
        return Head(task="choice", labels=[])
    tokens = named.endswith("ForTokenClassification")
    labels = [str(found[key]) for key in sorted(found, key=int)] if isinstance(found, dict) else []
    if not (tokens or named.endswith("ForSequenceClassification")) or len(labels) < 2:
        raise UserError(f"{folder} holds no model that labels texts.", "`workbench train classify` makes one.")
    return Head(task="tokens" if tokens else "classify", labels=labels)


def load_classifier(
    folder: Path,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    config: ModelConfig | None = None,
) -> Classifier:
    """The model of a folder that `save_classifier` or transformers wrote, in evaluation mode; as `hf.load_model`."""
    head, config = read_head(folder), config or read_any_config(folder)
    if stands_apart(config, head):
        model = Classifier(load_model(folder, dtype, device, config), head, language=True).eval()
        _fill_apart(model, folder)
        return model
    return fill(empty_classifier(folder, head), folder, config, dtype, device)


def empty_classifier(folder: Path, head: Head) -> Callable[[ModelConfig], Classifier]:
    """What builds the model whose weights a folder holds together, the head's among them, without setting them."""

    def build(config: ModelConfig) -> Classifier:
        encodes = config.family in ENCODERS
        language = not encodes and not config.tied and "lm_head.weight" in contents(folder)
        return Classifier(Encoder(config) if encodes else Decoder(config), head, language=language)

    return build


def _by_question(scores_S: Tensor, groups: Tensor) -> Tensor:
    """Scores of options (S,), a row a question: (E, K), −inf where a question has fewer options than the most."""
    sizes_E = groups.diff()
    rows_S = torch.repeat_interleave(torch.arange(len(sizes_E), device=groups.device), sizes_E)
    columns_S = torch.arange(len(scores_S), device=groups.device) - groups[:-1][rows_S]
    empty = scores_S.new_full((len(sizes_E), int(sizes_E.max())), -torch.inf)
    return empty.index_put((rows_S, columns_S), scores_S)


def stands_apart(config: ModelConfig, head: Head) -> bool:
    """Whether transformers has no class for this head, so that it stands in a file of its own."""
    return head.each_token and config.family not in TOKEN_CLASSES


def _fill_apart(model: Classifier, folder: Path) -> None:
    assert model.token_head is not None
    try:
        model.token_head.load_state_dict(load_file(folder / HEAD))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder / HEAD} cannot be read: {reason}.") from error
