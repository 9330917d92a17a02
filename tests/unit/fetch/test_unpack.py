from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tasks.fetch import tarstream, unpack, untar
from tasks.system.errors import PiggyError
from tasks.system.files import sha256_of

Member = tuple[str, bytes, str]  # name, type, content of a file or target of a link
FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def make(path: Path, members: list[Member], mode: str = "w:gz", **fields: object) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.mode = (
                kind,
                1_600_000_000,
                0o755 if kind == FOLDER else 0o644,
            )
            if kind in (LINK, HARD):
                info.linkname = text
            else:
                info.size = len(text)
            for key, value in fields.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def unpacked(path: Path, parent: Path, **options: object) -> Path:
    return unpack.unpack(path, sha256(path), parent, "tool", **options)  # type: ignore[arg-type]


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


GOOD: list[Member] = [
    ("tool-1.0/", FOLDER, ""),
    ("tool-1.0/Makefile", FILE, "all:\n"),
    ("tool-1.0/a/b/c.c", FILE, "int c;\n"),
    ("tool-1.0/a/up", LINK, "../Makefile"),
    ("tool-1.0/prefixes/a", LINK, "../a"),
    ("tool-1.0/later", LINK, "not/there"),
    ("tool-1.0/hard", HARD, "tool-1.0/Makefile"),
]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_good_archive(tmp_path: Path, mode: str) -> None:
    source = make(tmp_path / "tool-1.0.tar", GOOD, mode)
    folder = unpacked(source, tmp_path / "src")
    assert folder == tmp_path / "src" / f"tool-{sha256(source)[:8]}"
    assert os.readlink(tmp_path / "src" / "tool") == folder.name
    assert listing(folder) == [
        ".piggyback-source",
        "Makefile",
        "a",
        "a/b",
        "a/b/c.c",
        "a/up",
        "hard",
        "later",
        "prefixes",
        "prefixes/a",
    ]
    assert (folder / "prefixes/a/b/c.c").read_text() == "int c;\n"
    assert (folder / "hard").stat().st_ino == (folder / "Makefile").stat().st_ino
    assert (folder / "a/b/c.c").stat().st_mtime == 1_600_000_000
    assert os.lstat(folder / "a/up").st_mtime == 1_600_000_000
    assert sha256(source) in (folder / unpack.STAMP).read_text()
    assert not [name for name in os.listdir(tmp_path / "src") if name.endswith(".part")]


@pytest.mark.skipif(not shutil.which("zstd"), reason="zstd is not installed")
def test_zstd(tmp_path: Path) -> None:
    plain = make(tmp_path / "tool.tar", [("t/f", FILE, "x" * 100_000)], "w")
    subprocess.run(["zstd", "-q", str(plain)], check=True)
    packed = tmp_path / "tool.tar.zst"
    assert (unpacked(packed, tmp_path / "src") / "f").stat().st_size == 100_000
    packed.write_bytes(packed.read_bytes()[:-7])
    with pytest.raises(PiggyError, match=r"tool\.tar\.zst is damaged"):
        unpacked(packed, tmp_path / "again")


def test_a_stamped_folder_is_never_touched_again(tmp_path: Path) -> None:
    source = make(tmp_path / "tool.tar.gz", GOOD[:3])
    digest = sha256(source)
    folder = unpacked(source, tmp_path)
    (folder / "Makefile").write_text("mine")
    (folder / "a/b/c.c").unlink()
    source.unlink()  # it is not even read
    (tmp_path / "tool").unlink()
    assert unpack.unpack(source, digest, tmp_path, "tool") == folder
    assert (folder / "Makefile").read_text() == "mine"
    assert not (folder / "a/b/c.c").exists()
    assert os.readlink(tmp_path / "tool") == folder.name


