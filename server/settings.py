"""All settings. They come from `tuneport serve`'s flags, TUNEPORT_* variables, or tuneport.toml, in that order."""

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from training.graders.judge import Judge
from training.job import Gate

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GIB = 1024**3


class Settings(BaseSettings):
    """Settings of one server; with unknown keys or unsafe combinations it does not start."""

    model_config = SettingsConfigDict(env_prefix="TUNEPORT_", toml_file="tuneport.toml", extra="forbid")

    model: str = Field(description="Base model: a local folder, or a Hugging Face id that is fetched once.")
    model_name: str | None = Field(
        default=None, description="The base's name in the API; default: the folder's name, or the id."
    )
    chat_template: Path | None = Field(
        default=None, description="Jinja file with a chat template to use instead of the base's own, or if it has none."
    )
    organization: str = Field(default="personal", description="Third field of the ft: names of new models.")
    data_dir: Path = Field(default=Path("var/tuneport"), description="Database, files, jobs and adapters.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default: SQLite in data_dir.")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on.")
    tls_certificate: Path | None = Field(
        default=None, description="PEM file of a certificate chain; turns on https, and HTTP/2 if the client offers it."
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    no_auth: bool = Field(default=False, description="Take requests without a key; only on this machine's own address.")
    open_metrics: bool = Field(
        default=False, description="Answer GET /metrics without a key, although it names every model."
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Sites whose pages may call this server from a browser: https://host:port each, or * (with keys).",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Admin key to use, 16 characters or more; a start with another one, or none, revokes it. "
        "Default: a key is made at the first start.",
    )
    keep_alive_seconds: int = Field(
        default=620, description="How long an idle connection is kept; longer than Java's pools do (600 s)."
    )
    shutdown_seconds: int = Field(default=30, description="How long running requests may take to end after SIGTERM.")

    max_loras: int = Field(default=4, ge=1, description="Adapters in one batch.")
    max_cpu_loras: int = Field(
        default=32, ge=1, description="Adapters held in memory; the least recently used is evicted."
    )
    max_lora_rank: int = Field(default=16, description="Highest rank served: 1, 8, 16, 32, 64, 128, 256, 320 or 512.")
    max_model_len: int | None = Field(default=None, ge=1, description="Context in tokens; default: the model's own.")
    max_full_models: int = Field(
        default=0,
        ge=0,
        description="Full fine-tunes in memory, each with its own engine beside the base's; all share the GPU.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto",
        description="Type of weights and activations; auto: the model's own, or float32 on CPUs without AVX-512.",
    )
    tool_parser: str = Field(
        default="hermes", description="Format of the base model's tool calls: the name of one of vLLM's tool parsers."
    )
    kv_cache_bytes: int | None = Field(
        None, description="KV cache on a CPU; default: a sixth of memory, at most 8 GiB."
    )
    gpu_memory_utilization: float = Field(
        0.6, gt=0, le=1, description="Share of a GPU's memory for serving; training gets the rest."
    )

    embedding_model: str | None = Field(
        default=None,
        description="sentence-transformers model: a folder or a Hugging Face id; default: all-MiniLM-L6-v2.",
    )

    adapter_root: list[Path] = Field(
        default_factory=list, description="Folders from which POST /admin/adapters may take a path."
    )
    max_adapters: int = Field(default=10_000, ge=1, description="Adapters that may be registered.")
    max_adapter_bytes: int = Field(default=2 * GIB, description="Largest adapter weights file.")
    max_file_bytes: int = Field(default=512 * 1024**2, description="Largest file of POST /v1/files; OpenAI's limit.")
    max_files: int = Field(default=10_000, ge=1, description="Files that may be stored, results not counted.")
    max_stored_bytes: int = Field(default=100 * GIB, ge=1, description="Bytes of all files, results too; OpenAI's.")
    max_open_uploads: int = Field(default=100, ge=1, description="Uploads in parts that may be open at a time.")
    max_body_bytes: int = Field(default=8 * 1024**2, description="Largest body of any other request.")
    max_body_items: int = Field(default=250_000, description="Most values, such as token ids, in a JSON body.")
    max_buffered_bytes: int = Field(
        default=GIB, ge=1, description="Bytes of all bodies in memory that are not small; half of them one key's."
    )
    max_concurrent_requests: int | None = Field(
        default=None, ge=1, description="Text requests that one key may have running at a time; default: no limit."
    )
    max_concurrent_calls: int = Field(
        default=64, ge=1, description="Requests of one key that are neither text nor forms, at a time."
    )
    max_concurrent_uploads: int = Field(default=16, ge=1, description="File uploads of one key at a time.")
    max_grader_bytes: int = Field(
        default=512 * 1024, ge=1, description="Largest grader; for a job, all together, as lists of jobs show them."
    )
    max_concurrent_graders: int = Field(default=2, ge=1, description="Graders one key tries at a time; all keys: 4.")
    slow_reader_seconds: float = Field(
        default=30, gt=0, description="How long a stream's event may wait for a slow reader before the answer is ended."
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Text requests that each key may make; default: no limit."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, description="Tokens that each key may ask for, prompt plus max_tokens; default: no limit."
    )

    max_responses: int = Field(
        default=100_000, ge=1, description="Responses that are stored; beyond that, the oldest are deleted."
    )
    max_response_bytes: int = Field(
        default=10 * GIB, ge=1, description="Bytes of all stored responses; beyond that, the oldest are deleted."
    )
    max_waiting_batches: int = Field(default=100, ge=1, description="Batches that may wait or run.")
    max_failed_jobs: int = Field(
        default=1000, ge=1, description="Failed and cancelled jobs that are kept; beyond that, the oldest are deleted."
    )
    max_waiting_jobs: int = Field(default=100, ge=1, description="Jobs that may wait, run or be paused.")
    jobs_per_hour: int = Field(default=1000, ge=1, description="Jobs that each key may create, cancelled ones too.")
    grader_runs_per_hour: int | None = Field(
        default=None, ge=1, description="Graders each key may try; default: no limit. Graders of jobs do not count."
    )
    max_running_jobs: int = Field(default=1, ge=1, description="Training jobs at a time.")
    warm_trainer: bool = Field(
        default=True,
        description="Keep a process with a trainer's imports done: it takes half a GB, and jobs start 20 s sooner.",
    )
    training_devices: list[str] = Field(
        default_factory=list,
        description="CUDA devices for trainers, one for each running job; if empty, those that the server sees.",
    )
    gate: Gate = Field(default=Gate(), description="Thresholds for new jobs; a job's metadata (gate.*) override them.")
    judge_url: str | None = Field(
        default=None,
        description="OpenAI-compatible address, ending in /v1, that score_model and label_model graders ask.",
    )
    judge_api_key: SecretStr = Field(default=SecretStr("none"), description="Key for judge_url.")

    @field_validator("cors_origins")
    @classmethod
    def _as_browsers_send_them(cls, origins: list[str]) -> list[str]:
        plain = [origin.rstrip("/").lower() for origin in origins]
        for origin in plain:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                raise ValueError(f"{origin!r} is no origin; expected https://host, https://host:port or *")
        return plain

    @model_validator(mode="after")
    def _refuse_unsafe(self) -> "Settings":
        if self.no_auth and self.host not in LOOPBACK:
            raise ValueError(
                f"no_auth with host {self.host} would open the server to the network; "
                f"use {LOOPBACK[0]}, or keep keys on"
            )
        if self.no_auth and "*" in self.cors_origins:
            raise ValueError(
                "no_auth with cors_origins * would open the server to every web page; name the sites, or keep keys on"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together; set both, or neither")
        for file in (self.tls_certificate, self.tls_key):
            if file is not None and not file.is_file():
                raise ValueError(f"TLS file {file} does not exist")
        ranks = (1, 8, 16, 32, 64, 128, 256, 320, 512)
        if self.max_lora_rank not in ranks:
            raise ValueError(f"max_lora_rank is {self.max_lora_rank}; expected one of {', '.join(map(str, ranks))}")
        if "max_cpu_loras" not in self.model_fields_set:
            self.max_cpu_loras = max(self.max_cpu_loras, self.max_loras)
        if self.max_cpu_loras < self.max_loras:
            raise ValueError(f"max_cpu_loras is {self.max_cpu_loras}; expected at least max_loras ({self.max_loras})")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of the sources: flags, then variables, then the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def judge(self) -> Judge | None:
        """The endpoint that score_model and label_model graders ask, if it is set."""
        return Judge(self.judge_url, self.judge_api_key.get_secret_value()) if self.judge_url else None

    def database(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'tuneport.db'}"

    def kv_cache(self) -> int:
        """Bytes of the KV cache on a CPU."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return self.kv_cache_bytes or min(8 * GIB, memory // 6)
