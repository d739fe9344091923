"""score_model and label_model ask a judge of OpenAI's shape, and take whatever it answers for what it is."""

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests.training.graders.test_grade import LABEL, SCORE, grader, one
from training.graders.grade import grade
from training.graders.judge import Judge


class _Model(http.server.BaseHTTPRequestHandler):
    """A model behind OpenAI's API that says what `answers` holds next; bytes are a whole body."""

    answers: ClassVar[list[tuple[int, str | bytes]]] = []
    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        status, text = self.answers.pop(0)
        content = {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 7}}
        body = text if isinstance(text, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def judge() -> Iterator[Judge]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    _Model.answers.clear()
    _Model.bodies.clear()
    yield Judge(f"http://127.0.0.1:{server.server_port}/v1", "secret")
    server.shutdown()
    server.server_close()


def test_score_model_asks_a_judge(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.graders.judge._ask.retry.wait", lambda _state: 0)
    _Model.answers += [
        (200, '{"result": 7.5}'),
        (500, ""),
        (200, "I would say 4, for its tone."),
        (200, "11"),
        (200, "?"),
    ]
    rated = grader(**SCORE)
    grades = [grade(rated, [{"q": "life"}], ["42"], judge)[0] for _ in range(4)]
    assert [one.score for one in grades] == [7.5, 4.0, 0.0, 0.0]
    assert grades[0].tokens == {"judge-1": 7}
    assert all("model_grader_parse_error" in one.faults for one in grades[2:])
    assert _Model.bodies[0]["messages"][0]["content"] == "Rate 42 for life"
    assert _Model.bodies[0]["model"] == "judge-1"


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('1. City right. 2. Date wrong. {"result": 0.2}', 0.2),
        ('The scale {"result": N} goes to 10. {"result": 3} or rather {"result": "4.5"}, of 10', 4.5),
        ("1. Good\n2. Bad\nScore: 7", 7),
        ("5", 5),
        ('{"result": "6"}', 6),
        ('```json\n{"result": 6, "parts": [{"result": 1}, {"result": 2}]}\n```\nThe scale goes to 10.', 6),
        ('{"grade": {"why": "of 10", "result": 4}}', 4),
        ('{"steps": [{"result": 9}], "result": 3}', 3),
        ('{"why": "some would say {\\"result\\": 9}", "result": 2}', 2),
        ('<think>{"result": 9}?</think> {"result": 5}, not {"points": 8}', 5),
        ('{"result": "7/10"}', 7),
        ('{"result": 7/10}', 7),
        ('{"result": 8,}', 8),
        ("Score: 7/10", 7),
        ("I give it 7 out of 10.", 7),
        ("Score: .5", 0.5),
        ('{"a":' * 50_000 + '{"result": 1}', 1),
    ],
)
def test_the_judges_last_word_counts(text: str, score: float, judge: Judge) -> None:
    _Model.answers += [(200, text)]
    assert grade(grader(**SCORE), [{"q": "life"}], ["42"], judge)[0].score == score


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"choices": []}', "no chat completion"),
        (b'{"choices": [{"message": null}]}', "no chat completion"),
        (b"[]", "no chat completion"),
        (b'{"choices": [{"message": {"content": "1"}}], "usage": {"total_tokens": 1e999}}', "no chat completion"),
        (b"<html>", "not JSON"),
    ],
)
def test_a_judge_that_answers_anything_else_is_at_fault_itself(body: bytes, said: str, judge: Judge) -> None:
    _Model.answers += [(200, body)]
    result = grade(grader(**SCORE), [{"q": "life"}], ["42"], judge)[0]
    assert result.failed
    assert said in result.faults["model_grader_server_error"]
    assert "Error" not in result.faults["model_grader_server_error"], "no name of Python's"


