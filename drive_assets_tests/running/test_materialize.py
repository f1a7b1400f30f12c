"""How the command materialises, on a small graph with the product's partitions: what runs, is left out, retried."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pytest

from drive_assets.partitions import ARCHITECTURE_PARTITIONS, RECORDINGS, SPLITS, register_recordings
from drive_assets.running.batches import Event, each_partition
from drive_assets.running.materialize import materialize
from drive_assets.running.run_config import check_config
from model.common.errors import DataError, PassingError

NAMES = ["2024-05-01_10-00-00", "2024-05-02_10-00-00"]
ONE = "simple_concat_lstm"


class Options(dg.Config):
    weights: str = ""


class Graph:
    """Assets that note what they make, and fail where `wrong[(asset, partition)]` holds errors."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str]] = []
        self.wrong: dict[tuple[str, str], list[BaseException]] = {}

    def work(self, asset: str, key: str) -> dg.MaterializeResult:
        if errors := self.wrong.get((asset, key)):
            raise errors.pop(0)
        self.made.append((asset, key))
        return dg.MaterializeResult()

    def repository(self) -> dg.RepositoryDefinition:
        def partitioned(name: str, partitions: dg.PartitionsDefinition, deps: Sequence[Any], tries: int = 0) -> Any:
            @dg.asset(
                name=name,
                deps=deps,
                partitions_def=partitions,
                backfill_policy=dg.BackfillPolicy.multi_run(10),
                retry_policy=dg.RetryPolicy(max_retries=tries),
            )
            def one(context: dg.AssetExecutionContext, config: Options) -> Iterator[Event]:
                yield from each_partition(context, lambda key: self.work(name, key))

            return one

        def single(name: str, deps: Sequence[Any]) -> Any:
            @dg.asset(name=name, deps=deps)
            def one() -> None:
                try:
                    self.work(name, "")
                except DataError as error:
                    raise dg.Failure(str(error), allow_retries=False) from error

            return one

        train = dg.SpecificPartitionsPartitionMapping(["train", "val"])
        assets = [
            partitioned("recording", RECORDINGS, [], tries=2),
            single("boxy_detector", []),
            partitioned("annotations", RECORDINGS, ["recording", "boxy_detector"]),
            single("split_manifest", ["annotations"]),
            partitioned("h5_split", SPLITS, ["split_manifest"]),
            partitioned("checkpoint", ARCHITECTURE_PARTITIONS, [dg.AssetDep("h5_split", partition_mapping=train)]),
            single("model_comparison", ["checkpoint"]),
        ]
        return dg.Definitions(assets).get_repository_def()


@pytest.fixture
def graph() -> Graph:
    return Graph()


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        register_recordings(instance, NAMES)
        instance.add_dynamic_partitions(str(RECORDINGS.name), ["../../../outside"])  # anybody can in the UI: left out
        yield instance


def run(
    graph: Graph, instance: dg.DagsterInstance, selection: str = "*", **options: Any
) -> tuple[bool, str, list[tuple[str, str]]]:
    """Whether it succeeded, what was reported, and what was made."""
    lines: list[str] = []
    ok = materialize(graph.repository(), instance, selection, architectures=[ONE], tell=lines.append, **options)
    return ok, "\n".join(lines), graph.made


def test_assets_downstream_of_a_failure_are_left_out_by_name(graph: Graph, instance: dg.DagsterInstance) -> None:
    graph.wrong["split_manifest", ""] = [DataError("too few recordings")]
    ok, reported, made = run(graph, instance, "split_manifest,checkpoint,model_comparison")
    assert (ok, made) == (False, [])  # h5_split between them was not selected, and its files are of older splits
    assert "too few recordings" in reported
    assert f"[2/3] checkpoint is left out for {ONE}: its inputs failed" in reported
    assert "[3/3] model_comparison is left out: its inputs failed" in reported


def test_nothing_is_made_from_what_a_blocking_check_refuses(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def split_manifest() -> None: ...

    @dg.asset_check(asset=split_manifest, blocking=True)
    def sound() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="a drive is in two splits")

    @dg.asset(deps=[split_manifest])
    def model_comparison() -> None:
        raise AssertionError("made from what was refused")

    lines: list[str] = []
    repository = dg.Definitions([split_manifest, model_comparison], asset_checks=[sound]).get_repository_def()
    assert not materialize(repository, instance, "*", tell=lines.append)
    reported = "\n".join(lines)
    assert "check sound: a drive is in two splits" in reported
    assert "[2/2] model_comparison is left out: its inputs failed" in reported