def test_another_archive_gets_a_folder_of_its_own_and_the_link(tmp_path: Path) -> None:
    first = unpacked(make(tmp_path / "1.tar.gz", [("t/f", FILE, "1")]), tmp_path)
    (first / "f").write_text("mine")
    second = unpacked(make(tmp_path / "2.tar.gz", [("t/f", FILE, "2")]), tmp_path)
    assert first != second
    assert (tmp_path / "tool/f").read_text() == "2"
    assert (first / "f").read_text() == "mine"


@pytest.mark.parametrize(
    "stamp", [None, "", "[]", '{"sha256": "else"}', "[" * 60_000, "pipe", "folder"]
)
def test_a_folder_of_the_user_in_the_way_is_left_alone(tmp_path: Path, stamp: str | None) -> None:
    source = make(tmp_path / "tool.tar.gz", GOOD[:3])
    folder = tmp_path / f"tool-{sha256(source)[:8]}"
    folder.mkdir()
    (folder / "work").write_text("mine")
    if stamp == "pipe":
        os.mkfifo(folder / unpack.STAMP)
    elif stamp == "folder":
        (folder / unpack.STAMP).mkdir()
    elif stamp is not None:
        (folder / unpack.STAMP).write_text(stamp)
    with pytest.raises(PiggyError, match="is in the way"):
        unpacked(source, tmp_path)
    assert (folder / "work").read_text() == "mine"


def test_a_folder_in_place_of_the_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    (tmp_path / "tool/work").write_text("mine")
    with pytest.raises(PiggyError, match="tool is in the way: a link"):
        unpacked(make(tmp_path / "tool.tar.gz", GOOD[:3]), tmp_path)
    assert (tmp_path / "tool/work").read_text() == "mine"


