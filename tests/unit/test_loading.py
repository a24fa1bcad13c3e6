"""Pipelines are found by module or by file; what is not found is told in one sentence, and what was meant."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from statemachines.codehash import code_hash
from statemachines.loading import LoadError, find_pipelines, find_value
from statemachines.shipped.orders import flow as orders

PIPELINE = """
from statemachines import Context, Event, Pipeline

class Begun(Event, type="begun"):
    pass

class Empty(Context):
    pass

def make(name):
    flow = Pipeline(name, Empty, topics=["things"])
    flow.state("only", initial=True, final=True)
    flow.start(Begun, lambda event: Empty())
    return flow

"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def names(target: str) -> list[str]:
    return [pipeline.name for pipeline in find_pipelines(target)]


def refusal(target: str) -> str:
    with pytest.raises(LoadError) as raised:
        find_pipelines(target)
    message = str(raised.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def test_a_module_on_the_path_gives_its_pipelines() -> None:
    assert find_pipelines("statemachines.shipped.orders") == [orders]
    assert find_pipelines("statemachines.shipped.orders:flow") == [orders]


def test_a_file_of_a_package_is_the_module_of_that_package() -> None:
    file = sys.modules[orders.__module__].__file__
    assert file is not None
    shipped = Path(file).parent / "shipped" / "orders.py"
    assert find_pipelines(str(shipped))[0] is orders
    assert find_pipelines(f"{shipped}:flow")[0] is orders


def test_all_pipelines_of_a_module_are_found_once_in_its_order(folder: Path) -> None:
    write(folder / "two.py", PIPELINE + "b = make('b')\na = make('a')\nagain = b\n")
    assert names("two") == ["b", "a"]
    assert names("./two.py") == ["b", "a"]
    assert names("two.py:a") == ["a"]


def test_a_name_may_stand_for_a_list_of_pipelines(folder: Path) -> None:
    write(folder / "several.py", PIPELINE + "flows = [make('a'), make('b')]\n")
    assert names("several:flows") == ["a", "b"]


def test_a_file_may_be_called_like_a_module_that_exists_already(folder: Path) -> None:
    write(folder / "json.py", PIPELINE + "flow = make('mine')\n")
    assert names("json.py") == ["mine"]
    assert sys.modules["json"].__name__ == "json"
    assert hasattr(sys.modules["json"], "loads")


def test_a_file_may_import_its_neighbours_and_is_imported_once(folder: Path) -> None:
    write(folder / "sub" / "neighbour.py", "NAME = 'neighbour'\n")
    write(folder / "sub" / "flow.py", PIPELINE + "from neighbour import NAME\nflow = make(NAME)\n")
    assert names("sub/flow.py") == ["neighbour"]
    assert find_pipelines("sub/flow.py")[0] is find_pipelines("sub/flow.py")[0]


def test_a_package_with_relative_imports_is_loaded_by_file(folder: Path) -> None:
    write(folder / "shop" / "__init__.py", "")
    write(folder / "shop" / "parts.py", PIPELINE)
    write(folder / "shop" / "flows.py", "from .parts import make\nflow = make('relative')\n")
    assert names("shop/flows.py") == ["relative"]
    assert names("shop.flows:flow") == ["relative"]


def test_a_module_that_does_not_exist_is_named_with_what_was_meant(folder: Path) -> None:
    write(folder / "pipelines" / "__init__.py", "")
    write(folder / "pipelines" / "orders.py", PIPELINE)
    assert refusal("pipelines.ordesr") == (
        "There is no module 'pipelines.ordesr'. Did you mean 'pipelines.orders'?"
    )
    assert refusal("pipeline.orders") == (
        "There is no module 'pipeline.orders'. Did you mean 'pipelines.orders'?"
    )
    assert refusal("pipelines.orders.flow").endswith(
        "'pipelines.orders' is a module and no package, so nothing is in it."
    )
    assert refusal("unheard_of").startswith("There is no module 'unheard_of'. Give a module that Python can")


def test_a_file_that_does_not_exist_is_named_with_what_was_meant(folder: Path) -> None:
    write(folder / "orders.py", PIPELINE)
    assert refusal("order.py") == "There is no file 'order.py'. Did you mean 'orders.py'?"
    assert refusal("nowhere/at_all.py") == "There is no file 'nowhere/at_all.py'."


def test_only_what_is_there_is_said_to_be_meant(folder: Path) -> None:
    write(folder / "nout" / "__init__.py", "raise ValueError('imported')\n")
    write(folder / "nout" / "mod.py", PIPELINE)
    write(folder / "tk3.py", PIPELINE)
    write(folder / "tk.txt", PIPELINE)
    (folder / "dd.py").mkdir()
    anything = "Give a module that Python can import from here, or the path of a file."
    assert refusal("no.such.mod") == f"There is no module 'no.such.mod'. {anything}"
    assert refusal("nou.mod") == "There is no module 'nou.mod'. Did you mean 'nout.mod'?"
    assert refusal("tk.txt") == "'tk.txt' is no Python file: the name of one ends in .py."
    assert refusal("tk.txt:flow") == "'tk.txt' is no Python file: the name of one ends in .py."
    assert refusal("tk2.txt") == f"There is no module 'tk2.txt'. {anything}"
    assert refusal("dd.py") == "'dd.py' is a folder. Give a file in it, or a module like package.module."
    assert refusal("./nout/") == "'./nout/' is a folder. Give a file in it, or a module like package.module."
    assert refusal("dd2.py") == "There is no file 'dd2.py'. Known is 'tk3.py'."


@pytest.mark.parametrize("target", ["", "two words", "a..b", "orders:", "orders:a b", ":flow"])
def test_what_is_neither_module_nor_file_is_refused(target: str) -> None:
    assert refusal(target)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('many\\nlines')", "raised ValueError: many lines ("),
        ("import sys; sys.exit(2)", "raised SystemExit: 2 ("),
        ("import unheard_of", "raised ModuleNotFoundError: No module named 'unheard_of' ("),
        ("1 / 0", "raised ZeroDivisionError: division by zero ("),
        ("def broken(:", "raised SyntaxError: invalid syntax ("),
        ("import json; json.loads('{')", "raised JSONDecodeError: "),
        ("b'\\xff'.decode()", "raised UnicodeDecodeError: "),
    ],
)
def test_a_module_whose_import_raises_is_told_with_file_and_line(folder: Path, body: str, said: str) -> None:
    file = write(folder / "raising.py", f"\n\n{body}\n")
    for target in ("raising", "raising.py"):
        message = refusal(target)
        assert message.startswith(f"Importing {'raising' if target == 'raising' else file} {said}")
        assert message.endswith(f"({file}:3).")
    assert "raising" not in sys.modules


