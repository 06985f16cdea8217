"""Recipes: overlays, assignments, strictness, explanations, and the way back to tables."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from electra import config
from electra.config import STRICT
from electra.errors import ElectraError


@dataclass(frozen=True, kw_only=True)
class Walk:
    """One way to go."""

    __pydantic_config__ = STRICT
    type: Literal["walk"] = "walk"
    pace: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Ride:
    """Another way to go."""

    __pydantic_config__ = STRICT
    type: Literal["ride"] = "ride"
    line: int

    def __post_init__(self) -> None:
        if self.line < 1:
            raise ElectraError("E-C999", "way.line", f"{self.line} is no line", "give 1 or more")


@dataclass(frozen=True, kw_only=True)
class Start:
    """A place."""

    __pydantic_config__ = STRICT
    place: Path
    from_: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Pause:
    """Nothing that must be given."""

    __pydantic_config__ = STRICT
    hours: float | None = None
    places: tuple[Start, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trip:
    """The recipe of these tests."""

    __pydantic_config__ = STRICT
    start: Start
    way: Annotated[Walk | Ride, Field(discriminator="type")]
    stops: dict[str, Walk] = field(default_factory=dict)
    days: int = 1
    names: tuple[str, ...] = ()
    home: bool = False
    hours: float | None = None


def load(*assignments: str, sources: tuple[str | Path, ...] = ()) -> Trip:
    return config.load(Trip, sources, ["start.place=here", "way=walk", *assignments])


def failure(*assignments: str, sources: tuple[str | Path, ...] = ()) -> ElectraError:
    with pytest.raises(ElectraError) as caught:
        load(*assignments, sources=sources)
    return caught.value


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- assignments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("days=3", "days", 3),
        ("days=1_000", "days", 1000),
        ("hours=0.5", "hours", 0.5),
        ("hours=2", "hours", 2.0),
        ("home=true", "home", True),
        ("names=['a', 'b=c']", "names", ("a", "b=c")),
        ("start.place=runs/first", "start.place", Path("runs/first")),
        ("start.place=C:\\new\\text", "start.place", Path("C:\\new\\text")),
        ("start.place='quoted name'", "start.place", Path("quoted name")),
        ("start.place=a=b", "start.place", Path("a=b")),
        ("start.place=模型/一", "start.place", Path("模型/一")),
        ("start.from=first/model", "start.from_", Path("first/model")),
        ("way.pace=4", "way.pace", 4.0),
        ("stops.lake.pace=1", "stops", {"lake": Walk(pace=1.0)}),
    ],
)
def test_the_value_of_an_assignment_is_toml_or_a_bare_word(assignment: str, path: str, value: object) -> None:
    found: Any = load(assignment)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value) or isinstance(found, Path)


@pytest.mark.parametrize("assignment", ["days", "=3", "start..place=x", ".days=1"])
def test_a_malformed_assignment_is_named(assignment: str) -> None:
    error = failure(assignment)
    assert error.code == "E-C003"
    assert error.where == assignment


def test_later_assignments_win() -> None:
    assert load("days=3", "days=4").days == 4


# -- files ---------------------------------------------------------------------------------------------------------------


def test_later_files_overlay_earlier_ones_and_assignments_come_last(tmp_path: Path) -> None:
    below = write(tmp_path / "below.toml", "days = 2\nhours = 1.0\n[way]\ntype = 'walk'\npace = 3\n[stops.lake]\npace = 1\n")
    above = write(tmp_path / "above.toml", "days = 5\n[stops.wood]\npace = 2\n")
    trip = load("hours=9", sources=(below, above))
    assert (trip.days, trip.hours, trip.way) == (5, 9.0, Walk(pace=3.0))
    assert trip.stops == {"lake": Walk(pace=1.0), "wood": Walk(pace=2.0)}


def test_extends_puts_another_recipe_below(tmp_path: Path) -> None:
    base = write(tmp_path / "base.toml", "days = 2\nhome = true\n")
    middle = write(tmp_path / "middle.toml", f"extends = '{base}'\ndays = 3\n")
    trip = load(sources=(write(tmp_path / "top.toml", f"extends = '{middle}'\nhours = 1\n"),))
    assert (trip.days, trip.home, trip.hours) == (3, True, 1.0)


def test_recipes_that_extend_each_other_are_an_error(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    write(one, f"extends = '{two}'\n")
    write(two, f"extends = '{one}'\n")
    error = failure(sources=(one,))
    assert error.code == "E-C002"
    assert "extends" in error.cause


def test_an_unknown_recipe_names_the_nearest() -> None:
    error = failure(sources=("modern-tinny",))
    assert error.code == "E-C001"
    assert "did you mean modern-tiny?" in error.fix


@pytest.mark.parametrize("content", [b"days = ", b"days = 1\ndays = 2\n", b"\xff\xfe"])
def test_broken_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    error = failure(sources=(path,))
    assert error.code == "E-C002"
    assert error.where == str(path)


# -- what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "where", "told"),
    [
        ("dais=3", "dais", "did you mean days?"),
        ("start.plase=x", "start.plase", "did you mean place?"),
        ("start.form=x", "start.form", "did you mean from?"),
        ("way.pase=3", "way.pase", "did you mean pace?"),
        ("stops.lake.pase=3", "stops.lake.pase", "did you mean pace?"),
        ("zzz=3", "zzz", "known here: start, way, stops"),
        ("way.line=3", "way.line", "known here: type, pace"),
        ("way=wlak", "way.type", "did you mean walk?"),
        ("way={type='fly'}", "way.type", "'fly' is not one of walk, ride"),
        ("way={type=fly}", "way", "{type=fly} is no table in TOML; put quotes around its strings"),
        ("way=ride", "way.line", "add way.line="),
        ("days=three", "days", "integer, got 'three'"),
        ("days=1.5", "days", "got 1.5"),
        ("days='1'", "days", "got '1'"),
        ("home=1", "home", "boolean"),
        ("start=here", "start", "got 'here'"),
        ("names=[1]", "names.0", "string"),
        ("stops.lake.pace=fast", "stops.lake.pace", "got 'fast'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(assignment: str, where: str, told: str) -> None:
    error = failure(assignment)
    assert error.code == "E-C004"
    assert error.where == where
    assert told in str(error)
    assert "\n" not in str(error)


def test_what_is_missing_is_named_to_the_first_setting() -> None:
    with pytest.raises(ElectraError) as caught:
        config.load(Trip, [], ["way=walk"])
    assert caught.value.code == "E-C004"
    assert caught.value.where == "start"
    assert "add start.place=" in caught.value.fix


def test_a_missing_table_whose_settings_are_all_optional_is_named_to_its_first_setting() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Longer(Trip):
        __pydantic_config__ = STRICT
        pause: Pause

    with pytest.raises(ElectraError) as caught:
        config.load(Longer, [], ["start.place=here", "way=walk"])
    assert caught.value.where == "pause"
    assert "add pause.hours=" in caught.value.fix


def test_a_check_of_the_recipe_itself_comes_through() -> None:
    error = failure("way={type='ride', line=0}")
    assert error.code == "E-C999"


def test_nothing_that_is_not_a_setting_is_accepted_in_its_place() -> None:
    assert failure("start.from_=x", "start.place_=y").code == "E-C004"


# -- variants ------------------------------------------------------------------------------------------------------------


def test_a_variant_may_be_given_by_its_name_alone() -> None:
    assert load("way=walk").way == Walk()
    assert load("way=ride", "way.line=3").way == Ride(line=3)


@dataclass(frozen=True, kw_only=True)
class Tour:
    """Walks, unless it is said that they are none."""

    __pydantic_config__ = STRICT
    ways: dict[str, Annotated[Walk | Ride, Field(discriminator="type"), config.DefaultType("walk")]]


def test_a_table_without_a_type_is_of_the_default_one() -> None:
    assert config.load(Tour, [], ["ways.first.pace=3.0"]).ways == {"first": Walk(pace=3.0)}
    assert config.load(Tour, [], ["ways.first={}", "ways.next={type='ride', line=2}"]).ways == {
        "first": Walk(),
        "next": Ride(line=2),
    }
    with pytest.raises(ElectraError, match=r"E-C004 ways\.first\.line: no such setting"):
        config.load(Tour, [], ["ways.first.line=2"])
    tour = config.load(Tour, [], ["ways.first.pace=3.0"])
    assert config.build(Tour, config.to_tree(tour)) == tour


def test_the_name_of_a_variant_keeps_the_settings_that_lie_below(tmp_path: Path) -> None:
    below = write(tmp_path / "below.toml", "[way]\ntype = 'walk'\npace = 3\n")
    assert config.load(Trip, [below], ["start.place=x", "way=walk"]).way == Walk(pace=3.0)


def test_another_variant_replaces_the_table_below_it(tmp_path: Path) -> None:
    below = write(tmp_path / "below.toml", "[way]\ntype = 'walk'\npace = 3\n")
    assert config.load(Trip, [below], ["start.place=x", "way={type='ride', line=2}"]).way == Ride(line=2)


# -- back to tables ------------------------------------------------------------------------------------------------------


def test_a_recipe_written_out_builds_the_same_recipe() -> None:
    trip = load("start.from=m", "way={type='ride', line=2}", "names=['x']", "stops.lake.pace=1")
    tree = config.to_tree(trip)
    assert tree["start"] == {"place": "here", "from": "m"}
    assert tree["way"] == {"type": "ride", "line": 2}
    assert config.build(Trip, json.loads(json.dumps(tree))) == trip


def test_fingerprints_do_not_change_unless_a_value_does() -> None:
    one = config.fingerprint(load("days=3", "start.from=m"))
    assert one == config.fingerprint(load("start.from=m", "days=3"))
    assert one == "89bcce36bc51d4b6ad92b10cb2cfa852"
    assert one != config.fingerprint(load("days=4", "start.from=m"))
    assert config.fingerprint({"a": 1, "b": 2}) == config.fingerprint({"b": 2, "a": 1})


def test_the_schema_for_editors_knows_the_variants_and_forbids_the_rest() -> None:
    schema = config.json_schema(Trip)
    assert set(schema["properties"]) == {each.name for each in dataclasses.fields(Trip)}
    assert schema["additionalProperties"] is False
    assert {"Walk", "Ride", "Start"} <= set(schema["$defs"])
    json.dumps(schema)


# -- properties ----------------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "c"])
trees = st.recursive(
    st.dictionaries(names, st.integers(0, 3), min_size=1),
    lambda below: st.dictionaries(names, below | st.integers(0, 3), min_size=1),
    max_leaves=8,
)


def paths(tree: config.Tree, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Every value of a tree that is not a table, by its path."""
    found: dict[tuple[str, ...], object] = {}
    for key, value in tree.items():
        found |= paths(value, (*prefix, key)) if isinstance(value, dict) else {(*prefix, key): value}
    return found