HOSTILE: dict[str, tuple[list[Member], str]] = {
    "absolute": ([("/tmp/evil", FILE, "x")], "unsafe path"),
    "absolute below the top": ([("t/f", FILE, "x"), ("/t/g", FILE, "x")], "unsafe path"),
    "dotdot": ([("t/f", FILE, "x"), ("t/../evil", FILE, "x")], "unsafe path"),
    "dotdot at the end": ([("t/a/..", FOLDER, "")], "unsafe path"),
    "two tops": (
        [("t/f", FILE, "x"), ("u/f", FILE, "x")],
        "outside the archive's one top folder 't'",
    ),
    "no top": ([("f", FILE, "x")], "where our stamp or a folder belongs"),
    "top is a link": (
        [("t", LINK, "/etc"), ("t/passwd", FILE, "x")],
        "where our stamp or a folder belongs",
    ),
    "newline": ([("t/a\nb", FILE, "x")], "unsafe path"),
    "nothing but dots": ([("./.", FOLDER, "")], "unsafe path"),
    "absolute link": ([("t/l", LINK, "/etc/passwd")], "link out of the tree"),
    "leaving link": ([("t/a/l", LINK, "../../x")], "link out of the tree"),
    "link to the parent": ([("t/l", LINK, "..")], "link out of the tree"),
    "link back in by name": ([("t/l", LINK, "../t/f"), ("t/f", FILE, "x")], "link out of the tree"),
    "link with control characters": ([("t/l", LINK, "a\nb")], "unsafe target"),
    "link through a link": (
        [("t/a/b/f", FILE, "x"), ("t/l", LINK, "a/b"), ("t/m", LINK, "l/../../..")],
        "'t/m' is a link out",
    ),
    "link through a later link": (
        [("t/d/f", FILE, "x"), ("t/z/m", LINK, "../d/s/../../.."), ("t/d/s", LINK, "../d")],
        "'t/z/m' is a link out",
    ),
    "chain": (
        [("t/a", LINK, "b/.."), ("t/b", LINK, "c/.."), ("t/c", LINK, ".")],
        "link out of the tree",
    ),
    "loop": ([("t/a", LINK, "b"), ("t/b", LINK, "a")], "link out of the tree"),
    "written through a link": (
        [("t/real/f", FILE, "x"), ("t/l", LINK, "real"), ("t/l/evil", FILE, "x")],
        "below 'l', which is a link",
    ),
    "folder through a link": (
        [("t/l", LINK, "."), ("t/l/a/", FOLDER, "")],
        "below 'l', which is a link",
    ),
    "below a file": ([("t/f", FILE, "x"), ("t/f/g", FILE, "x")], "below 'f', which is a file"),
    "folder made a link": ([("t/a/", FOLDER, ""), ("t/a", LINK, "b")], "in place of a folder"),
    "file made a link": ([("t/a", FILE, "x"), ("t/a", LINK, "b")], "in place of a file"),
    "link made a file": ([("t/a", LINK, "b"), ("t/a", FILE, "x")], "in place of a link"),
    "link made a folder": ([("t/a", LINK, "b"), ("t/a/", FOLDER, "")], "in place of a link"),
    "link twice": ([("t/a", LINK, "b"), ("t/a", LINK, "..")], "in place of a link"),
    "file made a folder": ([("t/a", FILE, "x"), ("t/a/", FOLDER, "")], "in place of a file"),
    "hard link outside": ([("t/f", FILE, "x"), ("t/h", HARD, "/etc/passwd")], "unsafe path"),
    "hard link up": ([("t/f", FILE, "x"), ("t/h", HARD, "t/../../x")], "unsafe path"),
    "hard link to nothing": ([("t/f", FILE, "x"), ("t/h", HARD, "t/g")], "no earlier file"),
    "hard link elsewhere": ([("t/f", FILE, "x"), ("t/h", HARD, "u/f")], "no earlier file"),
    "hard link to a link": ([("t/l", LINK, "f"), ("t/h", HARD, "t/l")], "no earlier file"),
    "hard link to a folder": ([("t/a/", FOLDER, ""), ("t/h", HARD, "t/a")], "no earlier file"),
    "hard link through a link": (
        [("t/a/f", FILE, "x"), ("t/l", LINK, "a"), ("t/h", HARD, "t/l/f")],
        "no earlier file",
    ),
    "character device": ([("t/null", tarfile.CHRTYPE, "")], "device"),
    "block device": ([("t/sda", tarfile.BLKTYPE, "")], "device"),
    "pipe": ([("t/p", tarfile.FIFOTYPE, "")], "pipe"),
    "our stamp": ([("t/" + untar.STAMP, FILE, "{}")], "our stamp"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members_are_refused_by_name(tmp_path: Path, case: str) -> None:
    members, told = HOSTILE[case]
    source = make(tmp_path / "evil.tar.gz", members)
    with pytest.raises(PiggyError) as caught:
        unpacked(source, tmp_path / "src")
    assert told in str(caught.value)
    assert any(
        f"evil.tar.gz: member {name.rstrip('/')!r}" in str(caught.value) for name, _, _ in members
    )
    assert [name for name in os.listdir(tmp_path / "src") if not name.endswith(".lock")] == []
    assert sorted(os.listdir(tmp_path)) == ["evil.tar.gz", "src"]


def test_folders_that_no_member_brings_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untar, "MAX_PATHS", 10_000)
    deep = "/".join(["d" * 20] * 90)
    members: list[Member] = [(f"t/{number}/{deep}/f", FILE, "") for number in range(3)]
    with pytest.raises(PiggyError, match="needs more folders than any source has"):
        unpacked(make(tmp_path / "t.tar.gz", members), tmp_path / "src")
    assert [name for name in os.listdir(tmp_path / "src") if not name.endswith(".lock")] == []


def test_links_that_take_long_to_follow_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untar, "MAX_STEPS", 1000)
    links: list[Member] = [(f"t/{n}", LINK, "./" * 50 + f"{n + 1}") for n in range(30)]
    with pytest.raises(PiggyError, match="leads through too many other links and folders"):
        unpacked(make(tmp_path / "t.tar.gz", links), tmp_path / "src")
    with pytest.raises(PiggyError, match="leads through too many other links and folders"):
        unpacked(make(tmp_path / "u.tar.gz", [("t/l", LINK, "a/" * 900)]), tmp_path / "src")


