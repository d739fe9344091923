"""`python docs/generate.py`: write the pages that come from the code; tests hold them to it."""

import inspect
import json
from pathlib import Path
from typing import Any

import typer.main
from fastapi.routing import APIRoute
from prometheus_client.metrics import MetricWrapperBase

from bench import proofs
from server.admin import figures, probes
from server.app import FOR_ADMIN_KEYS, FOR_EVERY_KEY
from server.cli import app as cli
from server.metrics import Metrics
from server.openai.differences import ENDPOINTS, VLLM, Narrower, Refused, Taken
from server.settings import Settings

FOLDER = Path(__file__).parent

HEAD = """# Reference

Written by `python docs/generate.py` from the code.

Clients send `Authorization: Bearer KEY`. Errors are OpenAI's: `{"error": {"message", "type", "param", "code"}}`. Every
answer has `x-request-id`.

## Registering an adapter trained elsewhere

A folder that PEFT's `save_pretrained` wrote (safetensors, plain LoRA or rsLoRA on linear layers, rank at most
`max_lora_rank`), under any `ft:` name that your code holds:

```sh
curl http://127.0.0.1:8000/admin/adapters -H "Authorization: Bearer $ADMIN_KEY" -H 'content-type: application/json' \\
  -d '{"name": "ft:gpt-3.5-turbo-0613:my-org:custom-model-v1", "path": "/adapters/custom"}'   # --adapter-root /adapters

curl http://127.0.0.1:8000/admin/adapters -H "Authorization: Bearer $ADMIN_KEY" \\
  -F name=ft:gpt-3.5-turbo-0613:my-org:custom-model-v1 -F file=@adapter_config.json -F file=@adapter_model.safetensors
```

All files of a trainer's folder may be sent, as all may lie under the path: the adapter's own are taken, nothing else is
stored or run. `adapter_config.json` may be in any encoding of Unicode; it is kept as plain text. It must mean the
layers that the file holds, at their ranks, by PEFT's rules (`target_modules`, `exclude_modules`, `layers_to_transform`,
`rank_pattern`, `alpha_pattern`), and its `base_model_name_or_path` must name the base: in any folder, cache or owner,
and quantised by bitsandbytes, GPTQ, FP8, GGUF or the like. AWQ and SmoothQuant scale the inputs of layers, so an
adapter trained on such a twin is refused.

A `manifest.json` beside the weights may hold `chat_template`, `system_prompt`, `stop_token_ids` and
`sampling` (`temperature`, `top_p`, `max_completion_tokens`): what the adapter needs travels with it.

## Versions, aliases, canaries

An adapter under its name is a version and never changes. An alias is a name that can be moved; answers carry the
version's name in `model`.

```sh
export TUNEPORT_ADMIN_KEY=…                                  # and TUNEPORT_URL, if it is not http://127.0.0.1:8000
tuneport adapters add ft:acme-support:v1 ./v1                # and :v2
tuneport adapters alias ft:acme-support v1                   # ft:acme-support -> v1
tuneport adapters alias ft:acme-support v1=90 v2=10          # a canary; a request's `user` always gets the same version
tuneport adapters rollback ft:acme-support
```

States: `registered` (on disk; its first request loads it), `loading`, `ready`, `failed` (with `error`). `max_loras`
adapters run at a time and `max_cpu_loras` stay in memory, the least recently used one goes first; `pin` keeps one
there, `unload` frees one once its requests have ended.

## Beyond OpenAI's API

`hyperparameters.replay_share` (0 to 0.5, or `auto`: 0.1) sets the share of the base's own answers to general prompts
that is mixed into the training data against forgetting; 0 turns it off.
"""