@given(below=trees, above=trees)
def test_merging_keeps_all_of_what_lies_above_and_what_it_does_not_hide(below: config.Tree, above: config.Tree) -> None:
    merged = paths(config.merge(below, above))
    upper = paths(above)
    assert {path: merged[path] for path in upper} == upper
    for path, value in paths(below).items():
        hidden = any(path[: len(other)] == other or other[: len(path)] == path for other in upper)
        assert hidden or merged[path] == value
    assert set(merged) <= set(upper) | set(paths(below))


@given(below=trees, middle=trees, above=trees)
def test_an_overlay_twice_is_an_overlay_once(below: config.Tree, middle: config.Tree, above: config.Tree) -> None:
    once = config.merge(config.merge(below, middle), above)
    assert config.merge(once, above) == once
    assert config.merge({}, below) == below == config.merge(below, {})


@given(
    days=st.integers(-5, 5),
    pace=st.floats(allow_nan=False, allow_infinity=False, width=32),
    line=st.none() | st.integers(1, 9),
)
def test_any_recipe_survives_the_way_through_json(days: int, pace: float, line: int | None) -> None:
    trip = Trip(
        start=Start(place=Path("x")),
        way=Walk(pace=pace) if line is None else Ride(line=line),
        stops={"s": Walk(pace=pace)},
        days=days,
    )
    assert config.build(Trip, json.loads(json.dumps(config.to_tree(trip)))) == trip


