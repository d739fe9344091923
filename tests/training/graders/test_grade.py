"""OpenAI's graders, each on answers that should and should not score."""

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from training.graders import sandbox
from training.graders.grade import Grade, grade
from training.graders.models import Grader
from training.graders.similarity import similarity

EQUAL = {"type": "string_check", "name": "g", "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}

SCORE = {
    "type": "score_model",
    "name": "j",
    "model": "judge-1",
    "input": [{"role": "user", "content": "Rate {{sample.output_text}} for {{item.q}}"}],
    "range": [0, 10],
}

LABEL = {
    "type": "label_model",
    "name": "l",
    "model": "judge-1",
    "input": [{"role": "user", "content": "Is {{sample.output_text}} right for {{item.q}}?"}],
    "labels": ["right", "nearly", "wrong"],
    "passing_labels": ["right", "nearly"],
}


def grader(**content: Any) -> Grader:
    return TypeAdapter(Grader).validate_python(content)


def one(content: dict[str, Any], answer: str, item: dict[str, Any] | None = None) -> Grade:
    return grade(grader(**content), [item or {}], [answer])[0]


@pytest.mark.parametrize(
    ("operation", "answer", "score"),
    [
        ("eq", "Paris", 1),
        ("eq", "paris", 0),
        ("ne", "paris", 1),
        ("ne", "Paris", 0),
        ("like", "It is Paris.", 1),
        ("like", "It is paris.", 0),
        ("ilike", "It is PARIS.", 1),
        ("ilike", "It is Rome.", 0),
    ],
)
def test_string_check(operation: str, answer: str, score: float) -> None:
    assert one({**EQUAL, "operation": operation}, answer, {"answer": "Paris"}).score == score


@pytest.mark.parametrize(
    "metric",
    ["fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"],
)
def test_similarities_order_answers(metric: str) -> None:
    content = {"type": "text_similarity", "name": "s", "evaluation_metric": metric}
    content |= {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    item = {"answer": "the quick brown fox jumps over the lazy dog"}
    same, near, far = (
        one(content, text, item).score
        for text in (item["answer"], "the quick brown fox jumps over the dog", "nothing alike here")
    )
    assert same == pytest.approx(1, abs=0.01)
    assert same > near > far
    assert 0 <= far < 0.4
    assert one(content, "", item).score == 0


def test_templates_reach_into_json_and_lists() -> None:
    content = {"type": "string_check", "name": "g", "operation": "eq"}
    content |= {"input": "{{ sample.output_json.city[0]['name'] }}-{{item.n}}", "reference": "Bonn-3"}
    assert one(content, '{"city": [{"name": "Bonn"}]}', {"n": 3}).score == 1
    missing = one(content, "no JSON", {"n": 3})
    assert missing.score == 0
    assert "invalid_variable_error" in missing.faults


@pytest.mark.parametrize(
    "template", ["{{ item.__class__ }}()", "{{ cycler }}", "{{ item.a + 1 }}", "{{ ''.join('x') }}", "{{ samples.x }}"]
)
def test_templates_are_paths_and_nothing_else(template: str) -> None:
    content = {**EQUAL, "operation": "eq", "input": template}
    if template.startswith("{{ item.__class__"):  # a path, that leads nowhere
        assert "invalid_variable_error" in one(content, "x", {}).faults
    else:
        with pytest.raises(ValidationError, match="is no path"):
            grader(**content)


def python(source: str) -> dict[str, Any]:
    return {"type": "python", "name": "p", "source": source}


def test_python_grades_each_answer_by_itself() -> None:
    source = "import re\ndef grade(sample, item):\n    return len(re.findall('a', sample['output_text'])) / item['of']"
    grades = grade(grader(**python(source)), [{"of": 2}, {"of": 4}, {"of": 0}], ["aa", "a", "a"])
    assert [one.score for one in grades] == [1.0, 0.25, 0.0]
    assert "ZeroDivisionError" in grades[2].faults["python_grader_runtime_error"]


HOSTILE = {
    "reads a file": "open('/etc/passwd').read()",
    "writes a file": "open('/tmp/tuneport-grader', 'w')",
    "reads its parent's environment": "open('/proc/1/environ').read()",
    "connects": "import socket; socket.create_connection(('127.0.0.1', 1), 1)",
    "sends UDP": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "runs a program": "import subprocess; subprocess.run(['ls'])",
    "forks": "import os; os.fork()",
    "kills": "import os; os.kill(os.getppid(), 9)",
    "leaves": "import os; os._exit(0)",
    "fills memory": "x = bytearray(8 * 2**30)",
    "answers no number": "return 'high'",
    "answers NaN": "return float('nan')",
    "fills memory behind a file": "import os; f = os.memfd_create('x'); [os.write(f, bytes(2**26)) for _ in range(48)]",
    "fills memory beside its own": "import ctypes; assert ctypes.CDLL(None).shmget(0, 2**32, 0o1600) >= 0",
    "queues messages": "import ctypes; assert ctypes.CDLL(None).msgget(0, 0o1600) >= 0",
    "fills pipes": "import os; [os.pipe() for _ in range(100)]",
    "fills memory it shares": "import mmap; m = mmap.mmap(-1, 3 * 2**30); m.write(bytes(3 * 2**30))",
    "ends its parent's time": "import os, resource; resource.prlimit(os.getppid(), 0, (10**6, 10**6))",
    "takes its parent's files": "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (7, 7))",
    "slows its parent": "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "moves its parent": "import os; os.sched_setaffinity(os.getppid(), {0})",
    "holds its parent": "import os; os.pidfd_open(os.getppid())",
    "opens any socket": "import socket; socket.socket(16, socket.SOCK_RAW, 0)",
    "traces its parent": "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "asks io_uring": "import ctypes; assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(256)) >= 0",
    "listens to the kernel": "import socket; socket.socket(16, socket.SOCK_RAW, 15)",
    "reads packets": "import socket; socket.socket(17, socket.SOCK_RAW)",
    "talks to the host": "import socket; socket.socket(40, socket.SOCK_STREAM).connect((2, 9))",
    "asks who else is here": "import os; assert any(one.isdigit() for one in os.listdir('/proc'))",
    "writes without end": "import os; [os.write(3, b'x' * 2**20) for _ in range(256)]",
    "imports what was planted": "import sys; sys.path.insert(0, PLANTED); import planted",
    "leaves a thread behind": "import threading; threading.Thread(target=lambda: list(iter(int, 1))).start(); assert 0",
    "becomes another": "import os; os.execv('/bin/true', ['true'])",
    "breaks the protocol": "import os; os.write(3, b'[]\\n'); os.write(4, b'[]\\n')",
}


@pytest.mark.parametrize("statement", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_python_scores_nothing_and_harms_nobody(statement: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text("")
    statement = statement.replace("PLANTED", repr(str(tmp_path)))
    source = f"def grade(sample, item):\n    if item['harm']:\n        {statement}\n    return 1.0"
    if statement.startswith("return") or "bytearray" in statement:
        source = (
            f"def grade(sample, item):\n    if item['harm']:\n        {statement}\n        return 1e400\n    return 1.0"
        )
    grades = grade(grader(**python(source)), [{"harm": True}, {"harm": False}], ["x", "y"])
    assert grades[0].score == 0
    assert grades[0].faults
    assert grades[1].score == 1, "the next answer is graded as if nothing had happened"


def test_a_hanging_grader_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.graders.sandbox.SECONDS_A_CALL", 0.5)
    source = "def grade(sample, item):\n    while item['hang']: pass\n    return 1.0"
    started = time.monotonic()
    grades = grade(grader(**python(source)), [{"hang": 1}, {"hang": 0}], ["x", "y"])
    assert [one.score for one in grades] == [0, 1]
    assert "longer than" in grades[0].faults["python_grader_runtime_error"]
    assert time.monotonic() - started < 10


def test_multi_computes_its_formula() -> None:
    parts = {
        "exact": {**EQUAL, "operation": "eq"},
        "holds": {**EQUAL, "operation": "like", "name": "holds"},
    }
    content = {
        "type": "multi",
        "name": "m",
        "graders": parts,
        "calculate_output": "0.25 * exact + 0.75 * max(holds, 0)",
    }
    result = one(content, "It is Paris", {"answer": "Paris"})
    assert result.score == 0.75
    assert result.parts == {"exact": 0.0, "holds": 1.0}
    alone = {**content, "graders": {**EQUAL, "operation": "eq", "name": "only"}, "calculate_output": "only ^ 2 + 1"}
    assert one(alone, "Paris", {"answer": "Paris"}).score == 2


@pytest.mark.parametrize(
    "formula",
    ["exact +", "other", "__import__('os')", "exact.real", "[1][0]", "'a' * 9", "9 ** 9 ** 9 ** 9", "1 / 0 + ("],
)
def test_bad_formulas_are_refused(formula: str) -> None:
    content = {"type": "multi", "name": "m", "graders": {"exact": {**EQUAL, "operation": "eq"}}}
    with pytest.raises(ValidationError):
        grader(**content, calculate_output=formula)


def multi(formula: str) -> dict[str, Any]:
    parts = {"exact": {**EQUAL, "operation": "eq"}}
    return {"type": "multi", "name": "m", "graders": parts, "calculate_output": formula}


@pytest.mark.parametrize(
    "formula",
    ["400000**400000", "9^9^9^9^9", 'f"{1:>80000000}"', '"%1000000000d" % 1', "exact if exact else 1", "(" * 500 + "1",
     "-" * 900 + "1", "1" * 900, "exact * 'a'", "[exact]", "exact < 1", "min()"],
)  # fmt: skip
def test_a_formula_bomb_is_refused_at_once(formula: str) -> None:
    started = time.process_time()
    with pytest.raises(ValidationError):
        grader(**multi(formula))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("formula", "score"), [("sqrt(exact - 0.5)", 0.70710678), ("log(exact + 1, 2)", 1), ("7 % 4 ^ exact", 3)]
)
def test_formulas_that_depend_on_the_scores_are_taken(formula: str, score: float) -> None:
    assert one(multi(formula), "Paris", {"answer": "Paris"}).score == pytest.approx(score)


@pytest.mark.parametrize("template", ["{{" + " " * 90_000, "{{ item.a" * 9_000, "{" * 90_000, "x{{y"])
def test_an_open_template_is_refused_at_once(template: str) -> None:
    started = time.process_time()
    with pytest.raises(ValidationError, match="without its"):
        grader(**{**EQUAL, "operation": "eq", "input": template})
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("source", ["-" * 200_000 + "1", "(" * 200_000, "x = " + "[" * 90 + "]" * 90, "def grade\0"])
def test_source_that_no_compiler_takes_is_refused(source: str) -> None:
    with pytest.raises(sandbox.BrokenSource, match="source does not load"):
        sandbox.check(source)


def test_a_source_is_compiled_where_it_can_take_no_memory_and_time_of_others() -> None:
    """Each `finally` is compiled twice."""
    lines, indent = ["def grade(sample, item):"], ""
    for _ in range(40):
        lines += [f" {indent}try:", f" {indent} pass", f" {indent}finally:"]
        indent += " "
    source = "\n".join([*lines, f" {indent}pass"])
    started = time.process_time()
    with pytest.raises(sandbox.BrokenSource, match="does not load"):
        sandbox.check(source)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "change",
    [{"reference": "x" * 100_001}, {"input": "x" * 100_001}, {"name": "x" * 257}, {"image_tag": 5}, {"unknown": 1}],
)
def test_a_grader_is_no_larger_than_a_list_can_show(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        grader(**{**EQUAL, "operation": "eq", **change})


def test_a_multi_grader_has_sixteen_parts_at_most() -> None:
    parts = {f"g{n}": {**EQUAL, "operation": "eq"} for n in range(17)}
    with pytest.raises(ValidationError, match="at most 16"):
        grader(type="multi", name="m", graders=parts, calculate_output="g0")


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_5", "rouge_l", "meteor"])
def test_long_texts_are_compared_in_seconds_or_refused(metric: str) -> None:
    content = {"type": "text_similarity", "name": "s", "evaluation_metric": metric}
    content |= {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    words = " ".join(f"w{n}" for n in range(6_000))
    started = time.process_time()
    result = one(content, words, {"answer": words + " end"})
    assert time.process_time() - started < 5
    if metric == "meteor":
        assert "6000 with 6001 words" in result.faults["other_error"]
    else:
        assert result.score > 0.99


@pytest.mark.parametrize(
    ("text", "other"), [("a b c d", "a c x d"), ("The CAT, sat", "the cat sat"), ("x", "y"), ("!", "a")]
)
def test_rouge_l_is_rouge_scores(text: str, other: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    wanted = RougeScorer(["rougeL"]).score(other, text)["rougeL"].fmeasure
    assert similarity("rouge_l", text, other) == pytest.approx(wanted)


def test_null_means_absent_in_graders_and_what_they_answer_is_taken_again() -> None:
    for content in (
        {**EQUAL, "operation": "eq"},
        {"type": "text_similarity", "name": "s", "input": "a", "reference": "b", "evaluation_metric": "bleu"},
        {**python("def grade(sample, item): return 1"), "image_tag": None},
        {**SCORE, "range": None, "sampling_params": {"temperature": None, "seed": 1, "reasoning_effort": "low"}},
        {**SCORE, "input": [{"role": "user", "type": None, "content": [{"type": "input_text", "text": "a"}, "b"]}]},
        multi("exact"),
    ):
        first = grader(**content)
        assert grader(**first.model_dump()) == first
        assert grader(**first.model_dump(mode="json")) == first


def test_a_template_cannot_fill_the_memory() -> None:
    """9,000 holes of a field of a megabyte are nine gigabytes."""
    content = {**EQUAL, "reference": "{{item.a}}" * 9_000}
    result = one({**content, "operation": "eq"}, "x", {"answer": "x", "a": "a" * 1_000_000})
    assert result.failed
    assert "more than 10000000 characters" in result.faults["invalid_variable_error"]


def test_a_division_by_zero_fails_the_answer_not_the_grader() -> None:
    content = {
        "type": "multi",
        "name": "m",
        "graders": {"exact": {**EQUAL, "operation": "eq"}},
        "calculate_output": "1 / exact",
    }
    result = one(content, "Rome", {"answer": "Paris"})
    assert result.score == 0
    assert "formula_parse_error" in result.faults


@pytest.mark.parametrize(
    "content",
    [
        {"type": "text_similarity", "name": "c", "input": "a", "reference": "b", "evaluation_metric": "cosine"},
        {"type": "python", "name": "p", "source": "x = 1"},
        {"type": "string_check", "name": "s", "input": "a", "reference": "b", "operation": "lt"},
        {**LABEL, "passing_labels": ["good"]},
        {**LABEL, "labels": []},
        {**LABEL, "input": [{"role": "user", "content": "{{samples}}"}]},
        {**SCORE, "range": [1, 0]},
    ],
    ids=["cosine", "no grade", "operation", "passing", "labels", "template", "range"],
)
def test_graders_that_cannot_be_are_refused(content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        grader(**content)
