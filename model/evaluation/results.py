"""The contents of metrics.json and comparison.json as frozen, typed objects for writers and readers."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from model.common.errors import DataError
from model.common.files import write_json
from model.evaluation.config import EvaluationConfig

SCHEMA_VERSION = 3
EVALUATION, COMPARISON, CALIBRATION = "metrics.json", "comparison.json", "calibration.json"
REPORT, EVENTS = "report.html", "events.csv"
SHOWN_FIGURES = ("pr_auc", "roc_auc", "f1", "mcc", "balanced_accuracy", "brier", "calibration_error")
"""Fields of `TaskFigures` in the comparison's CSV file and in MLflow."""
FEW_EVENTS = 20
"""With fewer events of a task, a test split can hardly distinguish two models."""
Interval = tuple[float, float]


class Result(BaseModel):
    """Base of the objects stored as JSON files. Undefined figures are None, never NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def write(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote. DataError if it is missing, damaged or of another version."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"{path} is missing: evaluate first.") from None
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in problem["loc"])
            raise DataError(
                f"{path} is damaged or of another version: {place} {problem['msg']}; evaluate again."
            ) from None


class OnsetFigures(Result):
    """Figures over the windows at whose last frame the action is not under way: only what has to be foreseen."""

    windows: int
    positives: int
    positive_rate: float | None
    """The PR-AUC of random guessing"""
    pr_auc: float | None
    pr_auc_interval: Interval | None
    roc_auc: float | None
    roc_auc_interval: Interval | None
    matched_pr_auc: float | None = None
    """PR-AUC against matched negatives: moments of the same kind of scene without the action"""


class AlarmThreshold(Result):
    """The threshold chosen on val for a budget of false alarms per hour."""

    budget: float | None
    """None: not chosen for a budget but by the best F1"""
    on: float | None
    """An alarm starts at or above it; None if no threshold keeps the budget, for `reason`"""
    off: float | None
    """An alarm ends below it"""
    reason: str | None = None


class RecallAtLead(Result):
    """Share of events with an alarm at least `lead_s` before the onset."""

    lead_s: float
    recall: float | None
    interval: Interval | None


class AlarmFigures(Result):
    """What a threshold reaches; terms as in `model.evaluation.events`."""

    threshold: AlarmThreshold
    events: int
    foreseen: int
    recall: float | None
    recall_interval: Interval | None
    lead_time_s: list[float] | None
    """Quartiles; None for fewer than four foreseen events"""
    recall_at_lead: list[RecallAtLead]
    brake_force_foreseen: float | None
    """Median of the events' highest braking force (share of 9.81 m/s2); None for fewer than four known values"""
    brake_force_missed: float | None
    alarms: int
    false_alarms: int
    false_alarms_per_hour: float | None
    false_alarms_per_hour_interval: Interval | None
    false_alarms_per_100_km: float | None
    hours: float
    km: float | None
    """None if the split lacks the speed"""


class CurvePoint(Result):
    """Rate of false alarms and share of events foreseen at one threshold."""

    false_alarms_per_hour: float
    foreseen: float


class Slice(Result):
    """Onset figures of a part of the windows."""

    by: str
    """speed, traffic or recording"""
    part: str
    onset: OnsetFigures


class TaskFigures(Result):
    """Figures of one task on one split. Those at a threshold are None if val gave none."""

    windows: int
    positives: int
    positive_rate: float | None
    pr_auc: float | None
    roc_auc: float | None
    brier: float | None
    calibration_error: float | None
    """Of the calibrated probabilities, like all figures here"""
    uncalibrated_error: float | None
    threshold: float | None
    """The one with the best F1 on val"""
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    mcc: float | None = None
    balanced_accuracy: float | None = None
    tp: int | None = None
    fp: int | None = None
    fn: int | None = None
    tn: int | None = None
    pr_auc_interval: Interval | None
    random_pr_auc: float | None
    events: AlarmFigures | None
    """At `threshold`"""
    onset: OnsetFigures
    alarms: list[AlarmFigures]
    """One per budget"""
    alarm_curve: list[CurvePoint]
    slices: list[Slice]

    @property
    def event_count(self) -> int:
        return self.alarms[0].events

    @property
    def hours(self) -> float:
        return self.alarms[0].hours


