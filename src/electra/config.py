"""TOML recipes -> a typed, frozen value, and back.

`load(cls, sources, assignments)` reads shipped recipes by name or TOML files, overlays them in order, applies `key=value`
assignments last, and validates the result strictly against `cls` (a frozen keyword-only dataclass, nested at will).
Alternatives are unions of dataclasses tagged by a literal field `type`; a bare string where such a union is expected means
`{type = string}`, and a table that names no type is what the union's `DefaultType` says, if it has one. An unknown key, a
wrong type or a field of another variant is an `ElectraError` that names the path and the nearest valid name. `origins` says of
every value which recipe, or the command line, it came from.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import keyword
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from electra.errors import ElectraError

T = TypeVar("T")
Tree = dict[str, Any]
Keys = tuple[str, ...]

#: dataclasses set this as `__pydantic_config__`, so that unknown keys are errors
STRICT = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class DefaultType:
    """In the annotation of a union of tagged dataclasses: the `type` of a table that names none."""

    name: str


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("electra") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"), key=lambda path: path.stem)}


def load(cls: type[T], sources: Sequence[str | Path], assignments: Sequence[str] = ()) -> T:
    """The recipe that `sources` and `assignments` describe.

    Args:
        cls: the dataclass to build.
        sources: shipped names or TOML files; later ones overlay earlier ones.
        assignments: `dotted.path=value`; the value is TOML, or a bare string.

    Raises:
        ElectraError: E-C001 unknown recipe, E-C002 broken TOML, E-C003 malformed assignment, E-C004 invalid value or key.
    """
    return build(cls, _overlay(sources, assignments).tree)


def tables(sources: Sequence[str | Path], assignments: Sequence[str] = ()) -> Tree:
    """Recipes and assignments laid over one another, as they were given: nothing is checked, no default is in it."""
    return _overlay(sources, assignments).tree


def origins(recipe: Any, sources: Sequence[str | Path], assignments: Sequence[str] = ()) -> dict[str, str]:
    """Where each value of a loaded recipe came from, by its dotted path.

    Args:
        recipe: what `load` made of `sources` and `assignments`.

    Returns:
        The name of a shipped recipe, a file, `command line`, or `default`; the paths in the order of `to_tree`.
    """
    given = _overlay(sources, assignments).origins
    return {
        ".".join(keys): given.get(keys) or given.get(keys[:-1] if keys[-1] == "type" else keys, "default")
        for keys in leaves(to_tree(recipe))
    }


@dataclass(frozen=True)
class _Layer:
    """Tables, and where each of their values came from."""

    tree: Tree = field(default_factory=dict)
    origins: dict[Keys, str] = field(default_factory=dict)

    @classmethod
    def of(cls, tree: Tree, name: str) -> _Layer:
        return cls(tree, dict.fromkeys(leaves(tree), name))

    def below(self, above: _Layer) -> _Layer:
        """`above` laid over this one."""
        tree, known = merge(self.tree, above.tree), dict[Keys, str]()
        for layer in (self, above):
            for keys, name in layer.origins.items():
                try:
                    value = leaf(tree, keys)
                except KeyError:
                    continue  # of another variant, which was replaced
                if isinstance(value, dict) and not isinstance(leaf(layer.tree, keys), dict):
                    if "type" not in value:
                        continue  # a table has taken its place
                    keys = (*keys, "type")  # it was the table's short form
                known[keys] = name
        return _Layer(tree, known)


def _overlay(sources: Sequence[str | Path], assignments: Sequence[str]) -> _Layer:
    whole = _Layer()
    for source in sources:
        whole = whole.below(_read(source))
    for assignment in assignments:
        whole = whole.below(_Layer.of(_parse_assignment(assignment), "command line"))
    return whole


def leaves(tree: Mapping[str, Any], above: Keys = ()) -> Iterator[Keys]:
    """The keys that lead to each value of a tree; an empty table is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key)


def leaf(tree: Mapping[str, Any], keys: Keys) -> Any:
    """The value that `keys` lead to.

    Raises:
        KeyError: they lead nowhere.
    """
    value: Any = tree
    for key in keys:
        if not isinstance(value, Mapping):
            raise KeyError(key)
        value = value[key]
    return value


def read(source: str | Path) -> Tree:
    """The tables of one shipped recipe or TOML file; `extends = "name"` puts another recipe below it.

    Args:
        source: name or file.
    """
    return _read(source).tree


