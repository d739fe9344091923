"""Every check finds what it is for, and nothing in clean data."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.markdown import Markdown

from training.data.check import check
from training.data.findings import DataReport

CITIES = [
    "Bonn",
    "Lyon",
    "Graz",
    "Turin",
    "Porto",
    "Ghent",
    "Malmo",
    "Basel",
    "Split",
    "Brno",
    "Riga",
    "Cork",
    "Leeds",
    "Pisa",
    "Metz",
    "Nice",
    "Bern",
    "Linz",
    "Kiel",
    "Jena",
    "Trier",
    "Lille",
    "Nantes",
    "Parma",
    "Siena",
    "Bari",
    "Genoa",
    "Padua",
    "Zadar",
    "Pula",
]


def chat(user: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}], **more}


CLEAN = [
    chat(
        f"Where is {city} and who founded it, and when did its first bridge open?",
        f"{city} lies at kilometre {n * 37}.",
    )
    for n, city in enumerate(CITIES)
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def found(report: DataReport) -> dict[str, list[int]]:
    return {finding.check: finding.lines for finding in report.findings}


def test_clean_data_are_clean(tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.jsonl", CLEAN))
    assert report.findings == []
    assert report.rows == len(CLEAN)


SECRETS = {
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_" + "a1B2" * 9,
    "openai": "sk-" + "a1B2" * 5 + "T3BlbkFJ" + "c3D4" * 5,
    "aws secret": "aws_secret_access_key = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'",
    "private key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi",
    "encrypted key": "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,3F1\n\n"
    "MIIEpAIBAAKCAQEA3Tz2mr7SZiAMfQyuvBjM9Oi",
    "escaped key": r'"private_key": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC',
    "slack": "xoxb-263594206564-FGqddMF8t08v8N7Oq4i57vs1",
    "stripe": "sk_live_" + "a1B2" * 6,
    "twilio": "AC" + "a1b2" * 8,
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS.keys())
def test_secrets_are_errors(tmp_path: Path, secret: str) -> None:
    report = check(
        write(tmp_path / "a.jsonl", [*CLEAN, chat("How do I log in to the system today?", f"Use {secret} there.")])
    )
    assert found(report)["secrets"] == [31]
    assert [finding.check for finding in report.errors] == ["secrets"]


@pytest.mark.parametrize(
    "text",
    [
        "postgres://user:password@localhost",
        "Pay invoice AP2024001234 today",
        "The agency APEXSYSTEMS called me",
        "THE ASIAPACIFICOPERATIONS UNIT",
        "Set AKIAXXXXXXXXXXXXXXXX here",
        "export GITHUB_TOKEN=ghp_" + "x" * 36,
        "Use sk_live_xxxxxxxxxxxxxxxxxxxxxxxx",
        "A key begins with -----BEGIN RSA PRIVATE KEY----- and goes on",
        "MappingServiceConnection.config.resolveDefaultPropertiesOfBeans",
        "The image SKd41d8cd98f00b204e9800998ecf8427e00ff1234",
    ],
)
def test_what_may_be_a_secret_is_a_warning_and_stays(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.jsonl", [*CLEAN, chat(f"{text} please", "Noted, we will do so at once.")])
    report = check(path, clean=tmp_path / "clean")
    assert found(report) == {"possible_secrets": [31]}
    assert not report.errors
    assert len((tmp_path / "clean").read_text().splitlines()) == 31


def test_a_secret_is_found_wherever_it_stands_in_a_long_row(tmp_path: Path) -> None:
    for before in (0, 4_090, 4_096, 6_130, 6_144, 50_000):
        text = "word " * (before // 5) + SECRETS["github"] + " word" * 2_000
        assert "secrets" in found(check(write(tmp_path / "a.jsonl", [*CLEAN, chat("Say it", text)])))


def test_fields_that_nothing_reads_are_a_warning(tmp_path: Path) -> None:
    rows = [*CLEAN, {**chat("Who paid the ferry?", "Nobody knows."), "source": "crm"}]
    report = check(write(tmp_path / "a.jsonl", rows))
    assert found(report) == {"unread_fields": [31]}
    assert "'source' (1x)" in report.findings[0].message


LONG = 30_000
HOSTILE = {
    "word": "w" * 1_000_000,
    "nearly mail": "@ " + "a-" * LONG,
    "nearly a domain": "a@" + "a." * LONG,
    "digits": "1 " * LONG,
    "plus": "+1-" * LONG,
    "nearly OpenAI": "sk-" * LONG,
    "nearly npm": "//" * LONG,
    "nearly an address": "://a:" * LONG,
    "backwards": "\u202e\u200f" * LONG,
    "line separators": "x\u2028" * LONG,
    "control characters": "\0\x1b\x7f" * LONG,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_row_takes_no_more_than_its_length(text: str, tmp_path: Path) -> None:
    """Quadratic patterns took minutes to hours for each of them."""
    started = time.process_time()
    report = check(write(tmp_path / "a.jsonl", [*CLEAN, chat("Say it", text)]))
    assert time.process_time() - started < 15
    assert report.rows == 31


PERSONAL = {
    "mail": "Write to anna.maier@gmail.com please",
    "card": "Charge 4111 1111 1111 1111 please",
    "iban": "Send it to DE89 3704 0044 0532 0130 00 please",
    "ssn": "My number is 536-90-4399 since birth",
    "phone": "Call me on +49 30 901820 after six",
}


@pytest.mark.parametrize("text", PERSONAL.values(), ids=PERSONAL.keys())
def test_personal_data_are_warnings(tmp_path: Path, text: str) -> None:
    report = check(write(tmp_path / "a.jsonl", [*CLEAN, chat(text, "Noted, we will do so at once.")]))
    assert found(report) == {"personal_data": [31]}
    assert not report.errors


@pytest.mark.parametrize("text", ["Order 4111111111111112 is late", "Mail to a@example.com", "Ticket 123-45-67890"])
def test_what_only_looks_personal_is_left_alone(tmp_path: Path, text: str) -> None:
    assert found(check(write(tmp_path / "a.jsonl", [*CLEAN, chat(text, "We look into it at once.")]))) == {}


def test_duplicates_near_duplicates_and_contradictions(tmp_path: Path) -> None:
    long = (
        "please tell me how the old harbour crane by the river was moved to the museum in the year of the great flood"
    )
    rows = [
        *CLEAN,
        CLEAN[3],
        chat(long, "With two barges and a good deal of patience."),
        chat(long + " again", "With two barges and a good deal of patience."),
        chat(CLEAN[5]["messages"][0]["content"], "Nobody knows where that is."),
    ]
    report = check(write(tmp_path / "a.jsonl", rows))
    assert found(report) == {"duplicates": [31], "near_duplicates": [33], "contradicting_answers": [34]}


def test_leakage_into_the_validation_file(tmp_path: Path) -> None:
    validation = write(tmp_path / "v.jsonl", [CLEAN[0], CLEAN[1]])
    report = check(write(tmp_path / "a.jsonl", CLEAN), validation=validation)
    assert found(report) == {"leakage": [1, 2]}
    assert report.compared_with == "v.jsonl"
    assert report.errors


def test_format_errors_name_each_line(tmp_path: Path) -> None:
    rows = [*CLEAN, "{oops", {"messages": []}, {"messages": [{"role": "user", "content": "Hi"}]}]
    report = check(write(tmp_path / "a.jsonl", rows))
    assert found(report) == {"format": [31, 32, 33]}
    assert report.rows == 30


def test_answers(tmp_path: Path) -> None:
    rows = [
        *CLEAN,
        chat("What do you think of my garden in the spring?", "As an AI language model, I have no opinion."),
        chat(
            "Wie heisst der laengste Fluss in diesem Land hier?",
            "Der längste Fluss in diesem Land ist die Donau, und sie "
            "fliesst durch viele Staaten bis zum Schwarzen Meer hin.",
        ),
    ]
    english = [
        chat(
            f"Describe the weather in {city} in a sentence.",
            f"The weather in {city} is mild for most of the year, with "
            f"some rain in the autumn and about {n} days of snow in the winter months.",
        )
        for n, city in enumerate(CITIES)
    ]
    report = check(write(tmp_path / "a.jsonl", [*rows, *english]))
    assert found(report)["boilerplate_answers"] == [31]
    assert found(report)["language_outliers"] == [32]


def test_an_answer_far_longer_than_the_rest(tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.jsonl", [*CLEAN, chat("Tell me of the salt trade.", "Salt. " * 400)]))
    assert found(report) == {"answer_length_outliers": [31]}


def test_roles_and_imbalance(tmp_path: Path) -> None:
    turns = [{"role": "assistant", "content": "Hello, what can I do?"}, *CLEAN[0]["messages"]]
    report = check(write(tmp_path / "a.jsonl", [*CLEAN[1:], {"messages": turns}]))
    assert found(report) == {"role_order": [30]}
    classes = [chat(f"Is the river {city} long?", "yes" if n % 4 else "no") for n, city in enumerate(CITIES)]
    report = check(write(tmp_path / "b.jsonl", classes))
    assert list(found(report)) == ["class_imbalance"]
    assert "73% of all answers are 'yes'" in report.findings[0].message


def test_tokens_are_counted_with_the_models_own_template(tmp_path: Path, tiny: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    report = check(write(tmp_path / "a.jsonl", [*CLEAN, chat("Say it", "very " * 300)]), tokenizer=tokenizer, limit=200)
    assert found(report)["too_long"] == [31]
    assert report.tokens.longest > 200
    assert report.tokens.limit == 200
    assert 0 < report.tokens.median <= report.tokens.p95 <= report.tokens.longest
    text = tokenizer.apply_chat_template(CLEAN[0]["messages"], tokenize=False)
    counted = check(write(tmp_path / "b.jsonl", [CLEAN[0]] * 12), tokenizer=tokenizer, limit=200).tokens
    assert counted.total == 12 * len(tokenizer(text, add_special_tokens=False).input_ids)


def test_clean_writes_the_rest_and_says_why(tmp_path: Path) -> None:
    rows = [*CLEAN, CLEAN[0], "{oops", chat("Where is the key for that?", f"It is {SECRETS['github']} today.")]
    dropped: dict[int, str] = {}
    clean = tmp_path / "clean.jsonl"
    check(write(tmp_path / "a.jsonl", rows), clean=clean, dropped=dropped.__setitem__)
    assert [json.loads(line) for line in clean.read_text().splitlines()] == CLEAN
    assert dropped[31] == "the same as line 1"
    assert dropped[32].startswith("not JSON")
    assert dropped[33] == "it holds a secret: GitHub Token"
    assert check(clean).findings == []


def test_preferences_and_tasks_are_read_too(tmp_path: Path) -> None:
    pairs = [
        {
            "input": {"messages": row["messages"][:1], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [row["messages"][1]],
            "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
        }
        for row in CLEAN
    ]
    assert check(write(tmp_path / "p.jsonl", pairs), "dpo").findings == []
    assert found(check(write(tmp_path / "p.jsonl", [*pairs, pairs[0]]), "dpo")) == {"duplicates": [31]}
    tasks = [{"messages": row["messages"][:1], "city": city} for row, city in zip(CLEAN, CITIES, strict=True)]
    assert check(write(tmp_path / "t.jsonl", tasks), "reinforcement").findings == []
    assert found(check(write(tmp_path / "t.jsonl", [*tasks, CLEAN[0]]), "reinforcement")) == {"format": [31]}


@pytest.mark.parametrize("answer", ["<b>yes</b>", "*a* `b` _c_", "[a](b)", "&lt;", r"\*", "~~x~~", "snake_case"])
def test_the_report_shows_what_stands_in_rows(answer: str, tmp_path: Path) -> None:
    """Markdown would take it for a mark of its own, and leave it out."""
    rows = [chat(f"question {number}?", answer) for number in range(30)]
    printed = io.StringIO()
    report = check(write(tmp_path / "rows.jsonl", rows))
    Console(file=printed, width=500).print(Markdown(report.markdown()))
    assert f"answers are {answer!r}" in printed.getvalue()


def test_the_markdown_names_level_check_and_lines(tmp_path: Path) -> None:
    text = check(write(tmp_path / "a.jsonl", [*CLEAN, *[CLEAN[0]] * 25])).markdown()
    assert "- **warning** `duplicates`: 25 rows repeat" in text
    assert "and 5 more" in text
