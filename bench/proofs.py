"""The long proofs: what each shows, which code it covers, and the result of its last run. `make prove` runs them.

A proof is stale if a file of its code has changed since its run; docs/proofs.md says so.
"""

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "proofs.json"
PAGE = ROOT / "docs" / "proofs.md"
OWN = (":!bench/results", ":!docs/proofs.md")  # files that the runs write


@dataclass(frozen=True)
class Proof:
    """A proof: what it shows, and the files and folders whose change makes it stale."""

    shows: str
    proves: tuple[str, ...]


ENGINE = ("server/engine", "server/inference")
PROOFS = {
    "recipes": Proof(
        "Each recipe on SmolLM2 gains what its card promises, with its 95 % interval, and passes its gate",
        ("training", "adapters", "demo/recipes.py", "demo/tasks.py"),
    ),
    "durability": Proof(
        "SIGKILL at 20 random moments each of trainer, server and both: every job ends as an untouched one",
        (
            "training",
            "adapters",
            "server/jobs/queue.py",
            "server/jobs/processes.py",
            "server/state",
            "bench/durability.py",
        ),
    ),
    "fuzz": Proof(
        "10,000 requests that schemathesis makes up from our own schema: no 5xx, every error in OpenAI's form",
        ("server", "adapters", "tests/fuzz.py"),
    ),
    "stalls": Proof(
        "2,000 bodies made to stall the server while 16 clients stream: nobody waits a quarter of a second",
        ("server", "adapters", "training/graders", "tests/hostile.py", "tests/stalls.py"),
    ),
    "adapters": Proof(
        "1,000 adapters over 4 slots beside stock vLLM: no error, nobody starves, the list stays quick",
        (*ENGINE, "adapters", "bench/many.py", "bench/servers.py"),
    ),
    "lm_eval": Proof(
        "lm-evaluation-harness: its log-likelihoods are transformers' own, and chats are scored",
        (*ENGINE, "adapters", "server/openai", "demo/lm_eval"),
    ),
    "langchain4j": Proof(
        "LangChain4j's own abstract integration tests of chat, streaming and embedding models, and retrieval in a "
        "tuned voice",
        (
            "server/openai",
            "server/engine",
            "adapters",
            "clients/java/conformance",
            "clients/java/langchain4j",
            "demo/conformance.py",
        ),
    ),
    "export": Proof(
        "SmolLM2 tuned and exported: merged and served over HTTP/2 as the adapter answers; in the JVM by DJL, 100 "
        "greedy tokens as the server's in fp32",
        ("training/export.py", "adapters", "server/cli/export.py", "server/http/listen.py", "clients/java/djl"),
    ),
    "full_models": Proof(
        "The engine of a full fine-tune is killed: the base's goes on, the model's next request starts its own again",
        (*ENGINE, "adapters", "training", "server/jobs"),
    ),
    "soak": Proof(
        "Memory of server and engine over 10,000 load/evict cycles stays flat",
        (*ENGINE, "adapters", "bench/memory.py", "bench/servers.py"),
    ),
}


def record(name: str, *, passed: bool, seconds: float, when: str, figures: dict[str, Any]) -> None:
    """Store the result of a run, and write the page again.

    Args:
        when: date and time, ISO 8601.
        figures: measured values, as JSON.
    """
    results = _results()
    changed = _git("status", "--porcelain", "--", ".", *OWN)
    results[name] = {
        "passed": passed,
        "date": when,
        "commit": _git("rev-parse", "--short=12", "HEAD").strip() + ("+" if changed else ""),
        "seconds": round(seconds),
        "code_sha256": digest(PROOFS[name].proves),
        "figures": figures,
    }
    RESULTS.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of docs/proofs.md."""
    results = _results()
    lines = [
        "# Proofs",
        "",
        "Written by `make prove` and `python docs/generate.py` from bench/results/proofs.json. `make test` runs a "
        "small sample of each; `make prove` runs them whole, for hours. A proof is **stale** where the code that it "
        "proves has changed since. A commit with `+` had changes beside it that were not committed.",
        "",
        "| proof | shows | state | date | commit | minutes |",
        "|---|---|---|---|---|---|",
    ]
    for name, proof in PROOFS.items():
        one = results.get(name)
        if one is None:
            lines.append(f"| {name} | {proof.shows} | not run yet | | | |")
            continue
        fresh = "current" if one["code_sha256"] == digest(proof.proves) else "**stale**"
        state = fresh if one["passed"] else f"**failed**, {fresh}"
        lines.append(
            f"| {name} | {proof.shows} | {state} | {one['date'][:10]} | {one['commit']} | {one['seconds'] / 60:.0f} |"
        )
    for name, one in results.items():
        lines += ["", f"## {name}", "", *(f"- {key}: {value}" for key, value in one["figures"].items())]
    return "\n".join(lines) + "\n"


def digest(paths: tuple[str, ...]) -> str:
    """SHA-256 over names and contents of the files under the paths that git tracks, as they are on disk."""
    sha = hashlib.sha256()
    for name in sorted(filter(None, _git("ls-files", "-z", "--", *paths).split("\0"))):
        file = ROOT / name
        if file.is_file():
            sha.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()


def _results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def _git(*arguments: str) -> str:
    command = ["/usr/bin/env", "git", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
