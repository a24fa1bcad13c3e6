"""Plain contexts are written as pydantic writes them, and only where reading that back finds the same."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, create_model

from statemachines import Context
from statemachines.plain import plain_of


class Name(str):
    """Equal to text, and none."""

    __slots__ = ()


KINDS: list[Any] = [
    *(str, int, float, bool, datetime),
    *(str | None, int | None, float | None, bool | None, datetime | None),
]
FITTING: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(-(2**63), 2**64 - 1),
    float: st.floats(-1e16, 1e16, exclude_min=True, exclude_max=True),
    bool: st.booleans(),
    # As they are read.
    datetime: st.builds(
        lambda time, zone: TypeAdapter(datetime).validate_python(f"{time.isoformat()}{zone}"),
        st.datetimes(),
        st.sampled_from(["", "Z"]),
    ),
}
FITTING |= {kind | None: st.none() | values for kind, values in FITTING.items()}
STRANGE = st.one_of(
    st.text(st.characters(codec=None)),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.builds(Name, st.text()),
    st.binary(),
    st.lists(st.integers()),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.dates(),
    st.timedeltas(),
)
FIELDS = st.dictionaries(
    st.from_regex(r"[a-zé][a-z0-9_]{0,5}", fullmatch=True), st.sampled_from(KINDS), min_size=1
)


@st.composite
def contexts(draw: st.DrawFn, *, fitting: bool) -> Context:
    fields = draw(FIELDS.filter(lambda names: not any(hasattr(Context, name) for name in names)))
    definitions: dict[str, Any] = {name: (kind, ...) for name, kind in fields.items()}
    made = create_model("Made", __base__=Context, **definitions)
    given_values = {name: draw(FITTING[kind]) for name, kind in fields.items()}
    context = made(**given_values)
    if not fitting:
        # As an action may leave it: nothing looks at what it assigns.
        for name in draw(st.lists(st.sampled_from([*fields]), min_size=1)):
            object.__setattr__(context, name, draw(STRANGE))
        for name in draw(st.lists(st.sampled_from([*fields, "other"]), max_size=2)):
            held = vars(context)
            held[name] = held.pop(name, 1)
    return context


@given(contexts(fitting=True))
def test_what_fits_is_written_as_pydantic_writes_it(context: Context) -> None:
    plain = plain_of(type(context))
    assert plain is not None
    written = plain.write(context)
    assert written == context.__pydantic_serializer__.to_json(context, by_alias=True)
    survived = type(context).__pydantic_validator__.validate_json(written)
    assert repr(list(vars(survived).items())) == repr(list(vars(context).items()))


class Late(Context):
    number: float = 1.0
    text: str | None = None


@example(Late.model_construct(number=1, text="a"))
@example(Late.model_construct(number=True, text="a"))
@example(Late.model_construct(number=float("nan"), text="a"))
@example(Late.model_construct(number=1e16, text="a"))
@example(Late.model_construct(number=-1.5e300, text="a"))
@example(Late.model_construct(number=-0.0, text=Name("a")))
@example(Late.model_construct(text="\ud800", number=1.5))
@given(contexts(fitting=False))
def test_what_does_not_fit_is_not_written_or_comes_back_the_same(context: Context) -> None:
    plain = plain_of(type(context))
    assert plain is not None
    written = plain.write(context)
    large = [one for one in vars(context).values() if isinstance(one, float) and not abs(one) < 1e16]
    assert not (written and large), "releases of pydantic and orjson differ in how they write these"
    if not written:
        return
    assert written == context.__pydantic_serializer__.to_json(context, warnings=False, by_alias=True)
    survived = type(context).__pydantic_validator__.validate_json(written)
    before, after = vars(context), vars(survived)
    assert list(before) == list(after)
    assert [(type(one), repr(one)) for one in before.values()] == [
        (type(one), repr(one)) for one in after.values()
    ]
