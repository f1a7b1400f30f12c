"""The sensor that requests recordings in SharePoint once they are complete.

Graph's list of changes shows which folders to list; the listing of a folder shows what is in it.
"""

import os
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from drive_assets.partitions import is_recording_name
from drive_assets.recordings import arrivals
from drive_assets.recordings.archives import open_archive
from drive_assets.recordings.arrivals import INTERVAL_S, NAME_IN_USE, REFUSED, ArrivalRules, Tick
from drive_assets.recordings.files import Files, is_taken, listing, sizes_of, taken_as
from drive_assets.recordings.sharepoint.known import AT_ONCE, Entry, Known, full_listing_request, read_known
from drive_assets.recordings.sharepoint.library import SET_UP, connect, find_place, settings_key
from drive_assets.recordings.sharepoint.source import SharePointSource, listing_of_zip
from drive_assets.resources.sharepoint.errors import NotFound, ResyncRequired, SharePointError
from drive_assets.resources.sharepoint.items import Item
from drive_assets.resources.sharepoint.settings import SharePointSettings
from drive_assets.resources.storage import Storage
from drive_assets.running.batches import error_text
from model.common.config import fingerprint
from model.common.downloads import Throttled
from model.common.errors import DataError, PassingError
from model.common.printable import printable
from model.recording.folder import TELEMETRY

if TYPE_CHECKING:
    from drive_assets.resources.sharepoint.client import GraphClient

REFUSED_LINK = (400, 404)
"""What Graph answers, instead of 410, to a link that it no longer knows."""
DIRECTORY_BYTES, MAX_DIRECTORY_BYTES = 1 << 20, 1 << 26
"""The end of a zip that is read, for its directory of some 10,000 files; and of one with more files."""
SHARE_FOR_PAGES = 0.75
"""Of a tick's time; the rest is for listing folders."""


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
    tick, key, now = Tick(storage, arrival_rules), settings_key(settings), arrivals.now()
    client = connect(settings, patience_s=arrival_rules.slice_s / 4)
    full_listing = full_listing_request(storage)
    is_full = full_listing.is_file()
    try:
        known = read_known(storage)
        if known is None or known.settings != key or known.written != context.cursor or not known.entries:
            place = find_place(client, settings)
            known = Known(settings=key, place=place, entries={place.folder: Entry(parent=place.folder)})
        if is_full:
            known.see_all_change(now)
        if _read_changes(client, known, tick, now):
            Scan(client, known, tick).run()
    except Throttled as error:
        return dg.SkipReason(f"{error} The next tick continues.")
    known.write(storage)
    if is_full:
        full_listing.unlink()
    nothing = f"Nothing new in {known.place.label} ({len(known.entries)} folders and zips)"
    return tick.result(context, known.written, nothing)


def _read_changes(client: "GraphClient", known: Known, tick: Tick, now: float) -> bool:
    """Note in `known` what changed since its link; returns whether the list of changes was read to its end.

    Raises:
        SharePointError, Throttled: the first page cannot be read; at a later one, the next tick continues.
        DataError: the links form a circle.
    """
    read = {known.link}
    while True:
        try:
            items, link, is_last = client.changes(known.place.drive, known.link)
        except (SharePointError, Throttled) as error:
            is_refused = isinstance(error, ResyncRequired) or getattr(error, "status", None) in REFUSED_LINK
            if known.link is None or not is_refused:
                if len(read) == 1:
                    raise
                tick.note("list of changes not read to its end", f"{error} The next tick continues")
                return False
            # Changes since an outdated link are unknown: everything is listed and compared by id.
            tick.note("restart(s) of the list of changes", str(error))
            known.see_all_change(now)
            known.link = None
            continue
        for item in items:
            known.see_change(item, now)
        known.link = link
        if is_last:
            return True
        if link in read:
            raise DataError(
                "SharePoint's list of changes repeats. The next tick tries again; if that does not help, reset the "
                "cursor of sharepoint_sensor."
            )
        read.add(link)
        if tick.spent_s > SHARE_FOR_PAGES * tick.rules.slice_s:
            tick.note("list of changes too long for one tick", f"{len(read) - 1} pages read, the next tick continues")
            return False