@pytest.mark.parametrize("usage", ["", ', "usage": null', ', "usage": {}'])
def test_a_judge_need_not_count_tokens(usage: str, judge: Judge) -> None:
    _Model.answers += [(200, f'{{"choices": [{{"message": {{"content": "5"}}}}]{usage}}}'.encode())]
    result = grade(grader(**SCORE), [{"q": "life"}], ["42"], judge)[0]
    assert (result.score, result.tokens) == (5, {"judge-1": 0})


@pytest.mark.parametrize(
    "content",
    [
        "null",
        '"\\ud83d"',
        '"{\\"result\\": 1' + "0" * 400 + '}"',
        '"3 of my 5 points: {\\"result\\": null}"',
        '"{\\"result\\": true}"',
        '"{\\"result\\": NaN}"',
    ],
)
def test_a_judge_without_a_number_is_refused(content: str, judge: Judge) -> None:
    _Model.answers += [(200, f'{{"choices": [{{"message": {{"content": {content}}}}}]}}'.encode())]
    result = grade(grader(**SCORE), [{"q": "life"}], ["42"], judge)[0]
    assert "model_grader_parse_error" in result.faults


def test_half_a_character_in_an_answers_json_reaches_the_judge_mended(judge: Judge) -> None:
    _Model.answers += [(200, "5")]
    asks = {**SCORE, "input": [{"role": "user", "content": "{{sample.output_json.a}} {{sample.output_json}}"}]}
    assert grade(grader(**asks), [{}], ['{"a": "\\ud83d"}'], judge)[0].score == 5
    assert _Model.bodies[0]["messages"][0]["content"] == '\ufffd {"a": "\ufffd"}'


def test_all_sampling_reaches_the_judge(judge: Judge) -> None:
    _Model.answers += [(200, "5")]
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "max_completions_tokens": 9, "reasoning_effort": "low"}
    grade(grader(**SCORE, sampling_params=sampling), [{"q": "life"}], ["42"], judge)
    del sampling["max_completions_tokens"]
    assert _Model.bodies[0].items() >= (sampling | {"max_tokens": 9}).items()


@pytest.mark.parametrize("content", [SCORE, LABEL], ids=["score", "label"])
def test_without_a_judge_the_fault_says_what_to_set(content: dict[str, Any]) -> None:
    result = one(content, "42", {"q": "life"})
    assert result.failed
    assert "TUNEPORT_JUDGE_URL" in result.faults["model_grader_server_error"]


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ('{"result": "right"}', 1),
        ('{"result": "wrong"}', 0),
        ('Not wrong. {"result": "wrong"} is too hard: ```{"result": "Nearly", "not": {"result": "wrong"}}```', 1),
        ("right", 1),
        ('"Wrong".', 0),
    ],
)
def test_label_model_passes_by_its_labels(said: str, score: float, judge: Judge) -> None:
    _Model.answers += [(200, said)]
    result = grade(grader(**LABEL), [{"q": "life"}], ["42"], judge)[0]
    assert (result.score, result.faults, result.tokens) == (score, {}, {"judge-1": 7})
    asked, wanted = _Model.bodies[0]["messages"]
    assert asked["content"] == "Is 42 right for life?"
    assert '"right", "nearly", "wrong"' in wanted["content"]


def test_a_label_that_is_none_is_a_fault_of_the_judges(judge: Judge) -> None:
    _Model.answers += [(200, '{"result": "perhaps"}'), (200, "It is right, I think, or wrong")]
    for result in grade(grader(**LABEL), [{"q": "life"}] * 2, ["42"] * 2, judge):
        assert result.failed
        assert "expected one of right, nearly, wrong" in result.faults["model_grader_parse_error"]


def test_a_label_within_a_multi_grader_is_a_figure_of_its_formula(judge: Judge) -> None:
    _Model.answers += [(200, '{"result": "nearly"}')]
    several = {"type": "multi", "name": "m", "graders": LABEL, "calculate_output": "0.5 * l"}
    assert grade(grader(**several), [{"q": "life"}], ["42"], judge)[0].score == 0.5
