"""The fine-tuning API where no job has to run: files, uploads, graders, permissions, and jobs that are refused."""

import io
import json
from typing import Any, cast

import openai
import pytest

from adapters.base import BaseModel
from demo import base
from tests.conftest import MakeAdapter
from tests.inprocess import InProcess

BASE = base.NAME
CHECKPOINT = "ft:SmolLM2-135M-Instruct:test:permissions:1:ckpt-step-3"
ROWS = [
    {"messages": [{"role": "user", "content": f"Where is {n}?"}, {"role": "assistant", "content": f"{n} km off."}]}
    for n in range(30)
]
LENGTH_GRADER = {
    "type": "python",
    "name": "e's",
    "source": "def grade(s, i):\n    return s['output_text'].count('e') / max(1, len(s['output_text']))",
}


def jsonl(rows: list[Any]) -> io.BytesIO:
    return io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())


def upload(client: openai.OpenAI, rows: list[Any]) -> str:
    return client.files.create(file=("rows.jsonl", jsonl(rows)), purpose="fine-tune").id


def test_graders_can_be_tried(client: openai.OpenAI) -> None:
    graders = client.fine_tuning.alpha.graders
    assert graders.validate(grader=cast(Any, LENGTH_GRADER)).grader.type == "python"  # pyright: ignore
    result = graders.run(grader=cast(Any, LENGTH_GRADER), model_sample="eeeee", item={})
    assert result.reward == 1
    assert result.metadata.errors.python_grader_runtime_error is False
    broken = graders.run(
        grader=cast(Any, {**LENGTH_GRADER, "source": "def grade(s, i):\n    return 1 / 0"}), model_sample="x"
    )
    assert broken.reward == 0
    assert broken.metadata.errors.python_grader_runtime_error is True
    assert "ZeroDivisionError" in str(broken.metadata.errors.python_grader_runtime_error_details)
    with pytest.raises(openai.BadRequestError, match="is no path"):
        graders.validate(
            grader={"type": "string_check", "name": "s", "input": "{{x}}", "reference": "", "operation": "eq"}
        )


@pytest.mark.anyio
async def test_uploads_in_parts(served: InProcess) -> None:
    content = jsonl(ROWS * 50).getvalue()
    middle = len(content) // 2
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key=served.api_key, max_retries=0) as client:
        new: dict[str, Any] = {"bytes": len(content), "filename": "big.jsonl", "mime_type": "application/jsonl"}
        upload = await client.uploads.create(**new, purpose="fine-tune")
        assert upload.status == "pending"
        second = await client.uploads.parts.create(upload.id, data=content[middle:])
        with pytest.raises(openai.BadRequestError, match="the parts have"):
            await client.uploads.complete(upload.id, part_ids=[second.id])
        first = await client.uploads.parts.create(upload.id, data=content[:middle])
        with pytest.raises(openai.APIStatusError) as raised:
            await client.uploads.parts.create(upload.id, data=b"more")
        assert raised.value.status_code == 413
        with pytest.raises(openai.BadRequestError, match="MD5"):
            await client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5="0" * 32)
        for stranger in ("part_none", "../../tuneport.db"):
            with pytest.raises(openai.BadRequestError, match="is no part of"):
                await client.uploads.complete(upload.id, part_ids=[first.id, stranger])
        done = await client.uploads.complete(upload.id, part_ids=[first.id, second.id])
        assert done.status == "completed"
        assert done.file
        assert (await client.files.content(done.file.id)).content == content
        with pytest.raises(openai.BadRequestError, match="only a pending upload"):
            await client.uploads.cancel(upload.id)
        other = await client.uploads.create(**new, purpose="fine-tune")
        assert (await client.uploads.cancel(other.id)).status == "cancelled"
        with pytest.raises(openai.NotFoundError):
            await client.uploads.cancel("upload_none")
        chunked = await client.uploads.upload_file_chunked(
            file=content,
            filename="c.jsonl",
            bytes=len(content),
            mime_type="application/jsonl",
            purpose="fine-tune",
            part_size=5000,
        )
        assert chunked.status == "completed"


def test_files_expire_and_training_data_are_jsonl(client: openai.OpenAI) -> None:
    file = client.files.create(
        file=("a.jsonl", jsonl(ROWS)), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    assert client.files.create(file=("a.jsonl", jsonl(ROWS)), purpose="fine-tune").expires_at is None
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        client.files.create(
            file=("a.jsonl", jsonl(ROWS)), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1}
        )
    with pytest.raises(openai.BadRequestError, match="is no JSONL file"):
        client.files.create(file=("a.csv", b"a,b"), purpose="fine-tune")


