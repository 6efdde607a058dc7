"""What is stored, as JSON and back.

Whatever does not fit raises what is in UNREADABLE: what is stored may be damaged.
"""

from __future__ import annotations

import json
from typing import Any

UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


def encoded(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def decoded(text: str) -> Any:
    return json.loads(text)
