"""What a body holds is counted before it is parsed."""

import pytest

from training.wire import more_values


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'{"a":1}', 2),
        (b'{"a":[1,2]}', 4),
        (b'{"a":",[{\\",[","b":2}', 3),
        (b"[[[]],[[]]]", 7),
        (b"[" * 100, 100),
        (b'{"a":"no end,[', 2),
    ],
)
def test_values_are_counted_outside_of_texts_and_containers_among_them(body: bytes, values: int) -> None:
    assert more_values(body, values - 1)
    assert not more_values(body, values)
