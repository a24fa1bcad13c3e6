"""A pipeline whose functions keep each context that they were given, for a test to change once it is too late."""

from __future__ import annotations

from statemachines import Context, Event, Pipeline

TOPIC = "books"


class Opened(Event, type="book.opened", key="book"):
    book: str


class Noted(Event, type="book.noted", key="book"):
    book: str
    text: str


class Book(Context):
    texts: list[str]
    count: int


had: list[Book] = []


def begin(event: Opened) -> Book:
    del event
    had.append(Book(texts=[], count=0))
    return had[-1]


def is_any(book: Book, event: Noted) -> bool:
    had.append(book)
    return bool(event.text)


def note(book: Book, event: Noted) -> None:
    had.append(book)
    book.texts.append(event.text)
    book.count += 1


def leave(book: Book, event: Event) -> None:
    del event
    had.append(book)


def spoil() -> None:
    """Change all of them, and what is in them."""
    for book in had:
        book.texts.append("too late")
        book.texts = ["too late"]
        book.count = -1


def hoarder(*, chart: bool) -> Pipeline[Book]:
    """``chart``: it does more than a flat pipeline may."""
    had.clear()
    flow = Pipeline("book", Book, topics=[TOPIC])
    open_ = flow.state("open", initial=True)
    if chart:
        open_.exit(leave)
    flow.start(Opened, begin)
    open_.on(Noted, to=open_, reenter=True, when=is_any, do=note)
    return flow