class SplitFigures(BaseModel):
    """Figures of a split: means over its tasks, and each task by name."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, TaskFigures]

    mean_pr_auc: float | None
    mean_onset_pr_auc: float | None

    def __getitem__(self, task: str) -> TaskFigures:
        return self.__pydantic_extra__[task]

    @classmethod
    def of(cls, tasks: dict[str, TaskFigures]) -> Self:
        figures: dict[str, Any] = dict(tasks)
        figures["mean_pr_auc"] = _mean_of_defined(task.pr_auc for task in tasks.values())
        figures["mean_onset_pr_auc"] = _mean_of_defined(task.onset.pr_auc for task in tasks.values())
        return cls(**figures)


class Difference(Result):
    """Paired intervals of the difference in PR-AUC on test between two models; None if undefined."""

    tasks: dict[str, Interval | None]
    onset_tasks: dict[str, Interval | None]
    mean: Interval | None
    onset_mean: Interval | None

    @property
    def better(self) -> bool:
        return self.mean is not None and self.mean[0] > 0

    @property
    def better_onset(self) -> bool:
        return self.onset_mean is not None and self.onset_mean[0] > 0


class Importance(Result):
    """What a network loses when one of its inputs is exchanged between windows."""

    input: str
    """A channel, or `detections` for all boxes"""
    loss: Difference
    """Before minus after: above zero if the network uses the input"""


class Evaluation(Result):
    """The content of metrics.json."""

    schema_version: int
    architecture: str
    data_version: str
    epoch: int | None
    """None for a baseline"""
    recipe: str = ""
    """Name of the recipe, with changed options; empty for a baseline"""
    evaluation_config: EvaluationConfig
    tasks: list[str]
    val: SplitFigures
    test: SplitFigures
    importances: list[Importance] = []
    camera: str | None = None
    """One sentence on whether the network uses the detections; None if that was not measured"""


class Row(Result):
    """One row of the comparison: a network or a baseline."""

    rank: int
    architecture: str
    recipe: str
    val_mean_pr_auc: float | None
    test_mean_pr_auc: float | None
    val_mean_onset_pr_auc: float | None
    test_mean_onset_pr_auc: float | None
    test: dict[str, TaskFigures]
    difference_to_best: dict[str, Interval | None]
    """By task, the paired interval of the difference in PR-AUC; None if undefined or for the best itself"""
    difference_to_baseline: Difference | None
    """To the best baseline; None for a baseline, or without baselines"""
    beats_baseline: bool | None
    """Whether the interval of the difference in mean PR-AUC to the best baseline lies above zero"""
    beats_baseline_onset: bool | None
    """The same at onsets, to the baseline that is best there"""
    network_ms: float | None = None
    """Time of a window on one core in its bundle for the car; None without a bundle of this checkpoint"""


class Comparison(Result):
    """The content of comparison.json."""

    schema_version: int
    data_version: str
    tasks: list[str]
    best: str
    chosen_by: str
    missing: dict[str, str]
    """Architectures that are not compared, with the reason"""
    variants: list[Row]
    baselines: list[Row]
    best_baseline: str | None
    """By mean PR-AUC on val"""
    best_onset_baseline: str | None
    """By mean PR-AUC at onsets on val"""
    camera: str | None


def _mean_of_defined(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


ARMS = ("untouched", "reviewed", "random")
"""Train as it was, as reviewed, and with the same weights on windows drawn at random."""
REVIEW_GAIN = "review_gain.json"


class ArmFigures(Result):
    """What one arm reaches on test; means over seeds."""

    windows: int
    """Of train"""
    foreseen: float | None
    """Share of the onsets of all tasks, at equal false alarms an hour"""
    onset_pr_auc: float | None


class ReviewGain(Result):
    """The content of review_gain.json: whether a review of train helps."""

    data_version: str
    predictor: str
    seeds: int
    false_alarms_per_hour: float
    changed: int
    """Windows of train that tags leave out or weigh; if none, nothing is compared"""
    arms: dict[str, ArmFigures]
    foreseen: dict[str, Interval | None]
    """Paired interval of reviewed minus each other arm, of the share of onsets that are foreseen"""
    onset_pr_auc: dict[str, Interval | None]
    """The same of the mean PR-AUC at onsets"""

    @property
    def verdict(self) -> str:
        if not self.changed:
            return "No tag changes train: there is nothing to compare"
        gains = [each is not None and each[0] > 0 for each in self.foreseen.values()]
        losses = [each is not None and each[1] < 0 for each in self.foreseen.values()]
        if all(gains):
            return "The review is shown to help: more onsets are foreseen than without it, and than by chance"
        return "The review is shown to do harm" if all(losses) else "The review is not shown to help"