@dataclass(frozen=True)
class Scan:
    """A tick's scan of all folders and zips that changed and are settled."""

    client: "GraphClient"
    known: Known
    tick: Tick

    def run(self) -> None:
        due = [item for item, entry in self.known.entries.items() if self._is_due(item, entry)]
        # Other folders come before recordings, which may turn out to be deleted.
        due.sort(key=lambda item: (self.known.entries[item].changed != AT_ONCE, self.known.path(item)))
        queue = deque(due)
        while queue:
            if self.tick.is_full or self.tick.spent_s > self.tick.rules.slice_s:
                self.tick.note("left for the next tick", f"{len(queue)} folders and zips")
                return
            item = queue.popleft()
            if (entry := self.known.entries.get(item)) is None:
                continue
            try:
                queue += self._examine(item, entry)
            except NotFound:
                if item == self.known.place.folder:
                    self.tick.note("watched folder not found", f"the next tick looks for {self.known.place.label}")
                    self.known.entries.clear()
                    return
                self._report_removed(self.known.remove(item))
            except Exception as error:  # a failure of one does not stop the others
                self.tick.note("not read", f"{self.known.path(item)}: {error_text(error)}")
        self._report_removed(self.known.remove_orphans())

    def _is_due(self, item: str, entry: Entry) -> bool:
        """Whether a folder or zip changed and is settled; reports it if not, and what is known of it."""
        if entry.changed is not None and not entry.notes:
            # By the time that the sensor saw the change: upload tools keep the times of files, and clocks differ.
            return self.tick.is_settled(self.known.path(item), entry.changed)
        if entry.changed is not None and arrivals.now() - entry.changed >= self.tick.rules.settling_s:
            return True  # a name was in use: the examination reports it again
        for kind, text in entry.notes:
            self.tick.note(kind, text)
        return False

    def _examine(self, item: str, entry: Entry) -> list[str]:
        """List a folder or read a zip's directory, and request what is new; returns ids to examine now, too."""
        entry.notes = []
        changed = self._examine_folder(item, entry) if entry.is_folder else self._examine_zip(item, entry)
        is_in_use = any(kind == NAME_IN_USE for kind, _ in entry.notes)
        entry.changed = arrivals.now() if is_in_use else None
        return [id_ for id_ in changed if self._is_due(id_, self.known.entries[id_])]

    def _examine_folder(self, item: str, entry: Entry) -> list[str]:
        items = list(self.client.children(self.known.place.drive, item))
        changed, gone = self.known.update(item, items, arrivals.now())
        self._report_removed(gone)
        taken = [file for file in items if not file.is_folder and is_taken(file.name)]
        files, version = [(file.name, file.size) for file in taken], fingerprint(sorted(file.version for file in taken))
        if entry.requested == [entry.name] and entry.version != version and self._is_part(entry.name, files):
            self.tick.note("deleted in part in SharePoint and kept here", entry.name)
        elif any(file.malware for file in taken):
            self._note(entry, REFUSED, f"{self.known.path(item)}: SharePoint reports malware in it")
        elif is_recording_name(entry.name) or TELEMETRY in (taken_as(name) for name, _ in files):
            entry.set_version(version)
            self._request(item, entry, entry.name, None, files, listing(files))
        return changed

    def _examine_zip(self, item: str, entry: Entry) -> list[str]:
        found = self.client.item(self.known.place.drive, item)
        path = self.known.path(item)
        if found.malware:
            self._note(entry, REFUSED, f"{path}: SharePoint reports malware in it")
            return []
        try:
            recordings = self._read_directory(item, found)
        except (SharePointError, PassingError):
            raise
        except DataError as error:
            self._note(entry, REFUSED, str(error))
            return []
        if not recordings and is_recording_name(entry.name[: -len(".zip")]):
            self._note(entry, REFUSED, f"{path} has no {TELEMETRY}")
        for name, (folder, files) in recordings.items():
            self._request(item, entry, name, folder, files, listing_of_zip(found.size))
        return []

    def _read_directory(self, item: str, found: Item, length: int = DIRECTORY_BYTES) -> dict[str, tuple[str, Files]]:
        """The recordings in a zip, by its last `length` bytes, or by more if its directory is longer."""
        try:
            with (
                self.client.open_end(self.known.place.drive, found, length) as file,
                open_archive(file, self._location(item)) as archive,
            ):
                return archive.recordings()
        except DataError:
            if length == MAX_DIRECTORY_BYTES:
                raise
        return self._read_directory(item, found, MAX_DIRECTORY_BYTES)

    def _request(self, item: str, entry: Entry, name: str, member: str | None, files: Files, sizes: str) -> None:
        """Request a recording, unless it was requested before.

        Args:
            member: folder in a zip.
            sizes: identity of the item by name and size.
        """
        if name in entry.requested:
            return
        where = self.known.path(item) if member is None else f"{name} in {self.known.path(item)}"
        drive, location = self.known.place.drive, self._location(item)
        source = SharePointSource(name, location, member, drive, item, sizes, identity=entry.version)
        key = f"{item}:{fingerprint(name, entry.version, entry.number)}"  # a renamed recording is another one
        if kind := self.tick.request(source, key, files, where):
            entry.notes.append((kind, self.tick.notes[kind][-1]))
        else:
            entry.requested = [*entry.requested, name] if member is not None else [name]

    def _is_part(self, name: str, files: Files) -> bool:
        """Whether some files of an ingested recording were deleted, and no other changed."""
        folder = self.tick.storage.recording(name)
        here = sizes_of(folder) if folder.is_dir() else []
        return {(taken_as(name), size) for name, size in files} < {file for file in here if is_taken(file[0])}

    def _report_removed(self, names: list[str]) -> None:
        """Report recordings that are gone. The next tick tries those that wait for a name again."""
        for name in names:
            self.tick.note("deleted or moved away in SharePoint and kept here", name)
        for entry in self.known.entries.values() if names else ():
            if entry.notes and entry.changed is not None:
                entry.changed = arrivals.now() - self.tick.rules.settling_s

    def _note(self, entry: Entry, kind: str, text: str) -> None:
        self.tick.note(kind, text)
        entry.notes.append((kind, printable(text)))

    def _location(self, item: str) -> str:
        return printable(f"sharepoint:{self.known.place.label}/{self.known.path(item)}")