# -- origins -------------------------------------------------------------------------------------------------------------


def origins(*assignments: str, sources: tuple[str | Path, ...] = ()) -> dict[str, str]:
    given = ["start.place=here", *assignments]
    return config.origins(config.load(Trip, sources, given), sources, given)


def test_every_value_has_an_origin_and_the_last_one_that_gave_it_wins(tmp_path: Path) -> None:
    base = write(tmp_path / "base.toml", "days = 2\nhome = true\n[way]\ntype = 'walk'\npace = 3\n[stops.lake]\npace = 1\n")
    top = write(tmp_path / "top.toml", f"extends = '{base}'\ndays = 3\n[stops.wood]\npace = 1\n")
    trip = config.load(Trip, [top], ["start.place=here", "home=false"])
    found = origins("home=false", sources=(top,))
    assert list(found) == [".".join(keys) for keys in config.leaves(config.to_tree(trip))]
    assert found == {
        "start.place": "command line", "start.from": "default", "way.type": str(base), "way.pace": str(base),
        "stops.lake.type": "default", "stops.lake.pace": str(base), "stops.wood.type": "default", "stops.wood.pace": str(top),
        "days": str(top), "names": "default", "home": "command line", "hours": "default",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("below", "assignments", "expected"),
    [
        ("way = 'walk'", [], {"way.type": "file", "way.pace": "default"}),
        ("way = 'walk'", ["way.pace=2"], {"way.type": "file", "way.pace": "command line"}),
        ("way = {type = 'walk', pace = 2}", ["way=walk"], {"way.type": "command line", "way.pace": "file"}),
        ("way = {type = 'ride', line = 2}", ["way=walk"], {"way.type": "command line", "way.pace": "default"}),
        ("way = {type = 'walk', pace = 2}\n[stops]", [], {"way.type": "file", "stops": "file"}),
    ],
)
def test_short_forms_and_replaced_variants_have_the_origin_of_what_is_left(
    tmp_path: Path, below: str, assignments: list[str], expected: dict[str, str]
) -> None:
    file = write(tmp_path / "below.toml", below)
    found = origins(*assignments, sources=(file,))
    assert {path: found[path].replace(str(file), "file") for path in expected} == expected


