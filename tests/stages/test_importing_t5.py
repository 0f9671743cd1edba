"""T5's folders as they are published: taken in with their tokenizer, asked in chat, and tuned from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from stages.asking.speaking import open_speaker
from stages.data.corruption import Sentinels
from stages.data.tokenizer import TextTokenizer
from stages.importing import import_model, inspect
from stages.models.t5 import load_t5
from stages.store.chat import Request, Turn
from stages.store.specs.chat import Chat
from stages.store.workspace import Workspace

WORDS = ("▁the", "▁red", "▁blue", "▁sky", "▁is", "▁", "s", "e", "a", ".")


def published(folder: Path, *, gated: bool) -> Path:
    """A T5 1.0 or 1.1 with a tokenizer like its own: unigram pieces, </s> at the end, sentinels."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -2.0) for word in WORDS)]
    pieces += [(f"<extra_id_{number}>", 0.0) for number in reversed(range(20))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Replace("  ", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    sentinels = [f"<extra_id_{number}>" for number in range(20)]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=sentinels,
    ).save_pretrained(folder)
    size = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
    config = T5Config(
        feed_forward_proj="gated-gelu" if gated else "relu",
        tie_word_embeddings=not gated,
        decoder_start_token_id=0,
        **size,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    if gated:
        weights = load_file(folder / "model.safetensors") | {"lm_head.weight": torch.randn(40, 16)}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("gated", [False, True], ids=["1.0", "1.1"])
def test_a_published_folder_is_taken_in_and_answers_as_there(tmp_path: Path, gated: bool) -> None:
    source = published(tmp_path / "source", gated=gated)
    target = Workspace(tmp_path / "ws").ensure().models / "t5"
    target.mkdir()
    info = import_model(inspect(source), target, "t5", lambda phase, done, total: None)
    model = load_t5(target)
    assert info.family == "t5"
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    tokenizer = TextTokenizer.load(target)
    assert tokenizer.decode(tokenizer.encode("the sky is blue.")) == "the sky is blue."
    assert len(Sentinels.of(tokenizer).ids) == 20
    ids = [*tokenizer.encode("the sky is"), tokenizer.eos_id]
    theirs = AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32).eval()
    wanted = theirs.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0].tolist()
    speaker = open_speaker(target, "cpu")
    request = Request(id=1, messages=[Turn("user", "the sky is")])
    answer = speaker.start(request, Chat(temperature=0.0, max_new_tokens=8))
    text = ""
    while answer.done is None:
        text += answer.step()
    assert text == tokenizer.decode(wanted)
