"""The sensor that follows Graph's list of changes and requests recordings once they are complete in the library."""

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.recordings import arrivals
from drive_assets.recordings.archives import open_archive
from drive_assets.recordings.arrivals import INTERVAL_S, Arrival, ArrivalRules, Tick
from drive_assets.recordings.files import listing, missing_files, taken_as
from drive_assets.recordings.sharepoint.drive_map import DriveMap, Entry, open_map
from drive_assets.recordings.sharepoint.library import SET_UP, Place, connect, find_place, settings_key
from drive_assets.recordings.sharepoint.source import SharePointSource, listing_of_zip
from drive_assets.resources.sharepoint.items import DeltaPage, Item, ResyncRequired, SharePointError, Throttled
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import error_text
from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.printable import printable
from model.recording.folder import TELEMETRY

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

MAX_RESYNCS = 2
"""Restarts of the list of changes within one tick."""
REFUSED_LINK = (400, 404)
"""What Graph answers, instead of 410, to a link that it no longer knows."""
SHARE_FOR_PAGES = 0.75
"""Of a tick's time; the rest is for the recordings in the pages."""
WRONG_NAME = "not named YYYY-MM-DD_HH-MM-SS"


@dataclass(frozen=True)
class Cursor:
    """The position in the library's list of changes. The links are Graph's, and opaque."""

    link: str | None = None
    page: int = 0
    """Number of the page in its round that `link` leads to."""
    is_whole: bool = False
    """Whether the last round ended: only then is the content of a folder known."""
    is_full: bool = False
    """Whether the round lists the whole library, not just changes."""
    generation: int = 0
    tick: int = 0
    landmark: str = ""
    """Fingerprint of an earlier link of the round: if it comes again, the links form a circle (Brent's algorithm)."""

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        return cls(**json.loads(text)) if text else cls()

    def after(self, page: DeltaPage) -> "Cursor":
        """The cursor after `page` was stored.

        Raises:
            DataError: the links form a circle.
        """
        if page.delta_link is not None:
            return replace(self, link=page.delta_link, page=0, is_whole=True, is_full=False, landmark="")
        link, number = fingerprint(page.next_link), self.page + 1
        if link == self.landmark:
            raise DataError(
                f"SharePoint's list of changes repeats at page {number}. The next tick tries again; if that does not "
                "help, launch the job sharepoint_reconciliation."
            )
        is_power_of_two = number & (number - 1) == 0
        return replace(self, link=page.next_link, page=number, landmark=link if is_power_of_two else self.landmark)


@dg.sensor(
    target=dg.AssetSelection.assets("recording"),
    minimum_interval_seconds=INTERVAL_S,
    # Where SharePoint is not set up, the sensor would report that every 30 s.
    default_status=(
        dg.DefaultSensorStatus.RUNNING if os.environ.get("SHAREPOINT_TENANT_ID") else dg.DefaultSensorStatus.STOPPED
    ),
    description=f"Requests recordings in SharePoint once they are complete and settled. On if set up. {SET_UP}",
)
def sharepoint_sensor(
    context: dg.SensorEvaluationContext, storage: Storage, arrival_rules: ArrivalRules
) -> dg.SensorResult | dg.SkipReason:
    """One run request for each complete, settled recording whose content was not requested yet."""
    settings = SharePointSettings.from_environment()
    if settings is None:
        return dg.SkipReason(f"SharePoint is not set up. {SET_UP}")
    storage.check_writable()
    started, tick = time.monotonic(), Tick(storage, arrival_rules)
    cursor = Cursor.parse(context.cursor)
    client = connect(settings, patience_s=arrival_rules.slice_s / 4)
    with open_map(storage) as known:
        try:
            place = known.place(settings_key(settings))
            if place is None:
                place = find_place(client, settings)
                known.set_place(place)
            deadline = started + SHARE_FOR_PAGES * arrival_rules.slice_s
            cursor = _read_changes(client, known, place, cursor, tick, deadline)
        except Throttled as error:
            return dg.SkipReason(f"{error} The next tick continues.")
        cursor = replace(cursor, tick=cursor.tick + 1)
        if cursor.is_whole:
            Scan(client, known, place, tick, cursor.tick, started + arrival_rules.slice_s).run()
        nothing = f"Nothing new in {place.label} ({known.size()} items)"
    return tick.result(context, json.dumps(asdict(cursor)), nothing)


def _read_changes(
    client: "GraphClient", known: DriveMap, place: Place, cursor: Cursor, tick: Tick, deadline: float
) -> Cursor:
    """Store the pages from the cursor on, until the round or the time ends; returns the new cursor.

    Raises:
        DataError: the first page failed, or the links form a circle. Dagster then keeps the cursor of the tick before.
    """
    known.undo_lost_ticks(cursor.tick)
    if cursor.generation != known.generation or not cursor.generation:
        cursor = _restart(known, cursor, None)
    pages = resyncs = 0
    while True:
        if cursor.is_whole:
            cursor = replace(cursor, page=0, is_whole=False)
        try:
            page = client.delta_page(place.drive, cursor.link)
        except SharePointError as error:
            is_outdated = isinstance(error, ResyncRequired) or (cursor.link and error.status in REFUSED_LINK)
            if is_outdated and resyncs < MAX_RESYNCS:
                resyncs += 1
                tick.note("restart(s) of the list of changes", str(error))
                cursor = _restart(known, cursor, getattr(error, "location", None))
                continue
            if pages == 0 or is_outdated:
                raise
            tick.warn("page not read, the next tick continues", str(error))
            return cursor
        deleted = known.apply(page.items, cursor.generation, arrivals.now())
        if page.delta_link is not None and cursor.is_full:
            deleted += known.end_full_round(cursor.generation)
        for name in sorted(set(deleted)):
            tick.warn("deleted in SharePoint, wholly or in part, and kept here", name)
        cursor = cursor.after(page)
        pages += 1
        if cursor.is_whole:
            return cursor
        if time.monotonic() > deadline:
            tick.note("round too long for one tick", f"{cursor.page} pages read so far, the next tick continues")
            return cursor


