from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings


def test_flags_win_over_variables_and_they_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuneport.toml").write_text('model = "file"\nport = 1\norganization = "acme"\n')
    monkeypatch.setenv("TUNEPORT_PORT", "2")
    settings = Settings(model="flag")
    assert (settings.model, settings.port, settings.organization) == ("flag", 2, "acme")


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"no_auth": True, "host": "0.0.0.0"}, "open the server to the network"),  # noqa: S104
        ({"no_auth": True, "cors_origins": ["*"]}, "every web page"),
        ({"cors_origins": ["app.example"]}, "is no origin"),
        ({"cors_origins": ["https://app.example/path"]}, "is no origin"),
        ({"max_lora_rank": 17}, "max_lora_rank is 17"),
        ({"max_loras": 8, "max_cpu_loras": 4}, "at least max_loras"),
        ({"prot": 8000}, "prot"),
        ({"port": 70000}, "port"),
        ({"admin_key": "too-short"}, "admin_key"),
    ],
)
def test_unsafe_or_unknown_settings_refuse_to_start(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Settings(model="m", **given)  # pyright: ignore[reportArgumentType]


def test_origins_are_compared_as_browsers_send_them() -> None:
    assert Settings(model="m", cors_origins=["https://App.example:444/"]).cors_origins == ["https://app.example:444"]
