"""The pictures of the documentation, made anew from a data root such as the demo's: `make screenshots`."""

import argparse
import tempfile
from pathlib import Path

from drive_assets.partitions import recording_keys
from drive_assets.resources.storage import Storage
from drive_assets.running.instance import open_instance
from drive_assets_tests.browser.walk import Walk, browser, served
from model.common.errors import DataError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    storage = Storage.from_environment()
    with open_instance() as instance:
        names = recording_keys(instance)
    if not names or not (storage.evaluations / "comparison.html").is_file():
        raise DataError(f"{storage.root} holds no comparison: run the demo first (`make demo`).")
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, served() as urls, browser(Path(profile)) as driver:
        walk = Walk(driver, urls["dagster"], options.output)
        walk.graph()
        walk.materialize("recording", names[0], launch=False)
        walk.automation()
        walk.check("split_manifest", "balanced_splits", "balanced_splits")
        walk.plot("future_labels")
        walk.metadata("future_labels", names[0])
        walk.page(urls["reports"], "report_start")
        for page in (f"recording/{names[0]}", f"annotations/{names[0]}", "split_manifest", "model_comparison"):
            walk.page(f"{urls['reports']}/{page}", f"report_{page.split('/')[0]}")


if __name__ == "__main__":
    main()