@pytest.mark.parametrize("target", ["chatty", "chatty.py", "chatty:flow"])
def test_what_a_module_prints_goes_to_standard_error(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    says = "import sys\nprint('hé!')\nsys.stdout.buffer.write(b'bytes\\n')\n"
    write(folder / "chatty.py", says + PIPELINE + "flow = make('chatty')\n")
    assert names(target) == ["chatty"]
    assert find_value("chatty:flow").name == "chatty"
    assert capsys.readouterr() == ("", "hé!\nbytes\n")


@pytest.mark.parametrize(
    "says",
    [
        "sys.stdout = None",
        "sys.stdout.close()",
        "sys.stdout.detach()",
        "import io; sys.stdout = io.TextIOWrapper(sys.stdout.buffer); del sys.stdout",
        "sys.stderr = None; print('nowhere')",
    ],
)
def test_whatever_a_module_does_to_standard_output_it_is_as_it_was_afterwards(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    write(folder / "rude.py", f"import sys\n{says}\n{PIPELINE}flow = make('rude')\n")
    before = sys.stdout
    assert names("rude.py") == ["rude"]
    assert sys.stdout is before
    print("the answer")
    assert capsys.readouterr() == ("the answer\n", "")


def test_a_module_without_pipelines_says_so(folder: Path) -> None:
    write(folder / "bare.py", "flow = 'none'\n")
    assert refusal("bare") == "There is no pipeline in bare: no variable of the module holds a Pipeline."


def test_a_name_that_is_no_pipeline_is_told_with_what_was_meant(folder: Path) -> None:
    write(folder / "shop.py", PIPELINE + "order_flow = make('order')\nnumber = 5\nempty = []\n")
    assert refusal("shop:order_flwo") == "There is no 'order_flwo' in shop. Did you mean 'order_flow'?"
    assert refusal("shop:number") == "'number' in shop is no pipeline but int. Known is 'order_flow'."
    assert refusal("shop:empty").startswith("'empty' in shop is no pipeline but list.")


def test_a_file_that_is_no_python_is_refused(folder: Path) -> None:
    file = write(folder / "orders.txt", PIPELINE)
    assert refusal("./orders.txt") == f"'{file}' is no Python file: the name of one ends in .py."


LINES = {
    "file": ("colours.py", {"colours.py": "flow = make({name!r})"}),
    "module": ("colours", {"colours.py": "flow = make({name!r})"}),
    "file beside": (
        "colours.py",
        {"colours.py": "import other\nflow = make(other.NAME)", "other.py": "NAME = {name!r}"},
    ),
    "module beside": (
        "colours",
        {"colours.py": "from other import NAME\nflow = make(NAME)", "other.py": "NAME = {name!r}"},
    ),
    "package": (
        "paint.mixed.colours",
        {
            "paint/__init__.py": "",
            "paint/mixed/__init__.py": "from ..other import NAME",
            "paint/mixed/colours.py": "from . import NAME\nflow = make(NAME)",
            "paint/other.py": "NAME = {name!r}",
        },
    ),
    "file of a package": (
        "paint/colours.py",
        {
            "paint/__init__.py": "",
            "paint/colours.py": "import paint.other\nflow = make(paint.other.NAME)",
            "paint/other.py": "NAME = {name!r}",
        },
    ),
}


@pytest.mark.parametrize(("target", "files"), LINES.values(), ids=LINES)
def test_what_changed_within_a_second_is_run_as_it_stands_and_not_as_it_was_compiled(
    target: str, files: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for name in ("red", "tan"):
        for file, line in files.items():
            text = (PIPELINE if "make" in line else "") + line.format(name=name) + "\n"
            os.utime(write(folder / file, text), (1_000_000_000,) * 2)
        assert names(target) == [name]
        for module in [one for one in sys.modules if one.partition(".")[0] in ("colours", "other", "paint")]:
            del sys.modules[module]


def test_what_is_imported_later_is_run_as_it_stands_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(folder / "paint" / "__init__.py", "")
    write(folder / "paint" / "colours.py", f"{PIPELINE}flow = make('red')\n")
    find_pipelines("paint.colours")
    for name in ("red", "tan"):
        os.utime(write(folder / "paint" / "later.py", f"NAME = {name!r}\n"), (1_000_000_000,) * 2)
        importlib.invalidate_caches()
        assert name == importlib.import_module("paint.later").NAME
        del sys.modules["paint.later"]


def test_the_hash_is_that_of_the_code_that_runs_whatever_stands_in_the_file_by_now(folder: Path) -> None:
    text = "from other import NAME\n" + PIPELINE + "flow = make(NAME)\n"
    write(folder / "other.py", "NAME = 'red'\n")
    [flow] = find_pipelines(str(write(folder / "colours.py", text)))
    ran = code_hash(flow)
    write(folder / "colours.py", text.replace("Empty()", "Begun()"))
    assert code_hash(flow) == ran
    del sys.modules["colours"]
    [flow] = find_pipelines("colours.py")
    assert code_hash(flow) != ran
