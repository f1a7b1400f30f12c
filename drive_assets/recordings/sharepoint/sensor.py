"""Recordings that arrive by themselves in a SharePoint library, noticed by a delta cursor."""

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.recordings import arrivals
from drive_assets.recordings.archives import listing, open_archive, taken_as
from drive_assets.recordings.arrivals import INTERVAL_S, Arrival, ArrivalRules, Tick, age_text, key_of, rival
from drive_assets.recordings.sharepoint.downloads import listing_of_zip
from drive_assets.recordings.sharepoint.drive_map import DriveMap, Entry, open_map
from drive_assets.recordings.sharepoint.library import SET_UP, Place, connect, find_place, settings_key
from drive_assets.recordings.sharepoint.source import SharePointSource
from drive_assets.recordings.sources import missing
from drive_assets.resources.sharepoint.items import DeltaPage, Item, ResyncRequired, SharePointError, Throttled
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import told
from model.common.config import fingerprint
from model.common.errors import DataError
from model.recording.folder import TELEMETRY

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

MOST_RESYNCS = 2
REFUSALS = (400, 404)
"""What the service says to a link that it has forgotten; also to one of a library that cannot be reached for now."""
MOST_REFUSALS = 5
"""Ticks in a row that a link is refused before all is listed anew."""
SHARE_FOR_PAGES = 0.75
"""Of a tick's time; the rest is for looking at what the pages brought."""


@dataclass(frozen=True)
class Cursor:
    """Where in the library's changes the next tick goes on. The links are Graph's, and opaque."""

    link: str | None = None
    page: int = 0
    """Number of the page in its round that `link` leads to."""
    is_whole: bool = False
    """Whether the last round came to its end: only then is it known what a folder holds."""
    is_full: bool = False
    """Whether the round lists the whole library, not just changes."""
    generation: int = 0
    tick: int = 0

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        return cls(**json.loads(text)) if text else cls()


@dg.sensor(
    target=dg.AssetSelection.assets("recording"),
    minimum_interval_seconds=INTERVAL_S,
    # Where it is not set up it would say so every 30 s, for ever.
    default_status=(
        dg.DefaultSensorStatus.RUNNING if os.environ.get("SHAREPOINT_TENANT_ID") else dg.DefaultSensorStatus.STOPPED
    ),
    description=f"Takes recordings from SharePoint once they are complete and settled. On where it is set up. {SET_UP}",
)
def sharepoint_sensor(
    context: dg.SensorEvaluationContext, storage: Storage, arrival_rules: ArrivalRules
) -> dg.SensorResult | dg.SkipReason:
    """One run request for each complete, settled recording whose content was not requested yet."""
    settings = SharePointSettings.from_environment()
    if settings is None:
        return dg.SkipReason(f"SharePoint is not set up. {SET_UP}")
    storage.check_writable()
    started, tick = time.monotonic(), Tick(arrival_rules)
    cursor = Cursor.parse(context.cursor)
    client = connect(patience_s=arrival_rules.slice_s / 4)
    with open_map(storage) as known:
        try:
            place = known.place(settings_key(settings)) or _find_place(client, settings, known)
            cursor = _read_changes(
                client, known, place, cursor, tick, started + SHARE_FOR_PAGES * arrival_rules.slice_s
            )
        except Throttled as error:
            return dg.SkipReason(f"{error} The next tick goes on.")
        cursor = replace(cursor, tick=cursor.tick + 1)
        if cursor.is_whole:
            _Look(client, known, place, storage, tick, cursor.tick, started + arrival_rules.slice_s).look()
        nothing = f"Nothing new in {place.label} ({known.size()} items known)"
    return tick.result(context, storage, json.dumps(asdict(cursor)), nothing)


def _find_place(client: "GraphClient", settings: SharePointSettings, known: DriveMap) -> Place:
    place = find_place(client, settings)
    known.set_place(place)
    return place


