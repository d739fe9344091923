"""Every list pages and filters as OpenAI's, and refuses what it could not honour."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from server.state.jobs import NewJob
from tests.inprocess import InProcess
from training.job import Supervised

LABELS: dict[str, dict[str, str] | None] = {
    "ftjob-red": {"team": "red", "run": "1"},
    "ftjob-blue": {"team": "blue", "run": "1", "a[b]": "ü &="},
    "ftjob-empty": {"team": "", "note": "\u2028\ufffd"},
    "ftjob-none": None,
    "ftjob-nothing": {},
}


@pytest.fixture(scope="module")
def labelled(served: InProcess) -> None:
    """Jobs that ended before a trainer could take them."""
    for job_id, labels in LABELS.items():
        job = NewJob(model="m", training_file="file-x", seed=0, method=Supervised(), labels=labels)
        served.services.jobs.create(job_id, job, None, "ft:m:o::1")
        served.services.jobs.cancel(job_id)


@pytest.fixture
def http(served: InProcess) -> Iterator[httpx.Client]:
    with served.http() as client:
        yield client


def ours(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"] if one["id"] in LABELS]


@pytest.mark.usefixtures("labelled")
@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"metadata[team]": "red"}, ["ftjob-red"]),
        ({"metadata[run]": "1"}, ["ftjob-blue", "ftjob-red"]),
        ({"metadata[run]": "1", "metadata[team]": "blue"}, ["ftjob-blue"]),
        ({"metadata[run]": "1", "metadata[team]": ""}, []),
        ({"metadata[team]": ""}, ["ftjob-empty"]),
        ({"metadata[note]": "\u2028\0"}, ["ftjob-empty"]),
        ({"metadata[a[b]]": "ü &="}, ["ftjob-blue"]),
        ({"metadata[team]": "nobody"}, []),
        ({"metadata[other]": "red"}, []),
        ({"metadata": "null"}, ["ftjob-nothing", "ftjob-none"]),
        ({"metadata": ""}, ["ftjob-nothing", "ftjob-none"]),
        ({}, ["ftjob-nothing", "ftjob-none", "ftjob-empty", "ftjob-blue", "ftjob-red"]),
        ({"metadata[run]": "1", "limit": 1}, ["ftjob-blue"]),
        ({"metadata[run]": "1", "after": "ftjob-blue"}, ["ftjob-red"]),
    ],
)
def test_jobs_are_filtered_by_metadata(query: dict[str, Any], wanted: list[str], http: httpx.Client) -> None:
    assert ours(http.get("/v1/fine_tuning/jobs", params=query)) == wanted


@pytest.mark.usefixtures("labelled")
def test_two_values_of_one_key_fit_nothing(http: httpx.Client) -> None:
    assert ours(http.get("/v1/fine_tuning/jobs?metadata[team]=red&metadata[team]=blue")) == []


@pytest.mark.usefixtures("labelled")
def test_the_sdk_filters_and_pages(client: openai.OpenAI) -> None:
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"run": "1"}, limit=1)] == [
        "ftjob-blue",
        "ftjob-red",
    ]
    found = client.fine_tuning.jobs.list(metadata={"run": "1"}, limit=1)
    assert found.has_more
    assert len(found.data) == 1


LISTS = (
    "/v1/files",
    "/v1/batches",
    "/v1/fine_tuning/jobs",
    "/v1/fine_tuning/jobs/ftjob-red/events",
    "/v1/fine_tuning/jobs/ftjob-red/checkpoints",
    "/v1/fine_tuning/checkpoints/SmolLM2-135M-Instruct/permissions",
)


@pytest.mark.usefixtures("labelled")
@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=succeeded", "status"),
        ("Limit=1", "Limit"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=10001", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("after=nobody", "after"),
        ("after=%00%E2%80%A8", "after"),
        ("after=%ff", "after"),
        (f"after={'x' * 5_000}", "after"),
        (f"{'x' * 5_000}=1", "x" * 100),
        ("limit=1&limit=2", "limit"),
        ("after=a&after=b", "after"),
    ],
)
def test_a_list_refuses_what_it_cannot_honour(path: str, query: str, param: str, http: httpx.Client) -> None:
    answer = http.get(f"{path}?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert len(answer.text) < 1_000


@pytest.mark.usefixtures("labelled")
@pytest.mark.parametrize(
    ("query", "shown"), [("after=", 3), ("limit=&after=", 3), ("limit=2&after=", 2), ("after=&limit=2", 2)]
)
def test_null_is_absent_in_a_query_too(query: str, shown: int, http: httpx.Client) -> None:
    """As openai for Node writes it; a label's value may be empty, and is looked for."""
    jobs = http.get(f"/v1/fine_tuning/jobs?{query}").json()["data"]
    assert min(len(jobs), 3) == shown
    assert ours(http.get("/v1/fine_tuning/jobs?metadata[team]=")) == ["ftjob-empty"]
    assert http.get(f"/v1/files?{query}&order=&purpose=").status_code == 200


def test_a_filter_given_twice_is_refused_and_not_half_heeded(http: httpx.Client) -> None:
    answer = http.get("/v1/files?purpose=evals&purpose=batch")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "purpose")


def test_a_responses_items_are_a_list_like_the_others(http: httpx.Client, served: InProcess) -> None:
    model = served.services.catalog.base.name
    path = f"/v1/responses/{http.post('/v1/responses', json={'model': model, 'input': 'Hi'}).json()['id']}/input_items"
    for query in ("before=x", "order=asc&order=desc", "foo=1"):
        answer = http.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0]), answer.text
    for query in ("include=a&include=b", "include[]=a&include[]=b&order=asc"):
        assert len(http.get(f"{path}?{query}").json()["data"]) == 1


@pytest.mark.parametrize("path", [path for path in LISTS if path != "/v1/fine_tuning/jobs"])
def test_other_lists_have_no_metadata(path: str, http: httpx.Client) -> None:
    answer = http.get(path, params={"metadata[a]": "b"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata[a]"


@pytest.mark.parametrize("query", ["metadata=red", "metadata=null&metadata[a]=b", "metadata={}"])
def test_metadata_that_are_no_filter_are_refused(query: str, http: httpx.Client) -> None:
    answer = http.get(f"/v1/fine_tuning/jobs?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize(
    ("path", "order"),
    [("/v1/files", "ascending"), ("/v1/files", "ASC"), (LISTS[-1], "asc"), ("/v1/batches", "asc"), (LISTS[2], "asc")],
)
def test_an_order_a_list_does_not_have_is_refused(path: str, order: str, http: httpx.Client) -> None:
    answer = http.get(path, params={"order": order})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "order"


def test_files_are_listed_by_purpose_and_order(client: openai.OpenAI) -> None:
    made = [
        client.files.create(file=("a.jsonl", b"{}"), purpose=purpose).id for purpose in ("evals", "user_data", "evals")
    ]
    try:
        evals = [file.id for file in client.files.list(purpose="evals", order="asc", limit=10_000)]
        assert set(evals) == {made[0], made[2]}
        assert [file.id for file in client.files.list(purpose="evals")] == evals[::-1]
        first = client.files.list(purpose="evals", limit=1)
        assert first.has_more
        assert [file.id for file in client.files.list(purpose="evals", after=first.data[0].id)] == [evals[0]]
        assert client.files.list(purpose="nothing").data == []
    finally:
        for file_id in made:
            client.files.delete(file_id)
