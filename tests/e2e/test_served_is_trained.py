"""What is served is what was trained: the server's log-probabilities are transformers' and PEFT's, within bf16."""

from pathlib import Path
from typing import Any, cast

import openai
import torch
from openai.types.fine_tuning import FineTuningJob
from peft import PeftModel
from transformers import AutoModelForCausalLM

from demo import finetune
from demo.tasks import TICKETS
from tests.e2e.conftest import BF16_NATS, Running
from training.data import Example, Message
from training.render import IGNORED, render


def test_the_trained_answers_have_the_served_probabilities(
    running: Running, client: openai.OpenAI, job: FineTuningJob, smollm2: Path, tokenizer: Any
) -> None:
    adapter = running.server.log.parent / "jobs" / job.id / "adapter"
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    compared = 0
    for row in TICKETS.rows(finetune.TRAINING_ROWS, 8)[1]:
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