def test_the_same_doubt_about_many_partitions_is_one_line(instance: dg.DagsterInstance) -> None:
    @dg.asset(
        partitions_def=RECORDINGS,
        check_specs=[dg.AssetCheckSpec("bright", asset="recording", partitions_def=RECORDINGS)],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def recording(context: dg.AssetExecutionContext) -> Iterator[Event]:
        dark = {"bright": lambda key: dg.AssetCheckResult(passed=False, description=f"{key}: it is dark")}
        yield from each_partition(context, lambda key: dg.MaterializeResult(), dark)

    lines: list[str] = []
    repository = dg.Definitions([recording]).get_repository_def()
    assert materialize(repository, instance, "*", tell=lines.append)
    assert [line for line in lines if "dark" in line] == [f"  check bright: {', '.join(NAMES)}: it is dark"]


def test_a_failed_recording_affects_only_its_own_partitions(graph: Graph, instance: dg.DagsterInstance) -> None:
    graph.wrong["recording", NAMES[0]] = [DataError("row 2")]
    ok, reported, made = run(graph, instance)
    assert not ok and f"{NAMES[0]}: row 2" in reported
    assert f"annotations is left out for {NAMES[0]}" in reported
    splits = [("h5_split", name) for name in ("train", "val", "test")]
    assert sorted(made) == sorted(
        [
            ("recording", NAMES[1]),
            ("boxy_detector", ""),
            ("annotations", NAMES[1]),
            ("split_manifest", ""),
            *splits,
            ("checkpoint", ONE),
            ("model_comparison", ""),
        ]
    )


@pytest.mark.parametrize(("split", "is_trained"), [("train", False), ("test", True)])
def test_a_failed_split_affects_only_what_needs_it(
    graph: Graph, instance: dg.DagsterInstance, split: str, is_trained: bool
) -> None:
    graph.wrong["h5_split", split] = [DataError("disk full")]
    ok, _, made = run(graph, instance, "h5_split,checkpoint")
    assert not ok
    assert (("checkpoint", ONE) in made) == is_trained


def test_config_of_what_is_not_selected_is_named(graph: Graph, instance: dg.DagsterInstance) -> None:
    told: list[str] = []
    repository = graph.repository()
    keys = sorted(repository.asset_graph.get_all_asset_keys())
    check_config(repository, {key.to_user_string(): {} for key in keys[:2]}, keys[2:], told.append)
    names = ", ".join(key.to_user_string() for key in keys[:2])
    assert told == [f"Config ignored for assets that are not selected: {names}."]


def test_given_weights_replace_a_detector_that_fails(
    graph: Graph, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for own, config, expected in (
        ("", {}, []), ("", {"annotations": {"weights": "mine.pt"}}, NAMES), ("ours.pt", {}, NAMES)
    ):  # fmt: skip
        monkeypatch.setenv("DRIVE_ASSETS_WEIGHTS", own)
        graph.made.clear()
        graph.wrong["boxy_detector", ""] = [DataError("no images")]
        run(graph, instance, "recording,boxy_detector,annotations", config=config)
        assert [key for asset, key in graph.made if asset == "annotations"] == expected


def test_only_transient_failures_are_retried(
    graph: Graph, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    graph.wrong["recording", NAMES[0]] = [PassingError("busy"), PassingError("still busy")]
    ok, _, made = run(graph, instance, "recording")
    assert ok and made == [("recording", NAMES[1]), ("recording", NAMES[0])]
    assert capsys.readouterr().out.count("Retrying in 0 s, because that may succeed then") == 2
    graph.made.clear()
    graph.wrong["recording", NAMES[0]] = [KeyError("SPEED"), KeyError("SPEED")]
    ok, reported, made = run(graph, instance, "recording")
    assert (ok, made) == (False, [("recording", NAMES[1])])
    assert f"{NAMES[0]}: KeyError: 'SPEED'" in reported and "Retrying" not in capsys.readouterr().out


def test_an_interrupted_run_is_canceled_and_names_its_asset(graph: Graph, instance: dg.DagsterInstance) -> None:
    graph.wrong["recording", NAMES[1]] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        run(graph, instance, "recording")
    assert graph.made == [("recording", NAMES[0])]
    (last,) = instance.get_runs(limit=1)
    assert last.status == dg.DagsterRunStatus.CANCELED
    assert last.asset_selection == {dg.AssetKey("recording")}
