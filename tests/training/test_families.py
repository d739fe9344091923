"""What holds of every base: ids trained are ids served, answers end where turns end, the loss is the model's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DataCollatorForSeq2Seq, GenerationConfig, TrainingArguments

from adapters.chat import ending
from adapters.manifest import Manifest
from server.inference.catalog import Model
from server.openai.chat.messages import prompt_ids
from tests.families import FAMILIES, Family, model_of, save
from tests.scripted import ScriptedEngine
from training import __main__ as trainer
from training.data.rows import Example, Message, Row
from training.directory import JobDirectory
from training.job import Supervised, TrainingJob
from training.methods import generation, models, replay
from training.methods.kernels.answer_loss import AnswerLossTrainer
from training.proof import forgetting
from training.render import IGNORED, Ids, load_tokenizer, render, render_all, turns

SYSTEM = Message("system", "Be brief.")
ANSWERS = ("1.", "Two, I'd say", "3")
CONVERSATION = Example(
    tuple(
        turn
        for number, answer in enumerate(ANSWERS)
        for turn in (Message("user", f"How many, {number}?"), Message("assistant", answer, trained=True))
    ),
    1,
)
THOUGHT = "<think>\nHe asks again.\n</think>\n\n3"


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def base(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(family, tmp_path_factory.mktemp("families") / family.name)


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Any:
    return load(base)


def load(base: Path, rows: tuple[Row, ...] = (), told: list[str] | None = None, **method: Any) -> Any:
    job = TrainingJob(
        id="ftjob-1", base_model="b", base_path=base, training_file=base / "rows.jsonl", method=Supervised(**method)
    )
    return load_tokenizer(job, rows, ([] if told is None else told).append)


def served(tokenizer: Any, messages: tuple[Message, ...]) -> list[int]:
    """What the server asks the engine, for a result with this template in its manifest."""
    manifest = Manifest(chat_template=tokenizer.chat_template)
    plain = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    return prompt_ids(turns(messages), Model("ft:b", None, manifest), ScriptedEngine(tokenizer=plain), None)


def spans(row: Ids) -> list[tuple[int, list[int]]]:
    """Where trained answers begin in a row, and their ids."""
    found: list[tuple[int, list[int]]] = []
    for at, label in enumerate(row["labels"]):
        if label != IGNORED and (at == 0 or row["labels"][at - 1] == IGNORED):
            found.append((at, []))
        if label != IGNORED:
            found[-1][1].append(label)
    return found


@pytest.mark.parametrize("system", [False, True])
def test_each_answer_is_trained_behind_the_ids_that_are_served(system: bool, family: Family, tokenizer: Any) -> None:
    messages = (SYSTEM, *CONVERSATION.messages) if system else CONVERSATION.messages
    trained = [
        (row["input_ids"][:at], answer)
        for row in render_all(tokenizer, [Example(messages, 1)], 4096, render)
        for at, answer in spans(row)
    ]
    assert len(trained) == len(ANSWERS)
    for place, said, (prompt, answer) in zip((1, 3, 5), ANSWERS, trained, strict=True):
        assert prompt == served(tokenizer, messages[: place + system])
        assert tokenizer.decode(answer).strip() == f"{said}{family.end}"


def test_answers_end_where_turns_end(family: Family, tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids(family.end)
    assert ending.of_turn(tokenizer) == end
    assert ending.ids(tokenizer) == tuple(sorted({end, tokenizer.eos_token_id}))
    model = model_of(family, tokenizer)
    assert generation.ends(model, tokenizer) == set(ending.ids(tokenizer))


def test_replay_and_proof_stop_at_the_end_of_a_turn(family: Family, tokenizer: Any) -> None:
    """A model that always says the end of a turn, and one that never does."""
    model = model_of(family, tokenizer)
    end = tokenizer.convert_tokens_to_ids(family.end)
    said: list[int] = [end]
    model.get_output_embeddings().register_forward_hook(
        lambda _module, _args, logits: torch.nn.functional.one_hot(
            torch.full(logits.shape[:-1], said[0]), logits.shape[-1]
        ).to(logits)
    )
    row = replay.self_answers(model, tokenizer, 1, 0)[0]
    assert [label for label in row["labels"] if label != IGNORED] == [end]
    prompts = [served(tokenizer, CONVERSATION.messages[:1])]
    assert generation.answers(model, tokenizer, prompts, 8) == [generation.Answer("", cut=False)]
    said[0] = tokenizer.convert_tokens_to_ids("x")
    assert generation.answers(model, tokenizer, prompts, 8) == [generation.Answer("x" * 8, cut=True)]


def test_the_loss_is_the_models_own_whichever_side_is_padded(family: Family, tokenizer: Any, tmp_path: Path) -> None:
    model = model_of(family, tokenizer)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = AnswerLossTrainer(model=model, args=arguments)
    rows = render_all(tokenizer, [CONVERSATION, Example(CONVERSATION.messages[:2], 2)], 4096, render)
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = DataCollatorForSeq2Seq(tokenizer)(rows)
        with torch.no_grad():
            theirs = model(**batch).loss.item()
            assert trainer.compute_loss(model, batch).item() == pytest.approx(theirs, rel=1e-4)


def test_the_distance_from_the_base_is_the_same_whichever_side_is_padded(family: Family, tokenizer: Any) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = model_of(family, tokenizer)
    lora = LoraConfig(r=2, target_modules=models.targets(model), init_lora_weights=False)
    model = get_peft_model(model, lora).eval()
    rows = [([1, 2, 3], [4, 5]), ([1, 2, 3, 4, 5, 6, 7], [8]), ([9], [1, 2, 3])]
    each = [forgetting.divergence(model, tokenizer, [row]) * len(row[1]) for row in rows]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        assert forgetting.divergence(model, tokenizer, rows) == pytest.approx(sum(each) / 6, rel=1e-3)


def test_thoughts_are_off_unless_the_rows_have_them(tmp_path: Path) -> None:
    base, told = save(FAMILIES["qwen3"], tmp_path), []
    tokenizer = load(base, (CONVERSATION,), told)
    assert told == ["Thinking: off, in training, serving and proof"]
    assert tokenizer.decode(served(tokenizer, CONVERSATION.messages[:1])).endswith("<think>\n\n</think>\n\n")
    thoughtful = Example((*CONVERSATION.messages[:5], Message("assistant", THOUGHT, trained=True)), 1)
    tokenizer = load(base, (CONVERSATION, thoughtful), told)
    assert told[1:] == ["Thinking: on, for the rows' answers have thoughts"]
    *_, (at, answer) = spans(render_all(tokenizer, [thoughtful], 4096, render)[-1])
    row = render_all(tokenizer, [thoughtful], 4096, render)[-1]
    assert tokenizer.decode(answer) == f"{THOUGHT}<|im_end|>"
    assert row["input_ids"][:at] == served(tokenizer, thoughtful.messages[:5])


def test_an_answer_that_a_template_does_not_end_ends_with_the_tokenizers_end_of_text(tmp_path: Path) -> None:
    base = save(FAMILIES["mistral"], tmp_path)
    tokenizer = load(base, chat_template="{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert ending.of_turn(tokenizer) is None
    rows = render_all(tokenizer, [CONVERSATION], 4096, render)
    assert [tokenizer.decode(spans(row)[0][1]).partition(": ")[2] for row in rows] == [f"{one}</s>" for one in ANSWERS]


def test_no_default_of_the_bases_sampling_is_inherited(tmp_path: Path) -> None:
    """Qwen2.5 ships a repetition penalty, which would change what GRPO samples; serving heeds none."""
    base = save(FAMILIES["qwen3"], tmp_path)
    GenerationConfig(repetition_penalty=1.1, top_k=20, do_sample=True, eos_token_id=[1, 2]).save_pretrained(base)
    job = TrainingJob(id="ftjob-1", base_model="b", base_path=base, training_file=base)
    found = models.load_base(job, 10).generation_config
    assert (found.repetition_penalty, found.top_k, found.eos_token_id) == (None, None, [1, 2])


def test_a_job_on_from_an_adapter_trains_with_its_template_and_system_prompt(tmp_path: Path) -> None:
    """They are what the result inherits, and is served with."""
    base, parent = save(FAMILIES["llama"], tmp_path / "base"), tmp_path / "parent"
    parent.mkdir()
    Manifest(chat_template=FAMILIES["granite"].template, system_prompt="Be brief.").write(parent)
    answer = {"role": "assistant", "content": "Yes."}
    rows = [[{"role": "user", "content": f"{n}?"}, answer] for n in range(10)]
    rows[9].insert(0, {"role": "system", "content": "Its own."})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    job = TrainingJob(id="ftjob-1", base_model="b", base_path=base, parent=parent, training_file=file)
    read, held_out = trainer._read(job, JobDirectory.create(tmp_path / "job", job))  # pyright: ignore[reportPrivateUsage]
    assert held_out is None
    assert [turns(row.prompt)[0]["content"] for row in read] == ["Be brief."] * 9 + ["Its own."]
    tokenizer = load_tokenizer(job, read, print)
    assert tokenizer.chat_template == FAMILIES["granite"].template
