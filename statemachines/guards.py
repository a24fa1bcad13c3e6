"""Guards that need no function of their own."""

from __future__ import annotations

from typing import Any

from statemachines.definition import State
from statemachines.events import Event


class has_tag:  # noqa: N801 - it is called like a function, and compares like a value
    """Holds while a state with a tag is active, in whatever region: ``when=has_tag("billable")``.

    Where more is to hold, a function of its own asks ``event.meta.has_tag("billable")``.
    """

    def __init__(self, tag: str) -> None:
        self.tag = str(tag)
        self.__qualname__ = f"has_tag({self.tag})"

    def __call__(self, context: object, event: Event) -> bool:
        """Whether a state that has it is active now."""
        del context
        return event.meta.has_tag(self.tag)

    def __eq__(self, other: object) -> bool:
        """Guards on the same tag are the same guard."""
        return isinstance(other, has_tag) and other.tag == self.tag

    def __hash__(self) -> int:
        """Goes with ``__eq__``."""
        return hash(self.tag)


class in_state:  # noqa: N801 - it is called like a function, and compares like a value
    """Holds while a state is active, in whatever region: ``when=in_state(paid)``.

    Where more is to hold, a function of its own asks ``event.meta.is_in(paid)``.
    """

    def __init__(self, state: State[Any] | str) -> None:
        self.state = str(state)
        self.pipeline = state.pipeline if isinstance(state, State) else None
        """Of the state, where it was given as an object and not by its name."""
        self.__qualname__ = f"in_state({self.state})"

    def __call__(self, context: object, event: Event) -> bool:
        """Whether it is active now."""
        del context
        return event.meta.is_in(self.state)

    def __eq__(self, other: object) -> bool:
        """Guards on the same state are the same guard."""
        return isinstance(other, in_state) and other.state == self.state

    def __hash__(self) -> int:
        """Goes with ``__eq__``."""
        return hash(self.state)