@pytest.mark.parametrize("target", ["x" * 4096, "a\0b"])
def test_a_target_that_no_link_can_have(tmp_path: Path, target: str) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("t/l")
        info.type, info.pax_headers = LINK, {"linkpath": target}
        tar.addfile(info)
    with pytest.raises(PiggyError, match="is a link with an unsafe target") as caught:
        unpacked(tmp_path / "t.tar", tmp_path / "src")
    assert len(str(caught.value)) < 700


def test_a_refusal_has_no_control_characters(tmp_path: Path) -> None:
    with pytest.raises(PiggyError, match="lies outside") as caught:
        unpacked(
            make(tmp_path / "t.tar.gz", [("\x9b2J\u202e/f", FILE, "x"), ("u/f", FILE, "x")]),
            tmp_path / "src",
        )
    assert str(caught.value).replace("\n", "").isprintable()


def test_a_link_that_may_leave_the_tree_has_to_be_named(tmp_path: Path) -> None:
    source = make(
        tmp_path / "t.tar.gz",
        [("t/skeleton/rc", LINK, "/etc/init.d/rc"), ("t/other", LINK, "/etc")],
    )
    with pytest.raises(PiggyError, match="'t/other' is a link out"):
        unpacked(source, tmp_path / "src", outside_links=("skeleton/rc",))
    folder = unpacked(source, tmp_path / "src", outside_links=("skeleton/rc", "other"))
    assert os.readlink(folder / "skeleton/rc") == "/etc/init.d/rc"


def test_a_link_to_a_link_that_may_leave_the_tree_is_still_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "t.tar.gz", [("t/out", LINK, "/etc"), ("t/other", LINK, "out/passwd")])
    with pytest.raises(PiggyError, match="'t/other' is a link out"):
        unpacked(source, tmp_path / "src", outside_links=("out",))


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("t/f")
        info.pax_headers = {"path": "t/f\0g"}
        tar.addfile(info)
    with pytest.raises(PiggyError, match="unsafe path"):
        unpacked(tmp_path / "t.tar", tmp_path / "src")


