import pytest

from adapters import names
from adapters.errors import InvalidName


@pytest.mark.parametrize(
    "name",
    [
        "ft:gpt-3.5-turbo-0613:my-org:custom-model-v1",
        "ft:gpt-4o-mini-2024-07-18:acme::9ABCdefg",
        "ft:Qwen/Qwen3-0.6B:acme:support:a1B2c3D4:ckpt-step-120",
        "ft:acme-support",
    ],
)
def test_names_that_old_code_holds_are_taken(name: str) -> None:
    assert names.check(name) == name


@pytest.mark.parametrize("name", ["", "gpt-4o", "ft:", "ft: x", "ft:a\nb", "ft:a?b", "ft:\u200bx", "ft:" + "x" * 254])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        names.check(name)


def test_minted_names_have_openais_fields() -> None:
    assert (
        names.mint("Qwen/Qwen3-0.6B", "acme", "My Orders!", "9xQbT2aa") == "ft:Qwen/Qwen3-0.6B:acme:my-orders-:9xQbT2aa"
    )
    assert names.mint("base", "acme", None, "9xQbT2aa") == "ft:base:acme::9xQbT2aa"
    assert names.checkpoint("ft:base:acme::9xQbT2aa", 12) == "ft:base:acme::9xQbT2aa:ckpt-step-12"


def test_a_minted_name_leaves_room_for_its_checkpoints() -> None:
    names.checkpoint(names.mint("base", "o" * 150, "s" * 64, "9xQbT2aa"), names.MAX_STEP)
    with pytest.raises(InvalidName, match="at most 256"):
        names.mint("base", "o" * 160, "s" * 64, "9xQbT2aa")
