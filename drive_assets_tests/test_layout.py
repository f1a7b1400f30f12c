"""Which room may import which; imports inside functions count too."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODEL_ROOMS = (
    "common",
    "recording",
    "imports",
    "detection",
    "annotation",
    "dataset",
    "network",
    "training",
    "evaluation",
    "exports",
    "bundle",
)
"""In the order in which data flows: a room imports itself and the rooms before it."""
EXCEPTIONS = {("model.training", "model.factory"), ("model.training", "model.evaluation.measures")}
"""A checkpoint builds its network by name; training computes the measures of the evaluation."""
GLUE_ROOMS = (
    "recordings",
    "detection",
    "annotation",
    "labels",
    "splits",
    "training",
    "evaluation",
    "predictions",
    "car",
)
RESOURCES = "resources"
STARTS = ("cli", "commands", "definitions")
"""Modules that assemble everything: only those that start a process import them."""
HEAVY = ("torch", "ultralytics", "mlflow", "msal", "sklearn")


def modules(package: str) -> dict[str, Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(path: Path, types: bool = True) -> Iterator[str]:
    """Names of the modules that a file imports; for `from a import b` both a and a.b, because b may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if not types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(package: str, types: bool = True) -> list[tuple[str, str]]:
    """Pairs (module, import) of all modules in a package."""
    return [(name, other) for name, path in modules(package).items() for other in imports(path, types)]


def test_model_imports_nothing_of_drive_assets() -> None:
    foreign = ("dagster", "dagster_pipes", "mlflow", "msal", "drive_assets", "drive_assets_tests")
    assert [pair for pair in imported("model") if pair[1].split(".")[0] in foreign] == []


def test_rooms_of_model_import_earlier_rooms_only() -> None:
    assert {path.name for path in (ROOT / "model").iterdir() if (path / "__init__.py").is_file()} == set(MODEL_ROOMS)
    wrong = []
    for name, other in imported("model"):
        room, parts = name.split(".")[1:2], other.split(".")
        if parts[0] != "model" or len(parts) < 2 or not room or room[0] not in MODEL_ROOMS:
            continue  # another package, or factory, which may import all rooms
        if any(name.startswith(room_) and other.startswith(allowed) for room_, allowed in EXCEPTIONS):
            continue
        if parts[1] not in MODEL_ROOMS or MODEL_ROOMS.index(parts[1]) > MODEL_ROOMS.index(room[0]):
            wrong.append((name, other))
    assert wrong == []


def test_rooms_of_drive_assets_import_neither_later_rooms_nor_tests_nor_what_assembles_them() -> None:
    wrong = []
    for name, other in imported("drive_assets"):
        room, parts = name.split(".")[1:2], other.split(".")
        if parts[0] in ("drive_assets_tests", "benchmarks"):
            wrong.append((name, other))
        if parts[0] != "drive_assets" or len(parts) < 2:
            continue
        if parts[1] in STARTS and name.split(".")[1] not in STARTS:
            wrong.append((name, other))
        if not room or parts[1] not in GLUE_ROOMS:
            continue
        is_later = room[0] in GLUE_ROOMS and GLUE_ROOMS.index(parts[1]) > GLUE_ROOMS.index(room[0])
        if is_later or room[0] == RESOURCES:
            wrong.append((name, other))
    assert wrong == []


def test_the_root_holds_few_modules() -> None:
    """Only modules that people look for there; others belong to a room."""
    assert len([path for path in (ROOT / "drive_assets").glob("*.py") if path.name != "__init__.py"]) <= 15


def test_no_circles() -> None:
    """Imports inside functions count; those of types alone do not."""
    known = modules("drive_assets") | modules("model")
    after = {name: {other for other in imports(path, types=False) if other in known} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a circle: {' -> '.join((*above[above.index(name) :], name))}"
        if name not in done:
            for other in after[name] - {name}:
                visit(other, (*above, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_the_simulator_imports_neither_dagster_nor_training() -> None:
    allowed = ("model.common", "model.recording", "drive_assets.simulation")
    ours = [(name, other) for name, other in imported("drive_assets.simulation".replace(".", "/"))]
    assert ours
    wrong = [
        pair
        for pair in ours
        if pair[1].split(".")[0] in ("dagster", "torch", "mlflow")
        or (pair[1].split(".")[0] in ("model", "drive_assets") and not pair[1].startswith(allowed))
    ]
    assert wrong == []


def test_only_sharepoint_mentions_sharepoint() -> None:
    """Modules about SharePoint have it in their names; no others mention it, except what lists the kinds."""
    table = (
        "drive_assets.recordings.sources",
        "drive_assets.recordings.definitions",
        "drive_assets.cli",
        "drive_assets.commands.recordings",
    )
    wrong = {
        name
        for name, path in modules("drive_assets").items()
        if "sharepoint" not in name and name not in table and ("sharepoint" in path.read_text(encoding="utf-8").lower())
    }
    assert wrong == set()


@pytest.mark.parametrize("package", ["model", "drive_assets", "drive_assets_tests"])
def test_init_files_are_empty(package: str) -> None:
    """Except for a docstring, and for drive_assets, which filters warnings before assets are defined."""
    for name, path in modules(package).items():
        if path.name == "__init__.py" and name not in ("drive_assets", "drive_assets_tests.graph_server"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), path


def test_the_code_server_imports_no_heavy_library() -> None:
    code = (
        "import sys; from drive_assets.definitions import defs; defs.resolve_implicit_global_asset_job_def(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_services_write_no_files_for_other_users() -> None:
    units = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
    assert units and all("\nUMask=0027\n" in unit.read_text() for unit in units)
