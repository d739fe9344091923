"""Small versions of common bases: each family's chat template, special tokens and model class, with bytes as tokens.

The templates treat turns, thoughts and ends as the published ones do, and leave out the rest.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QWEN3 = (  # drops earlier thoughts; an answer without a thought begins with an empty one
    "{% set ns = namespace(asked=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in m.content else '' %}"
    "{% if loop.index0 > ns.asked and (loop.last or thought) %}<think>\n{{ thought }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip() }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (  # puts the system turn into the last question
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}"
    "{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}"
    "{% for m in turns %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] "
    "{% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GRANITE = (
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
COHERE = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
    "{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[m.role] }}"
    "{{ m.content | trim }}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A family: `end` ends its turns; `model` is transformers' config class, `more` its arguments."""

    name: str
    template: str | None
    end: str
    eos: str
    model: str
    bos: str | None = None
    pad: str | None = None
    marks: tuple[str, ...] = ()
    left: bool = False
    more: dict[str, Any] = field(default_factory=dict)


CHATML = ("<|im_start|>", "<|im_end|>")
HEADER = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TURN = ("<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
CAPS = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 16, "head_dim": 16}
FAMILIES = {
    one.name: one
    for one in (
        Family("qwen3", QWEN3, "<|im_end|>", "<|im_end|>", "Qwen3", pad="<|endoftext|>", marks=CHATML),
        Family("llama", LLAMA, "<|eot_id|>", "<|end_of_text|>", "Llama", "<|begin_of_text|>", marks=HEADER),
        Family("mistral", MISTRAL, "</s>", "</s>", "Mistral", "<s>", marks=("[INST]", "[/INST]")),
        Family(
            *("gemma", GEMMA, "<end_of_turn>", "<eos>", "Gemma2", "<bos>", "<pad>"),
            marks=("<start_of_turn>", "<end_of_turn>"),
            left=True,
            more=CAPS,
        ),
        Family(
            *("granite", GRANITE, "<|end_of_text|>", "<|end_of_text|>", "Granite"),
            marks=("<|start_of_role|>", "<|end_of_role|>"),
            more={"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
        ),
        Family(
            *("cohere", COHERE, "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "Cohere", "<BOS_TOKEN>", "<PAD>"),
            marks=TURN,
            left=True,
            more={"logit_scale": 0.25},
        ),
        Family(
            *("phi", PHI, "<|end|>", "<|endoftext|>", "Phi3"),
            marks=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        ),
        Family(
            *("moe", GRANITE, "<|end_of_text|>", "<|end_of_text|>", "Qwen3Moe"),
            marks=("<|start_of_role|>", "<|end_of_role|>"),
            more={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
        ),
        Family("neox", None, "<|endoftext|>", "<|endoftext|>", "GPTNeoX"),
    )
}


def tokenizer_of(family: Family) -> Any:
    """A tokenizer with a token for each byte, and the family's special tokens."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    byte = Tokenizer(BPE({letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}, []))
    byte.pre_tokenizer, byte.decoder = ByteLevel(add_prefix_space=False, use_regex=False), decoders.ByteLevel()
    named = {"bos_token": family.bos, "eos_token": family.eos, "pad_token": family.pad}
    marks: dict[str, Any] = {key: value for key, value in named.items() if value}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte,
        extra_special_tokens=list(family.marks),
        padding_side="left" if family.left else "right",
        **marks,
    )
    tokenizer.chat_template = family.template
    return tokenizer


def model_of(family: Family, tokenizer: Any) -> Any:
    """A random model of two layers with two attention heads."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family.model}Config")(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=2048,
        initializer_range=0.3,
        attn_implementation="eager",
        **({} if family.model == "GPTNeoX" else {"num_key_value_heads": 1}),
        **family.more,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def save(family: Family, folder: Path) -> Path:
    """Write a base to disk."""
    tokenizer = tokenizer_of(family)
    model_of(family, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
