"""What the test kits say of arguments that are not what they take, in place of errors from within."""

from __future__ import annotations

from typing import Any


def raised(given: Any) -> BaseException | str:
    """What a step raises, or the text that says why it failed; of a class one is made, as ``raise`` does."""
    if isinstance(given, BaseException | str):
        return given
    is_class = isinstance(given, type) and issubclass(given, BaseException)
    assert is_class, (
        f"a step fails with an exception, or with text that says why, and not with {called(given)}"
    )
    try:
        made: object = given()
    except Exception as error:  # noqa: BLE001 - classes of exceptions are user code
        why = f"{type(error).__name__}: {error}"
        message = f"{given.__name__} cannot be made without arguments, as raise does it ({why}): give one that is made"
        raise AssertionError(message) from None
    assert isinstance(made, BaseException), f"{given.__name__}() is {called(made)}, which cannot be raised"
    return made


def called(given: Any) -> str:
    """What something is, in a word or two."""
    return f"the class {given.__name__} itself" if isinstance(given, type) else type(given).__name__