@given(below=trees, above=trees)
def test_a_value_came_from_the_uppermost_layer_that_has_it(below: config.Tree, above: config.Tree) -> None:
    whole = config._Layer.of(below, "below").below(config._Layer.of(above, "above"))
    upper = paths(above)
    assert whole.origins == {keys: "above" if keys in upper else "below" for keys in paths(whole.tree)}


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A part of a journey, which does not know what it is called."""

    __pydantic_config__ = STRICT
    way: Annotated[Walk | Ride, Field(discriminator="type")] = field(default_factory=Walk)
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ElectraError("E-C999", "legs", f"share {self.share} is negative", "give 0 or more")
        if self.share > 1:
            raise ElectraError("E-C999", "share", f"{self.share} is too much", "give 1 or less")


@dataclass(frozen=True, kw_only=True)
class Legs:
    """Parts by name."""

    __pydantic_config__ = STRICT
    legs: dict[str, Leg]


@pytest.mark.parametrize(
    ("assignment", "where"),
    [
        ("legs.second.way={type='ride', line=0}", "legs.second.way.line"),
        ("legs.second.share=-1", "legs.second"),
        ("legs.second.share=2", "legs.second.share"),
    ],
)
def test_an_error_of_a_part_names_the_part(assignment: str, where: str) -> None:
    with pytest.raises(ElectraError) as caught:
        config.load(Legs, [], ["legs.first.share=0.5", "legs.second.share=0.5", assignment])
    assert caught.value.where == where