def _restart(known: DriveMap, cursor: Cursor, link: str | None) -> Cursor:
    generation = known.begin_full_round(cursor.generation)
    return replace(cursor, link=link, page=0, is_whole=False, is_full=True, generation=generation, landmark="")


@dataclass(frozen=True)
class Scan:
    """A tick's scan of all folders and zips that changed and are not settled."""

    client: "GraphClient"
    known: DriveMap
    place: Place
    tick: Tick
    number: int
    deadline: float

    def run(self) -> None:
        if not self.known.has(self.place.folder):
            self.known.set_place(None)
            self.tick.warn("watched folder not found", f"the next tick looks for {self.place.label} again")
            return
        settled, entries = [], self.known.pending(self.place.folder)
        for number, entry in enumerate(entries):
            if self.tick.is_full or time.monotonic() > self.deadline:
                self.tick.note("left for the next tick", f"{len(entries) - number} folders and zips")
                break
            try:
                if self._is_settled(entry):
                    settled.append(entry.id)
            except Exception as error:  # a failure of one does not stop the others
                self.tick.note("not read", f"{entry.path}: {error_text(error)}")
        self.known.settle(settled)

    def _is_settled(self, entry: Entry) -> bool:
        """Whether nothing more is to be done until the entry changes."""
        if not entry.path:
            for name in self.known.requested_names(entry.id):
                self.tick.warn("moved out of the folder and kept here", name)
            return True
        return self._scan_folder(entry) if entry.is_folder else self._scan_zip(entry)

    def _scan_folder(self, entry: Entry) -> bool:
        content = self.known.content(entry.id)
        names = [name for name, _ in content.files]
        if not is_recording_name(entry.name):
            has_telemetry = TELEMETRY in map(taken_as, names)
            if has_telemetry:
                self.tick.note(WRONG_NAME, entry.path)
            return not has_telemetry
        requested, number = self.known.requested(entry.id, entry.name)
        if requested and not content.is_changed:
            return True
        if missing_files(names):
            self.tick.note("not complete", f"{entry.path} lacks {missing_files(names)}")
            return False
        if not self._is_ready(entry, max(entry.seen, content.seen), content.malware):
            return False
        identity, sizes = fingerprint(content.versions), listing(content.files)
        return self._request(entry, entry.name, None, number, identity, sizes, sizes)

    def _scan_zip(self, entry: Entry) -> bool:
        if not self._is_ready(entry, entry.seen, entry.malware):
            return False
        found = json.loads(self.known.archive(entry.id, entry.version) or self._read_zip(entry))
        if isinstance(found, str):
            self.tick.note("refused", found)
            return False
        done = True
        for name, folder, sizes, missing in found:
            requested, number = self.known.requested(entry.id, name)
            if requested == entry.version:
                continue
            if not is_recording_name(name):
                self.tick.note(WRONG_NAME, f"{name} in {entry.path}")
            elif missing:
                self.tick.note("not complete", f"{name} in {entry.path} lacks {missing}")
            elif self._request(entry, name, folder, number, entry.version, listing_of_zip(entry.size), sizes):
                continue
            done = False
        return done

    def _read_zip(self, entry: Entry) -> str:
        """JSON, also stored in the map: the recordings of a zip, or why it is refused. Reads only its directory."""
        item = Item(entry.id, entry.name, None, entry.size, False, False, None, None, None)
        found: list[tuple[str, str, str, str]] = []
        refused = ""
        try:
            with (
                self.client.open(self.place.drive, item) as stream,
                open_archive(stream, self._location(entry)) as archive,
            ):
                for name, folder in archive.recordings().items():
                    files = archive.files(folder)
                    found.append((name, folder, listing(files), missing_files([file for file, _ in files])))
            if not found and is_recording_name(entry.name[: -len(".zip")]):
                refused = f"{entry.path} has no {TELEMETRY}"
        except SharePointError:
            raise
        except DataError as error:
            refused = str(error)
        text = json.dumps(refused or found)
        self.known.store_archive(entry.id, entry.version, text)
        return text

    def _request(
        self, entry: Entry, name: str, member: str | None, number: int, identity: str, sizes: str, file_sizes: str
    ) -> bool:
        """Request a recording; returns whether its name is free.

        Args:
            number: earlier requests of it, so that content that returns is requested again.
            sizes: identity of the item by name and size; `file_sizes` that of the recording's files.
        """
        source = SharePointSource(
            name, self._location(entry), member, self.place.drive, entry.id, sizes, identity=identity
        )
        key = f"{entry.id}:{fingerprint(name, identity, number)}"  # a renamed recording is another one
        if not self.tick.request(Arrival(source, key, file_sizes)):
            return False
        self.known.record_request(entry.id, name, entry.version, self.number)
        return True

    def _is_ready(self, entry: Entry, seen: float, malware: bool) -> bool:
        # By the time that the sensor saw the change: upload tools keep the times of files, and clocks differ.
        if not self.tick.is_settled(entry.path, seen):
            return False
        if malware:
            self.tick.note("refused", f"{entry.path}: SharePoint reports malware in it")
        return not malware

    def _location(self, entry: Entry) -> str:
        return printable(f"sharepoint:{self.place.label}/{entry.path}")