def _read_changes(
    client: "GraphClient", known: DriveMap, place: Place, cursor: Cursor, tick: Tick, deadline: float
) -> Cursor:
    """Take over the pages from the cursor on, until the round or the time ends; returns where to go on.

    Raises:
        DataError: the first page failed, or the service leads in a circle. The cursor that Dagster keeps stays.
    """
    known.confirm(cursor.tick)
    if cursor.generation != known.generation or known.wants_full_round or not cursor.generation:
        cursor = _start_over(known, cursor, None)
    pages = resyncs = 0
    while True:
        if cursor.is_whole or cursor.page == 0:
            cursor = replace(cursor, page=0, is_whole=False)
            known.begin_round(cursor.link)
        try:
            page = client.delta_page(place.drive, cursor.link)
        except ResyncRequired as error:
            resyncs += 1
            if resyncs > MOST_RESYNCS:
                raise
            tick.tell("time(s) the service asked to start over", str(error))
            cursor = _start_over(known, cursor, error.location)
            continue
        except SharePointError as error:
            if cursor.link is not None and error.status in REFUSALS and known.count_refusal() >= MOST_REFUSALS:
                known.forget_refusals()
                tick.warn("the service refuses the link to what changed, so that all is listed anew", str(error))
                cursor = _start_over(known, cursor, None)
                continue
            if pages == 0:
                raise
            tick.warn("page not read, the next tick goes on", str(error))
            return cursor
        known.forget_refusals()
        cursor = _take_over(known, cursor, page, tick)
        pages += 1
        if cursor.is_whole:
            return cursor
        if time.monotonic() > deadline:
            tick.tell("round too long for one tick", f"{cursor.page} pages read so far, the next tick goes on")
            return cursor


def _take_over(known: DriveMap, cursor: Cursor, page: DeltaPage, tick: Tick) -> Cursor:
    """Note what a page tells; returns where the next one is.

    Raises:
        DataError: the service leads in a circle.
    """
    deleted = known.apply(page.items, cursor.generation, arrivals.now())
    if page.delta_link is not None:
        if cursor.is_full:
            deleted += known.end_full_round(cursor.generation)
        cursor = replace(cursor, link=page.delta_link, page=0, is_whole=True, is_full=False)
    elif page.next_link is not None:
        if known.is_repeated(page.next_link, cursor.page + 1):
            raise DataError(
                f"SharePoint's list of changes leads in a circle at page {cursor.page + 1}. The next tick tries "
                "again; if that does not help, launch the job sharepoint_reconciliation."
            )
        cursor = replace(cursor, link=page.next_link, page=cursor.page + 1)
    for name in sorted(set(deleted)):
        tick.warn("deleted in SharePoint and kept here, wholly or in part", name)
    return cursor


def _start_over(known: DriveMap, cursor: Cursor, link: str | None) -> Cursor:
    generation = known.begin_full_round(cursor.generation)
    return replace(cursor, link=link, page=0, is_whole=False, is_full=True, generation=generation)