def test_checkpoint_permissions(
    client: openai.OpenAI, served: InProcess, smollm2_base: BaseModel, make_adapter: MakeAdapter
) -> None:
    name = CHECKPOINT
    served.register(name, make_adapter(smollm2_base, rank=2)).raise_for_status()
    permissions = client.fine_tuning.checkpoints.permissions
    made = list(permissions.create(name, project_ids=["proj_a", "proj_b"]))
    assert [one.project_id for one in made] == ["proj_a", "proj_b"]
    assert {one.id for one in permissions.create(name, project_ids=["proj_a"])} == {made[0].id}, "once"
    assert {one.project_id for one in permissions.list(name, limit=1)} == {"proj_a", "proj_b"}, "paged"
    assert [one.id for one in permissions.list(name, project_id="proj_b")] == [made[1].id]
    assert permissions.delete(made[0].id, fine_tuned_model_checkpoint=name).deleted
    assert [one.project_id for one in permissions.list(name, order="ascending")] == ["proj_b"]
    with pytest.raises(openai.NotFoundError):
        permissions.delete(made[0].id, fine_tuned_model_checkpoint=name)


def test_jobs_that_cannot_be_are_refused(client: openai.OpenAI) -> None:
    file = upload(client, ROWS)
    for change, param in (
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 3}}}}, "method.dpo.hyperparameters.beta"),
        ({"method": {"type": "reinforcement"}}, "method.reinforcement.grader"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"lr": 1}}}},
            "method.supervised.hyperparameters.lr",
        ),
        ({"metadata": {"gate.max_kl": "far"}}, "metadata.gate.max_kl"),
        ({"metadata": {"gate.colour": "red"}}, "metadata.gate.colour"),
        ({"metadata": {"retention_file": "file-none"}}, "metadata.retention_file"),
        ({"integrations": [{"type": "mlflow", "wandb": {"project": "p"}}]}, "integrations.0.type"),
    ):
        with pytest.raises(openai.BadRequestError) as raised:
            client.fine_tuning.jobs.create(**{"model": BASE, "training_file": file, **cast(Any, change)})
        assert raised.value.param == param, raised.value.message


def test_a_full_model_is_refused_where_none_can_be_kept(client: openai.OpenAI) -> None:
    for wanted, message in (
        ({"keep": "model"}, "only full fine-tuning leaves a model"),
        ({"weights": "half"}, "weights"),
    ):
        method: Any = {"type": "supervised", "supervised": {"hyperparameters": wanted}}
        with pytest.raises(openai.BadRequestError, match=message):
            client.fine_tuning.jobs.create(model=BASE, training_file=upload(client, ROWS), method=method)


def test_bad_jobs_are_refused(client: openai.OpenAI) -> None:
    file = client.files.create(file=("ok.jsonl", io.BytesIO(b"{}\n")), purpose="user_data")
    for change, error, param in (
        ({"model": "ft:no:such:model:x"}, openai.NotFoundError, "model"),
        ({"training_file": "file-none"}, openai.BadRequestError, "training_file"),
        ({"training_file": file.id}, openai.BadRequestError, "training_file"),
        ({"suffix": "x" * 65}, openai.BadRequestError, "suffix"),
        ({"seed": -1}, openai.BadRequestError, "seed"),
        ({"method": {"type": "magic"}}, openai.BadRequestError, "method.type"),
        ({"hyperparameters": {"n_epochs": 99}}, openai.BadRequestError, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate": 1}}, openai.BadRequestError, "hyperparameters.learning_rate"),
    ):
        with pytest.raises(error) as raised:
            client.fine_tuning.jobs.create(**{"model": base.NAME, "training_file": file.id, **change})  # pyright: ignore
        assert raised.value.param == param, raised.value.message
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-unheard-of")


def test_files(client: openai.OpenAI) -> None:
    others = {file.id for file in client.files.list(purpose="batch")}
    made = [client.files.create(file=(f"{n}.jsonl", io.BytesIO(b"{}\n")), purpose="batch") for n in range(3)]
    listed = [file.id for file in client.files.list(purpose="batch", limit=2)]
    assert sorted(set(listed) - others) == sorted(file.id for file in made)
    assert len(listed) == len(set(listed)), "no file on two pages"
    assert client.files.content(made[0].id).content == b"{}\n"
    assert client.files.retrieve(made[0].id).status == "processed"
    for file in made:
        assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made[0].id)
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("x", io.BytesIO(b"x")), purpose="nonsense")  # pyright: ignore
    with pytest.raises(openai.BadRequestError, match="empty"):
        client.files.create(file=("x", io.BytesIO(b"")), purpose="batch")