@pytest.mark.parametrize("mtime", ["nan", "-5", "1e30", "inf"])
def test_an_impossible_time_becomes_the_epoch(tmp_path: Path, mtime: str) -> None:
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in (("t", FOLDER), ("t/f", FILE), ("t/l", LINK)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.pax_headers = (
                kind,
                "f" if kind == LINK else "",
                {"mtime": mtime},
            )
            tar.addfile(info)
    folder = unpacked(tmp_path / "t.tar", tmp_path / "src")
    assert [os.lstat(folder / name).st_mtime for name in ("f", "l")] == [0, 0]


def test_modes_are_the_same_whatever_the_umask(tmp_path: Path) -> None:
    source = tmp_path / "t.tar.gz"
    with tarfile.open(source, "w:gz") as tar:
        for name, kind, mode in (
            ("t", FOLDER, 0o2577),
            ("t/run", FILE, 0o6775),
            ("t/plain", FILE, 0o040),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            tar.addfile(info)
    for umask in (0o077, 0o000):
        old = os.umask(umask)
        try:
            folder = unpacked(source, tmp_path / f"src{umask}")
        finally:
            os.umask(old)
        assert [stat.S_IMODE((folder / name).stat().st_mode) for name in ("", "run", "plain")] == [
            0o755,
            0o755,
            0o640,
        ]


def test_a_member_that_comes_twice_is_the_later_one(tmp_path: Path) -> None:
    source = make(
        tmp_path / "t.tar.gz",
        [("t/f", FILE, "1"), ("t/h", HARD, "t/f"), ("t/f", FILE, "2"), ("t/", FOLDER, "")],
    )
    folder = unpacked(source, tmp_path / "src")
    assert ((folder / "f").read_text(), (folder / "h").read_text()) == ("2", "1")


def test_dots_and_doubled_slashes_mean_nothing(tmp_path: Path) -> None:
    source = make(tmp_path / "t.tar.gz", [("./t//a/./f", FILE, "x")])
    assert listing(unpacked(source, tmp_path / "src")) == [".piggyback-source", "a", "a/f"]


def test_a_deep_path_is_made_or_refused_without_a_traceback(tmp_path: Path) -> None:
    folder = unpacked(
        make(tmp_path / "1.tar.gz", [("t/" + "a/" * 90 + "f", FILE, "x")]), tmp_path / "1"
    )
    assert len(listing(folder)) == 92
    for depth in (200, 1200, 5000):  # Python's own rmtree recurses, and stops at 1000
        with pytest.raises(PiggyError, match="unsafe path"):
            unpacked(
                make(tmp_path / "2.tar.gz", [("t/" + "a/" * depth + "f", FILE, "x")]),
                tmp_path / "2",
            )
    with pytest.raises(PiggyError, match="name too long"):
        unpacked(make(tmp_path / "3.tar.gz", [("t/" + "a" * 300, FILE, "x")]), tmp_path / "3")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_truncation_is_damage(tmp_path: Path, mode: str) -> None:
    whole = make(
        tmp_path / "t.tar", [(f"t/{n}", FILE, os.urandom(300).hex()) for n in range(20)], mode
    ).read_bytes()
    real_end = len(whole.rstrip(b"\0")) if mode == "w" else len(whole)
    for length in {
        0,
        1,
        100,
        511,
        512,
        513,
        real_end // 3,
        real_end // 2 // 512 * 512,
        real_end - 1,
    }:
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:length])
        with pytest.raises(PiggyError, match=r"cut\.tar is damaged") as caught:
            unpacked(path, tmp_path / "src")
        assert "doit fetch" in caught.value.hint
        assert [name for name in os.listdir(tmp_path / "src") if not name.endswith(".lock")] == []


def test_a_wrong_check_sum_at_the_very_end_is_damage(tmp_path: Path) -> None:
    # its content ends with a chunk of ours (5 of 256 KiB are 128 tar records), so that only reading
    # on tells
    path = make(tmp_path / "t.tar.gz", [("t/f", FILE, "x" * (5 * (1 << 18) - 3 * 512))])
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # CRC32 of the content: RFC 1952, section 2.3.1
    path.write_bytes(data)
    with pytest.raises(PiggyError, match=r"t\.tar\.gz is damaged: CRC"):
        unpacked(path, tmp_path / "src")


