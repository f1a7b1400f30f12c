"""All evaluated architectures side by side. The best is chosen on val; what it reaches is told on test."""

import base64
import csv
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.common.errors import DataError
from model.common.figures import png_bytes, save_png
from model.common.files import atomic_path, write_json, write_text
from model.evaluation.measures import blocks, bootstrap_average_precision, bootstrap_draws, interval
from model.evaluation.plots import comparison_figure

SCHEMA_VERSION = 1
COLUMNS = ("pr_auc", "roc_auc", "f1", "mcc", "balanced_accuracy", "brier", "calibration_error")
SAMPLES = 500


def compare(evaluations: Mapping[str, Mapping[str, Any]], output: Path) -> dict[str, Any]:
    """Compare evaluations (architecture -> content of metrics.json) and write comparison.{csv,html,json,png}.

    Variants are ranked by mean PR-AUC over the tasks on val: choosing by test would make the best one's test figures
    too good. The difference of each to the best has a paired interval: both are scored on the same resampled blocks of
    the predictions that lie beside `output` in `<architecture>/predictions_test.npz`.

    Raises:
        DataError: no evaluation, or evaluations of different data or tasks.
    """
    if not evaluations:
        raise DataError("No evaluation to compare: evaluate at least one architecture first.")
    for key in ("data_version", "tasks"):
        found = {name: str(evaluation[key]) for name, evaluation in evaluations.items()}
        if len(set(found.values())) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in sorted(found.items()))
            raise DataError(f"Evaluations differ in {key} ({listed}): train and evaluate all on the same splits.")
    first = next(iter(evaluations.values()))
    tasks: list[str] = list(first["tasks"])
    ranked = sorted(evaluations, key=lambda name: (-(evaluations[name]["val"]["mean_pr_auc"] or 0.0), name))
    best = ranked[0]
    differences = {name: _difference(output, name, best, tasks) for name in ranked}
    rows = [_row(name, rank, evaluations[name], tasks, differences[name]) for rank, name in enumerate(ranked, 1)]
    content = {
        "schema_version": SCHEMA_VERSION,
        "data_version": first["data_version"],
        "tasks": tasks,
        "best": best,
        "chosen_by": "mean PR-AUC on val",
        "variants": rows,
    }
    figure = comparison_figure(
        [{"architecture": row["architecture"], **{t: _point(row["test"][t]) for t in tasks}} for row in rows],
        tasks,
        best,
    )
    save_png(figure, output / "comparison.png")
    _write_csv(output / "comparison.csv", rows, tasks)
    write_text(output / "comparison.html", _page(content, png_bytes(figure, 300_000)))
    write_json(output / "comparison.json", content)
    return content


def _row(
    name: str, rank: int, evaluation: Mapping[str, Any], tasks: list[str], difference: dict[str, Any]
) -> dict[str, Any]:
    keys = (*COLUMNS, "pr_auc_interval", "random_pr_auc", "positives", "windows", "events")
    return {
        "rank": rank,
        "architecture": name,
        "val_mean_pr_auc": evaluation["val"]["mean_pr_auc"],
        "test_mean_pr_auc": evaluation["test"]["mean_pr_auc"],
        "test": {task: {key: evaluation["test"][task].get(key) for key in keys} for task in tasks},
        "difference_to_best": difference,
    }


def _point(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pr_auc": figures["pr_auc"],
        "interval": figures["pr_auc_interval"],
        "random": figures["random_pr_auc"],
    }


def _difference(output: Path, name: str, best: str, tasks: list[str]) -> dict[str, Any]:
    """Interval of the difference in PR-AUC to the best, by task; None where undefined or for the best itself."""
    paths = [output / variant / "predictions_test.npz" for variant in (name, best)]
    if name == best or not all(path.is_file() for path in paths):
        return dict.fromkeys(tasks)
    with np.load(paths[0]) as own, np.load(paths[1]) as other:
        if not np.array_equal(own["time_ms"], other["time_ms"]):
            raise DataError(f"{paths[0]} and {paths[1]} hold different windows: evaluate both again.")
        result: dict[str, Any] = {}
        block = blocks(own["time_ms"], own["recording"])
        draws = bootstrap_draws(block, SAMPLES, seed=0)
        for column, task in enumerate(tasks):
            known = own["known"][:, column]
            labels = own["labels"][known, column]
            if not labels.any():
                result[task] = None
                continue
            scores = [file["probabilities"][known, column] for file in (own, other)]
            resampled = [bootstrap_average_precision(labels, s, block[known], draws) for s in scores]
            result[task] = interval(resampled[0] - resampled[1])
    return result


