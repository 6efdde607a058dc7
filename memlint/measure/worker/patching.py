"""Attributes replaced for a while, and put back in reverse order."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

_MISSING = object()


class Patches(ExitStack):
    """A stack of replaced attributes; leaving it restores each."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace `owner.name`; an attribute that was not there (or was inherited) is deleted again."""
        before = vars(owner).get(name, _MISSING)
        setattr(owner, name, value)
        if before is _MISSING:
            self.callback(delattr, owner, name)
        else:
            self.callback(setattr, owner, name, before)