@dataclass(frozen=True)
class _Look:
    """A look at all that changed and was not taken yet."""

    client: "GraphClient"
    known: DriveMap
    place: Place
    storage: Storage
    tick: Tick
    number: int
    deadline: float

    def look(self) -> None:
        if not self.known.has(self.place.folder):
            self.known.set_place(None)
            self.tick.warn("folder to look at is gone", f"{self.place.label} is looked for anew by the next tick")
            return
        settled, entries = [], self.known.pending(self.place.folder)
        for number, entry in enumerate(entries):
            if self.tick.is_full or time.monotonic() > self.deadline:
                self.tick.tell("left for the next tick", f"{len(entries) - number} folders and zips")
                break
            try:
                if not entry.path:
                    is_settled = self._outside(entry)
                else:
                    is_settled = self._folder(entry) if entry.is_folder else self._zip(entry)
            except Exception as error:  # whatever is wrong with one, the others go on
                self.tick.tell("not read", f"{entry.path}: {told(error)}")
                is_settled = False
            if is_settled:
                settled.append(entry.id)
        self.known.settle(settled)

    def _outside(self, entry: Entry) -> bool:
        for name in self.known.asked_names(entry.id):
            self.tick.warn("moved out of the folder and kept here", name)
        return True

    def _folder(self, entry: Entry) -> bool:
        """Whether nothing more is to be done until it changes; so for all that follow."""
        content = self.known.content(entry.id)
        names = [name for name, _ in content.files]
        if not is_recording_name(entry.name):
            has_telemetry = TELEMETRY in map(taken_as, names)
            if has_telemetry:
                self.tick.tell("not named YYYY-MM-DD_HH-MM-SS", entry.path)
            return not has_telemetry
        asked, number = self.known.asked(entry.id, entry.name)
        if asked and not content.is_changed:
            return True
        if missing(names):
            self.tick.tell("not complete", f"{entry.path} lacks {missing(names)}")
            return False
        if self._is_unsettled(entry, max(entry.seen, content.seen)) or self._is_malware(entry, content.malware):
            return False
        identity, sizes = fingerprint(content.versions), listing(content.files)
        source = SharePointSource(entry.name, self._location(entry), None, self.place.drive, entry.id, identity, sizes)
        return self._request(entry, Arrival(source, key_of(entry.id, entry.name, identity, number), sizes))

    def _zip(self, entry: Entry) -> bool:
        if self._is_unsettled(entry, entry.seen) or self._is_malware(entry, entry.malware):
            return False
        noted = json.loads(self.known.archive(entry.id, entry.version) or self._read_zip(entry))
        if isinstance(noted, str):
            self.tick.tell("refused", noted)
            return False
        done = True
        for name, folder, sizes, lacking in noted:
            asked, number = self.known.asked(entry.id, name)
            if asked == entry.version:
                continue
            if not is_recording_name(name):
                self.tick.tell("not named YYYY-MM-DD_HH-MM-SS", f"{name} in {entry.path}")
                done = False
            elif lacking:
                self.tick.tell("not complete", f"{name} in {entry.path} lacks {lacking}")
                done = False
            else:
                source = SharePointSource(
                    name,
                    self._location(entry),
                    folder,
                    self.place.drive,
                    entry.id,
                    entry.version,
                    listing_of_zip(entry.size),
                )
                done &= self._request(entry, Arrival(source, key_of(entry.id, name, entry.version, number), sizes))
        return done

    def _read_zip(self, entry: Entry) -> str:
        """What is to be noted of a zip: its recordings, or why it is refused. Reads only its directory."""
        item = Item(entry.id, entry.name, None, entry.size, False, False, None, None, None)
        found: str | list[tuple[str, str, str, str]]
        try:
            with (
                self.client.open(self.place.drive, item) as stream,
                open_archive(stream, self._location(entry)) as archive,
            ):
                files = {name: (folder, archive.files(folder)) for name, folder in archive.recordings().items()}
            found = [
                (name, folder, listing(inside), missing([file for file, _ in inside]))
                for name, (folder, inside) in files.items()
            ]
            if not found and is_recording_name(entry.name[: -len(".zip")]):
                found = f"{entry.path} holds no {TELEMETRY}"
        except SharePointError:
            raise
        except DataError as error:
            found = str(error)
        text = json.dumps(found)
        self.known.note_archive(entry.id, entry.version, text)
        return text

    def _request(self, entry: Entry, arrival: Arrival) -> bool:
        reason = rival(self.storage, arrival, self.tick)
        if reason:
            self.tick.tell("not taken, since the name is taken", reason)
            return False
        self.known.ask(entry.id, arrival.source.name, entry.version, self.number)
        self.tick.requested.append(arrival)
        return True

    def _is_unsettled(self, entry: Entry, seen: float) -> bool:
        # By the time that we saw it: upload tools keep the times of the files they send, and clocks differ.
        age, wanted = arrivals.now() - seen, self.tick.rules.settling_s
        if age < wanted:
            self.tick.tell(
                "not settled", f"{entry.path} changed {age_text(age)} ago, {age_text(wanted)} are waited for"
            )
        return age < wanted

    def _is_malware(self, entry: Entry, malware: bool) -> bool:
        if malware:
            self.tick.tell("refused", f"{entry.path} is reported to hold malware")
        return malware

    def _location(self, entry: Entry) -> str:
        return f"sharepoint:{self.place.label}/{entry.path}"