def _read(source: str | Path, above: tuple[Path, ...] = ()) -> _Layer:
    """A recipe with those that it extends; `above` are the files that extend it."""
    known = shipped()
    path = known.get(str(source), Path(source))
    if not path.is_file():
        near = difflib.get_close_matches(str(source), known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ElectraError(
            "E-C001", str(source), "no shipped recipe and no file of this name", f"{hint}shipped: {', '.join(known)}"
        )
    if path in above:
        raise ElectraError("E-C002", str(path), "it extends itself through `extends`", "break the circle")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ElectraError("E-C002", str(path), f"not valid TOML: {error}", "mend the file") from None
    below, layer = tree.pop("extends", None), _Layer.of(tree, str(source))
    return _read(below, (*above, path)).below(layer) if below is not None else layer


def merge(below: Tree, above: Tree) -> Tree:
    """`above` laid over `below`, table by table. A table with another `type` replaces the one below it whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, dict) and "type" not in value:
            old = {"type": old}  # `task=classify task.labels=...`: the short form of a tagged table
        elif isinstance(value, str) and isinstance(old, dict) and "type" in old:
            value = {"type": value}
        another_variant = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) != old.get("type")
        )
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) and not another_variant else value
    return merged


def _parse_assignment(assignment: str) -> Tree:
    path, separator, text = assignment.partition("=")
    if not separator or not all(path.split(".")):
        raise ElectraError("E-C003", assignment, "not of the form key=value", "write for example run.dir=runs/first")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word or path: run.dir=runs/first
    tree: Any = value
    for name in reversed(path.split(".")):
        tree = {name: tree}
    return cast(Tree, tree)


def build(cls: type[T], tree: Mapping[str, Any]) -> T:
    """`tree` as a validated `cls`; see `load`."""
    expanded = _expand_short_forms(cls, dict(tree))
    try:
        return cast(T, _adapter(cls).validate_json(json.dumps(expanded, default=str)))
    except ValidationError as error:
        raise _explain(cls, expanded, error) from None
    except ElectraError as error:
        raise _placed(cls, expanded, error) from None


def to_tree(value: Any) -> Tree:
    """A recipe as plain JSON-ready tables, every field explicit."""
    return cast(Tree, _setting_names(_adapter(type(value)).dump_python(value, mode="json")))


def fingerprint(value: Any) -> str:
    """blake2b of the canonical JSON of a recipe, or of any JSON-ready value."""
    tree = to_tree(value) if dataclasses.is_dataclass(value) else value
    return hashlib.blake2b(json.dumps(tree, sort_keys=True, ensure_ascii=False).encode(), digest_size=16).hexdigest()


def json_schema(cls: type[Any]) -> Tree:
    """The JSON schema of a recipe, for editors."""
    return _adapter(cls).json_schema()


def _adapter(cls: Any) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:  # building one takes milliseconds
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


# -- short forms and explanations: what the dataclasses say about a path ------------------------------------------------


def _variants(annotation: Any) -> list[type[Any]]:
    """The dataclasses an annotation admits: itself, the members of a union, through Annotated and Optional."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _variants(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [variant for member in typing.get_args(annotation) for variant in _variants(member)]
    return [annotation] if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) else []


def _tag(cls: type[Any]) -> str | None:
    """The literal that field `type` of a variant is fixed to."""
    annotation = _annotations(cls).get("type")
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Literal else None


def _default_type(annotation: Any) -> str | None:
    metadata = getattr(annotation, "__metadata__", ())
    return next((each.name for each in metadata if isinstance(each, DefaultType)), None)


def _annotations(cls: Any) -> dict[str, Any]:
    return {name.rstrip("_"): hint for name, hint in typing.get_type_hints(cls, include_extras=True).items()}


def _choose(annotation: Any, value: Any) -> type[Any] | None:
    """The dataclass that `value` is meant to be."""
    variants = _variants(annotation)
    if isinstance(value, dict) and len(variants) > 1:
        return next((variant for variant in variants if _tag(variant) == value.get("type")), None)
    return variants[0] if len(variants) == 1 else None


def _expand_short_forms(annotation: Any, value: Any) -> Any:
    if isinstance(value, str) and any(_tag(variant) is not None for variant in _variants(annotation)):
        return {"type": value}
    if not isinstance(value, dict):
        return value
    if "type" not in value and (default := _default_type(annotation)) is not None:
        value = {"type": default, **value}
    if typing.get_origin(annotation) in (dict, Mapping):
        return {key: _expand_short_forms(typing.get_args(annotation)[1], item) for key, item in value.items()}
    if not _variants(annotation):
        return value  # a table whose keys are data
    chosen = _choose(annotation, value)
    known = _annotations(chosen) if chosen is not None else {}
    return {_field_name(key): _expand_short_forms(known[key], item) if key in known else item for key, item in value.items()}


def _field_name(key: str) -> str:
    """A setting called like a keyword of Python (`from`) is the field with an underscore behind it."""
    return f"{key}_" if keyword.iskeyword(key) else key


def _setting_names(value: Any) -> Any:
    """The reverse, all through a tree."""
    if isinstance(value, dict):
        return {_setting_name(key): _setting_names(item) for key, item in value.items()}
    return [_setting_names(item) for item in value] if isinstance(value, list) else value


