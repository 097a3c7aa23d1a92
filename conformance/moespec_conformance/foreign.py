"""JSON of others, read so that nothing in it can surprise later."""

import json
from typing import Any

LONGEST = 2**22  # bytes of a file of JSON


def object_in(text: bytes | str) -> dict[str, Any]:
    """An object; a ValueError for all else, and for words that no file can hold, such as half of a surrogate pair."""
    try:
        said: Any = json.loads(text)
        json.dumps(said, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(said, dict):
        raise ValueError("must hold an object")  # noqa: TRY004 - a fault of what was read
    return {**said}