def _write_csv(path: Path, rows: list[dict[str, Any]], tasks: list[str]) -> None:
    header = ["rank", "architecture", "val_mean_pr_auc", "test_mean_pr_auc"]
    header += [
        f"{task}_{column}" for task in tasks for column in (*COLUMNS, "pr_auc_low", "pr_auc_high", "random_pr_auc")
    ]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            cells = [row["rank"], row["architecture"], row["val_mean_pr_auc"], row["test_mean_pr_auc"]]
            for task in tasks:
                figures = row["test"][task]
                cells += [figures[column] for column in COLUMNS]
                cells += [*(figures["pr_auc_interval"] or (None, None)), figures["random_pr_auc"]]
            writer.writerow(["" if cell is None else cell for cell in cells])


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px}th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right}
th:nth-child(2),td:nth-child(2){text-align:left}thead th{position:sticky;top:0;background:#fff}
.interval{color:#666;font-size:11px;display:block}img{max-width:100%}"""


def _page(content: Mapping[str, Any], picture: bytes) -> str:
    """A page that stands alone: the figure, the table, and how to read them."""
    tasks, rows = content["tasks"], content["variants"]
    columns = ["val mean", "test mean", *tasks]
    values = [_mean_cells(row) + [row["test"][task]["pr_auc"] for task in tasks] for row in rows]
    tops = [max((v[i] for v in values if v[i] is not None), default=None) for i in range(len(columns))]
    lines = []
    for row, numbers in zip(rows, values, strict=True):
        cells = [_cell(number, number is not None and number == tops[i]) for i, number in enumerate(numbers[:2])]
        for i, task in enumerate(tasks, 2):
            cells.append(_cell(numbers[i], numbers[i] == tops[i], row["test"][task]["pr_auc_interval"]))
        lines.append(f"<tr><td>{row['rank']}</td><td>{html.escape(row['architecture'])}</td>{''.join(cells)}</tr>")
    random = "".join(_cell(rows[0]["test"][task]["random_pr_auc"], False) for task in tasks)
    head = "".join(f"<th scope='col'>{html.escape(column)}</th>" for column in columns)
    image = base64.b64encode(picture).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Comparison of architectures</title>
<style>{_STYLE}</style></head><body>
<h1>Comparison of {len(rows)} architectures</h1>
<p>Best by mean PR-AUC on <b>val</b>: <b>{html.escape(content["best"])}</b>. The figures below it are those on
<b>test</b>, which had no part in the choice. Data version <code>{html.escape(content["data_version"])}</code>.</p>
<img alt="PR-AUC on test with intervals by architecture and task" src="data:image/png;base64,{image}">
<h2>PR-AUC</h2>
<table><thead><tr><th scope="col">#</th><th scope="col">architecture</th>{head}</tr></thead>
<tbody>{"".join(lines)}
<tr><td></td><td>random (rate of positives)</td><td></td><td></td>{random}</tr></tbody></table>
<h2>Calibration and events</h2>
{_event_tables(rows, tasks)}
<p>At the threshold with the best F1 on val. An event is one braking or coasting; it is foreseen if an alarm comes
before it, at most its horizon and a second ahead. Lead is the median of the foreseen ones. Always alarming foresees
all: look at the share of time with an alarm too.</p>
<p>Small figures are 95 % intervals from resampling blocks of 30 s; bold is the highest of a column. Intervals that
overlap widely mean that the test split cannot tell two variants apart: see <code>difference_to_best</code> in
comparison.json, where both are scored on the same resamples.</p>
</body></html>
"""


EVENT_COLUMNS = ("calibration error", "Brier", "events foreseen", "lead, s", "false alarms an hour", "time with alarm")


def _event_tables(rows: list[dict[str, Any]], tasks: list[str]) -> str:
    """A table a task of what a driver would notice."""
    head = "".join(f"<th scope='col'>{column}</th>" for column in EVENT_COLUMNS)
    tables = []
    for task in tasks:
        lines = []
        for row in rows:
            figures = row["test"][task]
            events = figures["events"] or {}
            lead = events.get("lead_time_s")
            cells = [
                _text(figures["calibration_error"], ".3f"),
                _text(figures["brier"], ".3f"),
                f"{events['foreseen']} of {events['events']}" if events else "undefined",
                _text(lead[1] if lead else None, ".1f"),
                _text(events.get("false_alarms_per_hour"), ".1f"),
                _text(events.get("alarm_share"), ".1%"),
            ]
            columns = "".join(f"<td>{cell}</td>" for cell in cells)
            lines.append(f"<tr><td>{row['rank']}</td><td>{html.escape(row['architecture'])}</td>{columns}</tr>")
        tables.append(
            f"<h3>{html.escape(task)}</h3><table><thead><tr><th scope='col'>#</th><th scope='col'>architecture</th>"
            f"{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        )
    return "".join(tables)


def _text(value: float | None, form: str) -> str:
    return "undefined" if value is None else format(value, form)


def _mean_cells(row: Mapping[str, Any]) -> list[float | None]:
    return [row["val_mean_pr_auc"], row["test_mean_pr_auc"]]


def _cell(value: float | None, top: bool, limits: list[float] | None = None) -> str:
    if value is None:
        return "<td>undefined</td>"
    text = f"<b>{value:.3f}</b>" if top else f"{value:.3f}"
    band = f"<span class='interval'>{limits[0]:.3f} to {limits[1]:.3f}</span>" if limits else ""
    return f"<td>{text}{band}</td>"