def _setting_name(key: str) -> str:
    return key[:-1] if key.endswith("_") and keyword.iskeyword(key[:-1]) else key


def _explain(cls: type[Any], tree: Tree, error: ValidationError) -> ElectraError:
    """The first problem of a validation, with its dotted path and the nearest valid name."""
    problem = error.errors(include_url=False)[0]
    annotation: Any = cls
    value: Any = tree
    path: list[str] = []
    for place, part in enumerate(problem["loc"], start=1):
        names_the_problem = place == len(problem["loc"]) and problem["type"] in (*_UNKNOWN, *_MISSING)
        if not isinstance(value, dict | list) or (isinstance(value, dict) and part not in value and not names_the_problem):
            continue  # the tag of a union, which pydantic puts into the path
        path.append(str(part))
        if not names_the_problem:
            if typing.get_origin(annotation) in (dict, Mapping):
                annotation = typing.get_args(annotation)[1]
            elif typing.get_origin(annotation) is tuple:
                annotation = typing.get_args(annotation)[0]
            else:
                owner = _choose(annotation, value)
                annotation = _annotations(owner).get(str(part)) if owner else None
            value = value.get(part) if isinstance(value, dict) else value[part] if isinstance(part, int) else None
    where = ".".join(path).replace("from_", "from") or "recipe"
    owner = _choose(annotation, value)
    if problem["type"] in _UNKNOWN:
        names = list(_annotations(owner)) if owner else []
        near = difflib.get_close_matches(path[-1], names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"
        return ElectraError("E-C004", where, "no such setting", hint)
    if problem["type"] in _MISSING:
        in_list = any(part.isdigit() for part in path)  # no assignment reaches into a list
        missing = f"{path[-1]} = ... to that entry" if in_list else f"{_first_setting(where, owner)}=..."
        return ElectraError("E-C004", where, "is required and was not given", f"add {missing}")
    if problem["type"] in ("union_tag_invalid", "union_tag_not_found"):
        tags = [tag for variant in _variants(annotation) if (tag := _tag(variant))]
        given = value.get("type") if isinstance(value, dict) else value
        near = difflib.get_close_matches(str(given), tags, n=1)
        if str(given).startswith("{"):  # a shell has eaten the quotes
            return ElectraError("E-C004", where, f"{given} is no table in TOML",
                                "put quotes around its strings, and around the whole: 'a={type=\"b\"}'")  # fmt: skip
        return ElectraError("E-C004", ".".join([*path, "type"]), f"{given!r} is not one of {', '.join(tags)}",
                            f"did you mean {near[0]}?" if near else "choose one of them")  # fmt: skip
    return ElectraError("E-C004", where, f"{problem['msg']}, got {problem['input']!r}", "give a value of that kind")


def _placed(cls: type[Any], tree: Tree, error: ElectraError) -> ElectraError:
    """`error` with its whole path, where a table with a name of the user's (`phases.rtd`) raised it, which cannot know that."""
    for name, annotation in _annotations(cls).items() if dataclasses.is_dataclass(cls) else ():  # a union has no tables
        if typing.get_origin(annotation) in (dict, Mapping) and (path := _culprit(annotation, tree.get(name), error)):
            return ElectraError(error.code, _joined([name, *path], error.where), error.cause, error.fix)
    return error


def _culprit(annotation: Any, value: Any, error: ElectraError) -> list[str]:
    """The keys from `value` to the innermost table that raises `error` when it alone is built."""
    named = typing.get_origin(annotation) in (dict, Mapping)
    owner = None if named else _choose(annotation, value)
    known = _annotations(owner) if owner else {}
    for key, item in value.items() if isinstance(value, dict) else ():
        inner = typing.get_args(annotation)[1] if named else known.get(_setting_name(key))
        if not isinstance(item, dict) or not _variants(inner):
            continue
        try:
            _adapter(inner).validate_json(json.dumps(item, default=str))
        except ElectraError as found:
            if str(found) == str(error):
                return [_setting_name(key), *_culprit(inner, item, error)]
        except ValidationError:
            pass
    return []


def _joined(path: list[str], where: str) -> str:
    """`where`, as a table at `path` names it by its last keys or its own ones, as a whole path."""
    own = where.split(".")
    if path[: len(own)] == own:
        return ".".join(path)
    shared = next(size for size in range(min(len(path), len(own)), -1, -1) if path[len(path) - size :] == own[:size])
    return ".".join([*path, *own[shared:]])


def _first_setting(path: str, owner: type[Any] | None) -> str:
    """`path`, or the first setting of the table that is missing there, a required one if there is one: `corpus.path`."""
    name = path.rpartition(".")[2]
    variants = _variants(_annotations(owner).get(name)) if owner else []
    if len(variants) != 1 or _tag(variants[0]) is not None:
        return path
    fields = dataclasses.fields(variants[0])
    required = [
        field for field in fields if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return f"{path}.{(required or fields)[0].name}"
