"""What cameras, desktops, archives and attackers do to a recording's folder."""

import io
import os
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

from PIL import Image

from drive_assets_tests.campaign.drafts import Draft, Kind

HUGE_PNG = 30_000
"""Width and height in px of a picture of a few kB."""


def _some(draft: Draft, rng: Random, most: int = 5) -> list[str]:
    return rng.sample(sorted(draft.frames), rng.randint(1, most))


def _saved(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def damaged_frames(draft: Draft, rng: Random) -> None:
    for name in _some(draft, rng):
        whole = draft.frames[name]
        cut = whole[: rng.randrange(len(whole))]
        draft.frames[name] = rng.choice(
            [cut, b"", rng.randbytes(5000), b"\0" * len(whole), b"GIF89a" + cut, cut + whole[-2:]]
        )
    draft.is_annotated = True


def no_frame_whole(draft: Draft, rng: Random) -> None:
    content = rng.choice([b"", b"\0" * 9000, draft.pictures[0][:-200], b"no picture"])
    draft.frames = dict.fromkeys(draft.frames, content)
    draft.refuse("no usable frame")


def frame_suffixes(draft: Draft, rng: Random) -> None:
    suffix = rng.choice([".JPG", ".jpeg", ".JPEG", ".Jpg"])
    draft.frames = {name.replace(".jpg", suffix): content for name, content in draft.frames.items()}
    draft.is_annotated = True


def other_pictures(draft: Draft, rng: Random) -> None:
    """Pictures of other makes, all of which a reader of JPEG and PNG reads."""
    exif = Image.Exif()
    exif[0x0112] = rng.choice([3, 6, 8, 0, 99])
    changes: list[Callable[[bytes], bytes]] = [
        lambda whole: _saved(_opened(whole), "PNG"),
        lambda whole: _saved(_opened(whole), progressive=True),
        lambda whole: _saved(_opened(whole).convert("CMYK")),
        lambda whole: _saved(_opened(whole), exif=exif),
        lambda whole: whole + rng.randbytes(6000),
        lambda whole: whole + bytes(9),
    ]
    for name in _some(draft, rng, 30):
        draft.frames[name] = rng.choice(changes)(draft.frames[name])
    draft.is_annotated = True


def other_sizes(draft: Draft, rng: Random) -> None:
    for name in _some(draft, rng):
        size = rng.choice([(1, 1), (320, 180), (640, 90), (1920, 1080), (2, 5000)])
        draft.frames[name] = _saved(_opened(draft.frames[name]).resize(size))
    draft.is_annotated = True


def decompression_bomb(draft: Draft, rng: Random) -> None:
    bomb = _saved(Image.new("1", (HUGE_PNG, HUGE_PNG)), "PNG")
    for name in _some(draft, rng, 2):
        draft.frames[name] = bomb
    draft.is_annotated = draft.may_refuse = True


def black_camera(draft: Draft, rng: Random) -> None:
    draft.frames = dict.fromkeys(draft.frames, _saved(Image.new("RGB", (640, 360))))
    draft.expected_words = ("black",)


def frames_without_rows(draft: Draft, rng: Random) -> None:
    names = ["x", "2024-05-01", ":", "a\nb", "ü", "x" * 250, "%s%n", "-rf", "."]
    draft.frames |= {f"{name}.jpg": draft.pictures[0] for name in names}
    draft.is_annotated = True


def missing_frames(draft: Draft, rng: Random) -> None:
    for name in _some(draft, rng, 55):
        del draft.frames[name]


def frame_twice(draft: Draft, rng: Random) -> None:
    for name in _some(draft, rng):
        draft.frames[name.replace(".jpg", rng.choice([".png", ".JPG", ".jpeg"]))] = draft.frames[name]
    draft.may_refuse = draft.is_annotated = True


def region_junk(draft: Draft, rng: Random) -> None:
    regions = [
        ("NaN", 0, 9, 9),
        (-5, 0, 640, 200),
        (0, 0, 0, 200),
        (0, 9999, 640, 200),
        (0, 0, "1e400", 200),
        ('"a"', 0, 640, 200),
        (0, 0, 99999999999999999999, 200),
    ]
    texts = [
        b'{"x": %b, "y": %b, "width": %b, "height": %b}' % tuple(str(n).encode() for n in each) for each in regions
    ]
    junk = [b"", b"{", b"null", b"[]", b"7", b"\xff\xfe{\0}\0", b"[" * 100_000, rng.randbytes(3000)]
    draft.files["roi.json"] = rng.choice([*texts, *junk])
    draft.may_refuse = draft.is_annotated = True


def results_of_others(draft: Draft, rng: Random) -> None:
    """What is derived is not taken over, whatever it holds."""
    for name in ("annotations.csv", "annotations.json", "future_labels.csv", ".source.json", "notes.txt", "Thumbs.db"):
        draft.files[name] = rng.randbytes(rng.choice([0, 20, 100_000]))


def no_regular_file(draft: Draft, rng: Random) -> None:
    makers: list[Callable[[Path], None]] = [
        os.mkfifo,
        _socket,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to("/dev/stdin"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/etc/passwd"),
        lambda path: path.symlink_to("nowhere"),
    ]
    make = rng.choice(makers)
    name = rng.choice(["telemetry.csv", "roi.json", "odd.jpg", draft.times[3] + ".jpg"])

    def arrange(folder: Path) -> Path:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)
        return folder

    draft.arrange.append(arrange)
    draft.refuse(name if name != "telemetry.csv" else draft.name)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(before)


def folder_names(draft: Draft, rng: Random) -> None:
    others = ["2024-02-30_10-00-00", "٢٠٢٤-05-01_10-00-00", "２０２４-05-01_10-00-00", "2024-5-1_10-00-00"]
    others += ["0000-00-00_00-00-00", "drive", "%2e%2e", "$(id)", "x" * 200, "*", "--help"]
    changed = [
        draft.name.replace("_", " "),
        f" {draft.name}",
        *(draft.name + end for end in (" - Copy", "\n", "é", ".")),
    ]
    name = rng.choice([*others, *changed])
    draft.arrange.append(lambda folder: folder.rename(folder.with_name(name)))
    draft.refuse("YYYY-MM-DD_HH-MM-SS")


def telemetry_names(draft: Draft, rng: Random) -> None:
    name = rng.choice(["TELEMETRY.CSV", "Telemetry.csv", "telemetry.csv.txt", "telemetry (1).csv", "telemetry"])
    draft.arrange.append(lambda folder: (folder / "telemetry.csv").rename(folder / name).parent)
    draft.may_refuse = True


def deeper(draft: Draft, rng: Random) -> None:
    def arrange(folder: Path) -> Path:
        aside = folder.rename(folder.with_name("aside"))
        folder.mkdir()
        aside.rename(folder / rng.choice([draft.name, "data", "export"]))
        return folder

    draft.arrange.append(arrange)
    draft.may_refuse = True


def zipped(draft: Draft, rng: Random) -> None:
    """Zips that are right."""
    prefix = rng.choice(["", f"{draft.name}/", f"week 27/é/{draft.name}/", f"week\\{draft.name}\\"])
    method = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    around = rng.choice([b"", b"", b"MZ self-extracting"])
    comment = rng.choice([b"", b"x" * 65_535])
    # A huge field expands to an absurd size, and a name with a line break is refused in a zip.
    draft.may_refuse |= len(draft.telemetry()) > 100_000 or any("\n" in name for name in draft.frames)

    def arrange(folder: Path) -> Path:
        entries = _contents(folder, prefix)
        entries |= {f"__MACOSX/._{draft.name}.jpg": b"x", "Icon\r": b"", ".DS_Store": b"x"}
        archive_path = _zip(folder, entries, method, comment)
        archive_path.write_bytes(around + archive_path.read_bytes())
        return archive_path

    draft.arrange.append(arrange)


def hostile_zip(draft: Draft, rng: Random) -> None:
    name, content, mode = rng.choice(
        [
            ("../evil.jpg", b"x", 0),
            ("/tmp/evil.jpg", b"x", 0),
            ("C:\\evil.jpg", b"x", 0),
            ("..\\..\\evil.jpg", b"x", 0),
            (f"{draft.name}/evil.jpg", b"/etc/passwd", 0o120777),
            (f"{draft.name}/evil.jpg", b"", 0o060666),
            (f"{draft.name}/evil.jpg", bytes(60_000_000), 0),
            (f"{draft.name}/TELEMETRY.CSV", b"x", 0),
            (f"{draft.name}/telemetry.csv", b"again", 0),
            (f"{draft.name}/a\nb.jpg", b"x", 0),
            (f"{draft.name}/../../evil.jpg", b"x", 0),
        ]
    )

    def arrange(folder: Path) -> Path:
        archive_path = _zip(folder, _contents(folder, f"{draft.name}/"))
        with zipfile.ZipFile(archive_path, "a", zipfile.ZIP_DEFLATED) as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
        return archive_path

    draft.arrange.append(arrange)
    draft.refuse(f"{draft.name}.zip")


def broken_zip(draft: Draft, rng: Random) -> None:
    def cut(content: bytearray) -> bytes | bytearray:
        return content[: rng.randrange(len(content))]

    def flipped(content: bytearray) -> bytes | bytearray:
        return draft.flipped(bytes(content), rng, 60)

    def encrypted(content: bytearray) -> bytes | bytearray:
        for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            place = -1
            while (place := content.find(signature, place + 1)) >= 0:
                content[place + offset] |= 1
        return content

    def other_method(content: bytearray) -> bytes | bytearray:
        place = content.find(b"PK\x01\x02")
        content[place + 10] = 97
        return content

    changes: list[Callable[[bytearray], bytes | bytearray]] = [
        cut,
        flipped,
        flipped,
        encrypted,
        other_method,
        lambda content: b"",
        lambda content: rng.randbytes(5000),
        lambda content: b"Rar!\x1a\x07" + rng.randbytes(5000),
    ]
    change = rng.choice(changes)

    def arrange(folder: Path) -> Path:
        archive_path = _zip(folder, _contents(folder))
        archive_path.write_bytes(change(bytearray(archive_path.read_bytes())))
        return archive_path

    draft.arrange.append(arrange)
    # A flip may hit what nobody reads; one in a frame is detected by its checksum.
    draft.may_refuse, draft.must_refuse = True, change is not flipped


def nested_zip(draft: Draft, rng: Random) -> None:
    def arrange(folder: Path) -> Path:
        inner = _zip(folder, _contents(folder))
        outer = inner.with_name("outer.zip")
        with zipfile.ZipFile(outer, "w") as archive:
            archive.write(inner, inner.name)
        inner.unlink()
        return outer

    draft.arrange.append(arrange)
    draft.refuse("outer.zip")


def _contents(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {prefix + path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _zip(folder: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> Path:
    archive_path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(archive_path, "w", method) as archive:
        archive.comment = comment
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, content)
    shutil.rmtree(folder)
    return archive_path


MIXABLE: dict[str, Kind] = {
    "damaged_frames": damaged_frames,
    "other_pictures": other_pictures,
    "other_sizes": other_sizes,
    "frames_without_rows": frames_without_rows,
    "missing_frames": missing_frames,
    "results_of_others": results_of_others,
    "zipped": zipped,
}
"""These meet with each other and with what is done to the telemetry."""
ALONE: dict[str, Kind] = {
    "no_frame_whole": no_frame_whole,
    "frame_suffixes": frame_suffixes,
    "decompression_bomb": decompression_bomb,
    "black_camera": black_camera,
    "frame_twice": frame_twice,
    "region_junk": region_junk,
    "no_regular_file": no_regular_file,
    "folder_names": folder_names,
    "telemetry_names": telemetry_names,
    "deeper": deeper,
    "hostile_zip": hostile_zip,
    "broken_zip": broken_zip,
    "nested_zip": nested_zip,
}