def test_a_spoiled_header_is_no_end(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tar", [(f"t/{n}", FILE, "x") for n in range(20)], "w")
    data = bytearray(path.read_bytes())
    data[10 * 1024 + 148] ^= 1  # the eleventh member's check sum
    path.write_bytes(data)
    with pytest.raises(PiggyError, match="no tar header and no end of archive at byte 10240"):
        unpacked(path, tmp_path / "src")


@pytest.mark.parametrize(
    "junk", [b"<html>404</html>", b"\x1f\x8b junk", b"BZh9 junk", b"\xfd7zXZ\0 junk", b"7" * 9999]
)
def test_junk_is_damage(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk.tar.gz"
    path.write_bytes(junk)
    with pytest.raises(PiggyError, match=r"junk\.tar\.gz is damaged"):
        unpacked(path, tmp_path / "src")


def test_noise_never_gives_a_traceback(tmp_path: Path) -> None:
    import random

    whole = make(tmp_path / "t.tar", GOOD[:5], "w").read_bytes()
    dice = random.Random(1)
    path = tmp_path / "noisy.tar"
    for turn in range(150):
        data = bytearray(whole)
        at = dice.randrange(5) * 512
        data[at + dice.randrange(512)] = dice.randrange(256)
        header = bytearray(data[at : at + 512])
        header[148:156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(
            header
        )  # a valid check sum, so that the noise is looked at
        path.write_bytes(data)
        try:
            unpacked(path, tmp_path / str(turn))
        except PiggyError:
            assert not [
                name for name in os.listdir(tmp_path / str(turn)) if not name.endswith(".lock")
            ]
    assert sorted({name.rstrip("0123456789") for name in os.listdir(tmp_path)}) == [
        "",
        "noisy.tar",
        "t.tar",
    ]


def test_another_hash_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = make(tmp_path / "tool.tar.gz", GOOD[:3])
    with pytest.raises(
        PiggyError, match=f"its sha256 is {sha256(source)}, and should be {'0' * 64}"
    ):
        unpack.unpack(source, "0" * 64, tmp_path / "src", "tool")
    with pytest.raises(PiggyError, match=r"gone\.tar does not exist"):
        unpack.unpack(tmp_path / "gone.tar", "0" * 64, tmp_path / "src", "tool")


def test_a_full_disk_names_the_room_that_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "tool.tar.gz", [("t/f", FILE, "x" * 10_000), ("t/g", FILE, "x")])

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(untar.shutil, "copyfileobj", full)
    with pytest.raises(PiggyError, match=r"no space left .*: 24\.6 kB needed"):
        unpacked(source, tmp_path / "src")
    assert [name for name in os.listdir(tmp_path / "src") if not name.endswith(".lock")] == []


def test_a_file_system_that_folds_case_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clash(*args: object) -> None:
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(untar, "_write", clash)
    with pytest.raises(PiggyError, match="folds case"):
        unpacked(make(tmp_path / "t.tar.gz", [("t/f", FILE, "x")]), tmp_path / "src")


def test_killed_in_the_middle_the_next_call_does_all(tmp_path: Path) -> None:
    source = make(tmp_path / "t.tar", [(f"t/{n}", FILE, "x" * 1000) for n in range(5_000)], "w")
    code = (
        "from pathlib import Path; from tasks.fetch import unpack;"
        f" unpack.unpack(Path({str(source)!r}), {sha256(source)!r},"
        f" Path({str(tmp_path / 'src')!r}), 'tool')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
    aside = tmp_path / "src" / f".tool-{sha256(source)[:8]}.part"
    end = time.monotonic() + 20
    while not (aside / "200").exists() and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert aside.is_dir()
    assert not (tmp_path / "src" / "tool").exists()
    folder = unpacked(source, tmp_path / "src")
    assert len(os.listdir(folder)) == 5_001
    assert not aside.exists()


def test_two_at_once_unpack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "t.tar", [(f"t/{n}", FILE, "x") for n in range(500)], "w")
    count: list[int] = []
    real = untar.extract
    monkeypatch.setattr(untar, "extract", lambda *args: (count.append(1), real(*args)))
    threads = [threading.Thread(target=unpacked, args=(source, tmp_path / "src")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count == [1]
    assert len(os.listdir(tmp_path / "src" / "tool")) == 501


def test_a_folder_that_can_not_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("a file")
    with pytest.raises(PiggyError, match="src"):
        unpacked(make(tmp_path / "t.tar.gz", GOOD[:3]), tmp_path / "src")


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    files: list[Member] = [(f"t/f{n}", FILE, "x" * 90_000) for n in range(200)]
    source = make(tmp_path / "t.tar", [("t/0", FILE, ""), ("t/0", LINK, "x"), *files], "w")
    with tarstream.members(source) as members:
        next(members)
    assert threading.active_count() == before
    with pytest.raises(PiggyError):
        unpacked(source, tmp_path / "src")
    assert threading.active_count() == before
    assert sha256_of(source) == sha256(source)
