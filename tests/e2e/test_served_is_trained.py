"""What is served is what was trained: the server's log-probabilities are transformers' and PEFT's, within bf16."""

from pathlib import Path
from typing import Any, cast

import openai
import torch
from openai.types.fine_tuning import FineTuningJob
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapters.base import BaseModel
from demo import finetune
from demo.tasks import TICKETS
from tests.conftest import MakeAdapter
from tests.e2e.conftest import BF16_NATS, Running
from training.data.rows import Example, Message
from training.render import IGNORED, render


def test_the_trained_answers_have_the_served_probabilities(
    running: Running, client: openai.OpenAI, job: FineTuningJob, smollm2: Path, tokenizer: Any
) -> None:
    adapter = running.server.log.parent / "jobs" / job.id / "adapter"
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    compared = 0
    for row in TICKETS.rows(finetune.TRAINING_ROWS, 4)[1]:
        completion = client.chat.completions.create(
            model=str(job.fine_tuned_model),
            messages=cast(Any, row.messages),
            temperature=0,
            max_tokens=64,
            logprobs=True,
        )
        answer = str(completion.choices[0].message.content)
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None
        served = logprobs.content or []

        turns = [Message(message["role"], message["content"], False) for message in row.messages]
        rendered = render(tokenizer, Example((*turns, Message("assistant", answer, True)), line=1))
        ids, labels = torch.tensor([rendered["input_ids"]]), rendered["labels"]
        with torch.inference_mode():
            scores = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        assert completion.usage is not None
        assert completion.usage.prompt_tokens == labels.count(IGNORED), "the prompt served is the prompt trained"
        for token, at in zip(served, (at for at, label in enumerate(labels) if label != IGNORED), strict=False):
            if token.token != tokenizer.decode([labels[at]]):
                break  # the model spelled a name with other tokens than the tokenizer would
            assert abs(token.logprob - scores[at - 1, labels[at]].item()) < BF16_NATS, token
            compared += 1
    assert compared > 60


def test_every_kind_of_adapter_has_transformers_and_pefts_probabilities(
    running: Running,
    client: openai.OpenAI,
    smollm2: Path,
    smollm2_base: BaseModel,
    tokenizer: Any,
    make_adapter: MakeAdapter,
) -> None:
    """Ranks at and below the limit, rsLoRA, patterns, bf16 files, few modules and all: prompt of 40 tokens, then 12."""
    linear = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    kinds: dict[str, dict[str, Any]] = {
        "rank-16": {"rank": 16, "modules": linear, "scale": 0.04},
        "rank-3": {"rank": 3, "modules": ("k_proj", "gate_proj"), "scale": 0.1},
        "rslora": {"rank": 8, "scale": 0.03, "config": {"use_rslora": True}},
        "patterns": {"rank": 8, "scale": 0.06, "config": {"alpha_pattern": {"v_proj": 2}}},
        "bf16": {
            "rank": 8,
            "modules": linear,
            "scale": 0.045,
            "edit": lambda tensors: tensors.update({key: tensor.bfloat16() for key, tensor in tensors.items()}),
        },
    }
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    messages: Any = [{"role": "user", "content": "Tell me about the sea."}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    for seed, (kind, change) in enumerate(kinds.items()):
        name = f"ft:SmolLM2-135M-Instruct:test:{kind}:1"
        folder = make_adapter(smollm2_base, seed=400 + seed, **change)
        model = PeftModel.from_pretrained(base, str(folder), adapter_name=kind.replace("-", "_")).eval()
        running.register(name, folder)
        served = client.chat.completions.create(
            model=name, messages=messages, temperature=0, max_tokens=12, logprobs=True, top_logprobs=5
        )
        assert served.choices[0].logprobs is not None
        ids = list(prompt)
        for position, token in enumerate(served.choices[0].logprobs.content or []):
            with torch.inference_mode():
                scores = model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
            ranked = {tokenizer.decode([index]): (index, scores[index].item()) for index in scores.topk(50).indices}
            index, logprob = ranked[token.token]
            assert abs(token.logprob - logprob) < BF16_NATS, (kind, position, token.token)
            ids.append(int(index))
        with torch.inference_mode(), model.disable_adapter():
            plain = model(input_ids=torch.tensor([ids])).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        logprobs = [token.logprob for token in served.choices[0].logprobs.content or []]
        distances = [abs(row[i] - one) for row, i, one in zip(plain, ids[len(prompt) :], logprobs, strict=True)]
        assert max(distances) > BF16_NATS, f"{kind}: the adapter changes what is said"
        base = model.unload()
        client.models.delete(name)