DIFFERENCES = """# Differences from OpenAI

Written by `python docs/generate.py` from the table by which the server refuses (`server/openai/differences.py`). A
field that OpenAI documents and that is not here does what OpenAI says. Null means absent everywhere. Fields that nobody
documents are ignored; those of another text endpoint are refused with the name that they have here.

- **Text.** Half a surrogate pair (`"\\ud83d"`, an emoji that somebody cut in two) and NUL become U+FFFD as a request
  comes in, in bodies and in URLs. Everything else is kept as it is.
- **Control tokens.** `<|im_end|>` and its like in a message are text, and begin no new turn; in the prompt of
  `/v1/completions` they are the tokens.
- **Bodies.** JSON is read as JSON whatever its Content-Type says, in UTF-8, UTF-16, UTF-32 or the charset it names.
  `Content-Encoding: gzip` and `deflate` are unpacked, up to the body's limit; any other is refused (415).
- **URLs.** A slash at the end and doubled slashes are the same address, HEAD is GET without the body, OPTIONS answers
  with `Allow`. `/v1/v1/…` and addresses without `/v1` are 404 and say what was meant.
- **Browsers.** With `--no-auth` a request of another site's page (`Origin`, `Sec-Fetch-Site`), or for a `Host` that is
  neither localhost nor an address of this machine, is refused (403). `cors_origins` names the sites that may.
- **Limits.** At most 10,000 messages or items a request, 1,024 tokens in `logit_bias`, 64 levels in a schema,
  10,000 places in all its arrays and objects that have bounds (`minItems`, `maxProperties`) where it is enforced,
  20 `logprobs` in `/v1/completions`.
- **Sampling.** A `temperature` below 0.00001, or a `top_p` of 0, takes the most probable token; below 0.01 it is 0.01.
- **Log-probabilities.** `bytes` are the token's own, and joined they are the answer. Tokens that the text leaves out,
  such as the end of the turn, have none; where a stop string ended the answer, its tokens follow; where `max_tokens`
  cut a character, its bytes.
"""
KINDS = {Refused: "refused", Taken: "no effect", Narrower: "in part"}


def differences() -> str:
    """The page of differences."""
    lines = [DIFFERENCES]
    for title, table in (*ENDPOINTS.values(), ("Fields of `vllm serve`, by `extra_body`", VLLM)):
        lines += [f"## {title}", "", "| field | | why, and what is taken all the same |", "|---|---|---|"]
        for path, entry in table.items():
            lines.append(f"| `{path}` | {KINDS[type(entry)]} | {entry.why}{_harmless(entry)} |")
        lines.append("")
    return "\n".join(lines)


def _harmless(entry: Refused | Taken | Narrower) -> str:
    if not isinstance(entry, Refused):
        return ""
    values = [f"`{json.dumps(value)}`" for value in entry.harmless]
    values += [f"`{name}` {' or '.join(map(json.dumps, parts))}" for name, parts in entry.parts.items()]
    return f" Taken: {', '.join(values)}." if values else ""


def page() -> str:
    """The page of reference."""
    return "\n".join([HEAD, *_routes(), "", *_commands(), *_settings(), *_metrics()]) + "\n"


def _routes() -> list[str]:
    lines = ["## Routes", "", "| route | what it does |", "|---|---|"]
    for module in (*FOR_EVERY_KEY, *FOR_ADMIN_KEYS, figures, probes):
        for route in module.router.routes:
            if isinstance(route, APIRoute):
                lines.append(f"| `{min(route.methods)} {route.path}` | {_first_line(route.endpoint)} |")
    return lines


def _commands() -> list[str]:
    lines = ["## Commands", ""]
    for path, command in _walk(typer.main.get_command(cli), "tuneport"):
        lines += [f"### `{path}`", "", (command.help or "").strip(), ""]
        for parameter in command.params:
            help_text = getattr(parameter, "help", None)
            if help_text and "--help" not in parameter.opts:
                lines.append(f"- `{parameter.opts[0]}`: {help_text}")
        lines.append("")
    return lines


def _walk(command: Any, path: str) -> list[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        return [(path, command)]
    return [entry for name, child in children.items() for entry in _walk(child, f"{path} {name}")]


def _settings() -> list[str]:
    lines = [
        "## Settings",
        "",
        "From flags, `TUNEPORT_*` variables (`TUNEPORT_MAX_CPU_LORAS=64`) or `tuneport.toml`, in that order.",
        "",
        "| setting | default | what it sets |",
        "|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)}`"
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return lines


def _metrics() -> list[str]:
    lines = ["", "## Metrics", "", "| of `GET /metrics` | labels | what it tells |", "|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            lines.append(f"| `{name}` | {', '.join(metric._labelnames)} | {family.documentation} |")
    return lines


def _first_line(function: Any) -> str:
    return (inspect.getdoc(function) or "").splitlines()[0]


if __name__ == "__main__":
    (FOLDER / "reference.md").write_text(page(), encoding="utf-8")
    (FOLDER / "differences.md").write_text(differences(), encoding="utf-8")
    proofs.PAGE.write_text(proofs.page(), encoding="utf-8")
