"""The phase of a task, which names the client method that it calls; one object per name."""

from __future__ import annotations

import re
import threading
from typing import ClassVar
from weakref import WeakValueDictionary

__all__ = ["MAX_PHASE_NAME", "Phase"]

MAX_PHASE_NAME = 64
"""Characters, all of them ASCII."""

_NAME = re.compile(rf"[a-z0-9][a-z0-9_.-]{{0,{MAX_PHASE_NAME - 1}}}")


class Phase:
    """Names the client method that a task calls.

    The constants are flmq's own; a program may add others (`flmq.wire.kinds`). ``Phase(name)`` is
    the only object of that name for as long as anybody holds it: compare phases with ``is``.
    """

    __slots__ = ("__weakref__", "value")

    FIT: ClassVar[Phase]
    EVALUATE: ClassVar[Phase]
    GET_PARAMETERS: ClassVar[Phase]
    GET_PROPERTIES: ClassVar[Phase]
    RECONNECT: ClassVar[Phase]

    value: str
    """The name: lower-case letters, digits, ``_``, ``.`` and ``-``."""

    def __new__(cls, value: str) -> Phase:
        """Return the phase called ``value``.

        Raises:
            ValueError: it is not 1 to 64 of a-z, 0-9, '_', '.' and '-', beginning with a-z or 0-9.
        """
        # Held weakly: names also come from peers, and unused ones must not take memory.
        with _LOCK:
            phase = _PHASES.get(value) if isinstance(value, str) else None
            if phase is None:
                if not isinstance(value, str) or _NAME.fullmatch(value) is None:
                    raise ValueError(
                        f"kind of message {str(value)[:80]!r} is not usable: choose 1 to "
                        f"{MAX_PHASE_NAME} characters of a-z, 0-9, '_', '.' and '-', of which the "
                        "first is a letter or a digit"
                    )
                phase = super().__new__(cls)
                object.__setattr__(phase, "value", value)
                _PHASES[value] = phase
            return phase

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: the object is shared by everybody who uses this phase."""
        raise AttributeError(f"a phase cannot be changed: {name}")

    def __reduce__(self) -> tuple[type[Phase], tuple[str]]:
        """Copy and pickle as the one object of this name."""
        return Phase, (self.value,)

    def __repr__(self) -> str:
        """Show its name."""
        return f"Phase({self.value!r})"


_LOCK = threading.Lock()
_PHASES: WeakValueDictionary[str, Phase] = WeakValueDictionary()

Phase.FIT = Phase("fit")
Phase.EVALUATE = Phase("evaluate")
Phase.GET_PARAMETERS = Phase("get_parameters")
Phase.GET_PROPERTIES = Phase("get_properties")
Phase.RECONNECT = Phase("reconnect")
