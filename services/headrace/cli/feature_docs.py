"""`headrace features list | show | who-uses | docs`: what the features of an app are, from its definitions alone; no server is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.output import Output

if TYPE_CHECKING:
    from headrace.definition import App

AppReference = Annotated[str, typer.Option("--app", help="The app, as module:attribute.")]
As = Annotated[Output, typer.Option(help="Text for people or JSON for programs.")]
Name = Annotated[str, typer.Argument(help="A view, a feature, an event feature, an event field or a topic.")]

Form = dict[str, Any]


def add_to(app: typer.Typer) -> None:
    """Give a command line these commands."""
    app.command("list")(list_features)
    app.command("show")(show)
    app.command("who-uses")(who_uses)
    app.command("docs")(docs)


def list_features(app_reference: AppReference, output: As = Output.TEXT) -> None:
    """List the views of an app and their features: name, window, pane, value when empty, bytes an entity, meaning."""
    from headrace.cli.feature_subjects import app_form

    form = app_form(_load(app_reference))
    _print(form, _listed(form), output)


def show(
    name: Annotated[str, typer.Argument(help="A view, a feature or an event feature.")],
    app_reference: AppReference,
    output: As = Output.TEXT,
) -> None:
    """Show one view or feature in full: definition, fingerprint, fields read, where they come from, pipelines that use it."""
    from headrace.cli.feature_subjects import named, whole_form

    definition = _load(app_reference)
    form = whole_form(definition, named(definition, name))
    _print(form, _shown(form), output)


def who_uses(name: Name, app_reference: AppReference, output: As = Output.TEXT) -> None:
    """Say which features, pipelines, models and prediction topics depend on a view, a feature, an event field or a topic."""
    from headrace.cli.feature_subjects import uses

    found = uses(_load(app_reference), name)
    _print(found, _uses(found), output)


def docs(
    app_reference: Annotated[str | None, typer.Option("--app", help="The app, as module:attribute; without it the catalogue.")] = None,
    output: As = Output.TEXT,
) -> None:
    """Print the features of an app as Markdown; without --app all aggregations and operators there are."""
    if app_reference is None:
        form = catalogue_form()
        _print(form, _catalogue(form), output)
        return
    from headrace.cli.feature_subjects import documented_form

    form = documented_form(_load(app_reference))
    _print(form, _documented(form), output)


def catalogue_form() -> Form:
    """Every aggregation and every operator of expressions, a line each."""
    from headrace.expression import OPERATORS
    from headrace.features.aggregation import CATALOGUE

    return {
        "aggregations": [
            {
                "name": one.name,
                "takes": "names of features" if one.takes == "features" else one.takes,
                "says": one.says.format_map(_Placeholders()),
                "promises": one.promises.format_map(_Placeholders()),
            }
            for one in CATALOGUE
        ],
        "operators": [
            {
                "written": one.written,
                "takes": "numbers or texts" if one.takes == "alike" else one.takes,
                "gives": one.gives,
                "says": one.says,
            }
            for one in OPERATORS.values()
        ],
    }


class _Placeholders(dict[str, str]):
    """What stands for the parameters of an aggregation where none is declared: their names."""

    def __missing__(self, name: str) -> str:
        return {"window": "the window", "half_life_ms": "half-life"}.get(name, f"`{name}`")


def _load(reference: str) -> App:
    from headrace.cli.definitions import load_app

    return load_app(reference)


def _print(form: object, lines: Iterator[str], output: Output) -> None:
    typer.echo(json.dumps(form, indent=2, ensure_ascii=False) if output is Output.JSON else "\n".join(lines))


# ------------------------------------------------------------------------------------------------- for people


def _listed(form: Form) -> Iterator[str]:
    rows = [("NAME", "WINDOW", "PANE", "EMPTY", "BYTES", "MEANING")]
    for view in form["views"]:
        about = f"version {view['version']}, of each {view['entity']}, from {view['source']}"
        rows.append((view["view"], "", "", "", f"{view['bytes_per_entity']:,}", about))
        rows += [(f"  {one['name']}", *_span_cells(one), "", one["description"]) for one in view["features"]]
    for pipeline in dict.fromkeys(one["pipeline"] for one in form["event_features"]):
        rows.append((pipeline, "", "", "", "", "event features of this pipeline"))
        own = [one for one in form["event_features"] if one["pipeline"] == pipeline]
        rows += [(f"  {one['name']}", "", "", "", "", one["description"]) for one in own]
    yield from _table(rows)
    yield "BYTES: the most that the state of one entity takes in the store"


def _span_cells(feature: Form) -> tuple[str, str, str]:
    empty = "absent" if feature["empty"] is None else f"{feature['empty']:g}"
    return feature["window"] or "-", feature["pane"] or "-", empty


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def _shown(form: Form) -> Iterator[str]:
    title = next(kind for kind in ("view", "feature", "event_feature") if isinstance(form.get(kind), str))
    yield f"{title.replace('_', ' ')} {form[title]}"
    if title == "view":
        yield f"  version      {form['version']}, of each {form['entity']}"
        yield f"  fingerprint  {form['fingerprint']}"
    else:
        yield f"  meaning      {form['description']}"
    if title == "feature":
        yield "  window       {}, pane {}, when empty {}".format(*_span_cells(form))
        view = form["view"]
        yield f"  view         {view['name']} version {view['version']}, of each {view['entity']}, fingerprint {view['fingerprint']}"
    if "definition" in form:
        yield f"  definition   {json.dumps(form['definition'], ensure_ascii=False)}"
    source = form["lineage"]
    keys = f"by {source['entity_key']} and {source['event_time']}, lateness {source['lateness']}"
    yield f"  from         {source['topic']} ({source['contract']}), {keys}"
    yield "  reads        " + (", ".join(_field(one) for one in form["fields"]) or "no field but key and time")
    yield from (f"  used by      {_pipeline(one)}" for one in form["used_by"])
    if title == "view":
        yield "  bytes        at most, an entity"
        yield from (f"    {number:>8,}  {part}" for part, number in form["bytes_per_entity"].items())
        yield "  features"
        yield from (f"    {one['name']}: {one['description']}" for one in form["features"])


def _field(form: Form) -> str:
    return f"{form['name']} ({form['kind']}{', may be absent' if form['optional'] else ''})"


def _pipeline(form: Form) -> str:
    model = f"model {form['model']}" if form["model"] else "no model"
    return f"pipeline {form['pipeline']}, {model}, to {form['predictions']}"


def _uses(found: Sequence[Form]) -> Iterator[str]:
    for one in found:
        yield f"{one['name']}: {one['is']}"
        yield from (f"  {feature}" for feature in one["features"])
        yield from (f"  {_pipeline(pipeline)}" for pipeline in one["pipelines"])
        if not one["features"] and not one["pipelines"]:
            yield "  nothing uses it"


# ------------------------------------------------------------------------------------------------- Markdown


def _documented(form: Form) -> Iterator[str]:
    yield f"# Features of {form['app']}"
    for view in form["views"]:
        source = view["lineage"]
        yield ""
        yield f"## {view['view']}, version {view['version']}"
        yield ""
        yield (
            f"Of each `{view['entity']}`, from `{source['topic']}` by event time `{source['event_time']}`, lateness {source['lateness']}. "
            f"At most {view['bytes_per_entity']:,} bytes an entity. Fingerprint `{view['fingerprint']}`."
        )
        yield "Used by " + ", ".join(f"`{one['pipeline']}`" for one in view["used_by"]) + "."
        yield ""
        rows = [(f"`{one['name']}`", *_span_cells(one), one["description"]) for one in view["features"]]
        yield from _markdown([("feature", "window", "pane", "when empty", "meaning"), *rows])
    for pipeline in dict.fromkeys(one["pipeline"] for one in form["event_features"]):
        yield from ("", f"## Event features of {pipeline}", "")
        own = [one for one in form["event_features"] if one["pipeline"] == pipeline]
        yield from _markdown([("feature", "meaning"), *((f"`{one['name']}`", _code(one["description"])) for one in own)])


def _catalogue(form: Form) -> Iterator[str]:
    yield from ("# Aggregations", "")
    aggregations = [(f"`hr.{one['name']}`", one["takes"], one["says"], one["promises"]) for one in form["aggregations"]]
    yield from _markdown([("word", "takes", "is the", "and"), *aggregations])
    yield from ("", "# Expressions", "")
    operators = [(_code(one["written"]), one["takes"], one["gives"], one["says"]) for one in form["operators"]]
    yield from _markdown([("written", "takes", "gives", "is"), *operators])


def _code(text: str) -> str:
    return f"`{text}`"


def _markdown(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    head, *body = rows
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    yield from ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body)
