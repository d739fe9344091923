"""Call the fine-tuned model from Java: clients/java's Chat example, compiled and run by Maven."""

import os
import shutil
import subprocess
from pathlib import Path

from rich.text import Text

from demo.server import Server
from demo.tasks import Row

PROJECT = Path(__file__).parents[1] / "clients" / "java"
TIMEOUT_SECONDS = 300  # the first time, Maven fetches LangChain4j


def call(server: Server, model: str, row: Row) -> str:
    """The Java program's answer, or a hint what to install."""
    missing = [name for name in ("javac", "mvn") if shutil.which(name) is None]
    if missing:
        return f"Not run: {' and '.join(missing)} not found. Install a JDK 17 and Maven, then run `make demo` again."
    system, user = (message["content"] for message in row.messages)
    run = subprocess.run(
        [
            "mvn",
            "-q",
            "-B",
            "-ntp",
            "-Dstyle.color=never",
            "-pl",
            "langchain4j",
            "compile",
            "exec:exec",
            "-Dexec.executable=java",
            '-Dexec.args=-cp %classpath dev.tuneport.examples.Chat "${demo.system}" "${demo.user}"',
            f"-Ddemo.system={system}",
            f"-Ddemo.user={user}",
        ],
        cwd=PROJECT,
        env={
            **os.environ,
            "TUNEPORT_BASE_URL": server.base_url,
            "TUNEPORT_API_KEY": server.api_key,
            "TUNEPORT_MODEL": model,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if run.returncode != 0:
        return f"Java failed:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
    return f"Java asks: {user}\nJava gets: {Text.from_ansi(run.stdout).plain.strip()}"
