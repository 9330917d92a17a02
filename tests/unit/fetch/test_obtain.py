from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from faultyserver import file_server, send, serving

from tasks.config.pins import Package, Source
from tasks.fetch import apt, download, obtain, records
from tasks.fetch.download import Unavailable
from tasks.fetch.records import Obtained
from tasks.system import files
from tasks.system.errors import PiggyError

CONTENT = os.urandom(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BINARY = Package("tool-source", "binary", "usr/src/tool.tar.xz")


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TRIES", 1)


def tool(*urls: str, package: Package | None = None, sha256: str = SHA256) -> Source:
    return Source("tool", "1.2", urls or ("http://127.0.0.1:1/tool-1.2.tar.xz",), sha256, package)


def get(source: Source, dl: Path, **options: object) -> Obtained:
    return obtain.obtain(source, dl=dl, apt_state=dl.parent / "apt", **options)  # type: ignore[arg-type]


def record(dl: Path) -> dict[str, object]:
    return json.loads((dl / "tool.json").read_text())  # type: ignore[no-any-return]


def no_hash(path: Path) -> str:
    raise AssertionError(f"{path} was hashed again")


def test_upstream_is_fetched_once_and_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dl = tmp_path / "deep" / "dl"
    with serving(file_server(CONTENT)) as site:
        url = f"{site.url}/pub/tool-1.2.tar.xz"
        got = get(tool(url), dl)
        assert got == Obtained("tool", dl / "tool-1.2.tar.xz", SHA256, "1.2", url)
        assert got.path.read_bytes() == CONTENT
        monkeypatch.setattr(files, "sha256_of", no_hash)
        assert get(tool(url), dl) == got
        assert get(tool(url), dl, offline=True, mirror="http://127.0.0.1:1") == got
        assert len(site.seen) == 1
    assert sorted(os.listdir(dl)) == [".tool.lock", "tool-1.2.tar.xz", "tool.json"]
    assert {
        key: record(dl)[key]
        for key in ("name", "file", "sha256", "version", "origin", "package", "pinned")
    } == {
        "name": "tool",
        "file": "tool-1.2.tar.xz",
        "sha256": SHA256,
        "version": "1.2",
        "origin": url,
        "package": "",
        "pinned": SHA256,
    }


def test_a_file_put_there_by_hand_is_taken(tmp_path: Path) -> None:
    (tmp_path / "tool-1.2.tar.xz").write_bytes(CONTENT)
    got = get(tool(), tmp_path, offline=True)
    assert (got.origin, got.path) == (records.BY_HAND, tmp_path / "tool-1.2.tar.xz")
    assert get(tool(), tmp_path) == got


def test_the_order_is_mirror_then_upstream(tmp_path: Path) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/good/tool-1.2.tar.xz":
            file_server(CONTENT)(request)
        else:
            send(request, 404)

    with serving(answer) as site:
        got = get(
            tool(f"{site.url}/bad/tool-1.2.tar.xz", f"{site.url}/good/tool-1.2.tar.xz"),
            tmp_path,
            mirror=f"{site.url}/mirror/",
        )
        assert [path for path, _ in site.seen] == [
            "/mirror/tool-1.2.tar.xz",
            "/mirror/tool/tool-1.2.tar.xz",
            "/bad/tool-1.2.tar.xz",
            "/good/tool-1.2.tar.xz",
        ]
        assert got.origin == f"{site.url}/good/tool-1.2.tar.xz"


@pytest.mark.parametrize("below", ["", "tool"])
@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}"])
def test_a_folder_can_be_the_mirror(tmp_path: Path, below: str, form: str) -> None:
    folder = tmp_path / "my mirror" / below
    folder.mkdir(parents=True)
    (folder / "tool-1.2.tar.xz").write_bytes(CONTENT)
    mirror = form.format(tmp_path / "my mirror")
    got = get(
        tool(), tmp_path / "dl", mirror=mirror.replace(" ", "%20") if "://" in mirror else mirror
    )
    assert got.path.read_bytes() == CONTENT
    assert "my" in got.origin


def test_a_mirror_with_another_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "tool-1.2.tar.xz").write_bytes(b"other")
    with serving(file_server(CONTENT)) as site:
        got = get(tool(f"{site.url}/tool-1.2.tar.xz"), tmp_path / "dl", mirror=str(tmp_path))
    assert got.path.read_bytes() == CONTENT
    assert not list((tmp_path / "dl").glob("*.part*"))


@pytest.mark.parametrize(
    "mirror",
    [
        "ftp://x/y",
        "/nowhere",
        "relative/nowhere",
        "http://[::1",
        "file://",
        "http://",
        "/dev",
        "://",
    ],
)
def test_a_mirror_that_is_none_is_one_reason_of_several(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(PiggyError, match=r"could not get tool-1\.2\.tar\.xz") as caught:
        get(tool(), tmp_path / "dl", mirror=mirror)
    assert mirror.rstrip("/") in caught.value.hint


def test_when_all_fail_the_error_has_each_reason_and_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def refuse(*args: object, **options: object) -> Iterator[apt.Fetched]:
        raise Unavailable("this host has no apt")
        yield

    monkeypatch.setattr(apt, "fetched", refuse)
    with serving(
        lambda request: send(request, 404 if "a/" in request.path else 200, b"other")
    ) as site:
        with pytest.raises(PiggyError) as caught:
            get(
                tool(
                    f"{site.url}/a/tool-1.2.tar.xz", f"{site.url}/b/tool-1.2.tar.xz", package=BINARY
                ),
                tmp_path / "dl",
            )
        assert caught.value.message == "could not get tool-1.2.tar.xz"
        lines = [line.strip() for line in caught.value.hint.splitlines()]
        assert f"- {site.url}/a/tool-1.2.tar.xz: HTTP status 404 Not Found" in lines
        wrong = hashlib.sha256(b"other").hexdigest()
        assert (
            f"- {site.url}/b/tool-1.2.tar.xz: wrong content: its sha256 is {wrong}, and should be"
            f" {SHA256}" in lines
        )
        assert "- package tool-source (apt): this host has no apt" in lines
        assert (
            lines[-1]
            == f"or put the file there by hand: {tmp_path}/dl/tool-1.2.tar.xz (sha256 {SHA256})"
        )
        assert "mirror=" in caught.value.hint
    assert os.listdir(tmp_path / "dl") == [".tool.lock"]


def test_offline_looks_only_in_dl(tmp_path: Path) -> None:
    with serving(file_server(CONTENT)) as site:
        for dl in (tmp_path / "nowhere", tmp_path):
            with pytest.raises(PiggyError, match=r"tool-1\.2\.tar\.xz is missing") as caught:
                get(tool(f"{site.url}/tool-1.2.tar.xz"), dl, offline=True, mirror=site.url)
            assert "fetch" in caught.value.hint
            assert SHA256 in caught.value.hint
        assert not site.seen
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("bad", [b"", CONTENT[:-1], CONTENT + b"x", b"<html>"])
def test_a_bad_file_is_moved_aside_and_fetched_again(
    tmp_path: Path, bad: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tool-1.2.tar.xz").write_bytes(bad)
    with pytest.raises(PiggyError, match="is missing"):
        get(tool(), tmp_path, offline=True)
    assert not (tmp_path / "tool-1.2.tar.xz").exists()
    assert (tmp_path / "tool-1.2.tar.xz.bad").read_bytes() == bad
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "tool-1.2.tar.xz is truncated or corrupt, moved to tool-1.2.tar.xz.bad" in said
    with serving(file_server(CONTENT)) as site:
        assert get(tool(f"{site.url}/tool-1.2.tar.xz"), tmp_path).path.read_bytes() == CONTENT


def test_a_verified_file_that_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tool-1.2.tar.xz"
    path.write_bytes(CONTENT)
    get(tool(), tmp_path)
    times = path.stat()
    path.write_bytes(b"X" + CONTENT[1:])
    os.utime(
        path, ns=(times.st_atime_ns, times.st_mtime_ns)
    )  # same size and time: only its ctime tells
    with pytest.raises(PiggyError, match="is missing"):
        get(tool(), tmp_path, offline=True)
    assert (tmp_path / "tool-1.2.tar.xz.bad").exists()


def test_a_touched_file_is_hashed_once_more_and_keeps_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(file_server(CONTENT)) as site:
        got = get(tool(f"{site.url}/tool-1.2.tar.xz"), tmp_path)
    os.utime(got.path)
    assert get(tool(), tmp_path, offline=True) == got
    monkeypatch.setattr(files, "sha256_of", no_hash)
    assert get(tool(), tmp_path, offline=True) == got


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"file": "../../etc/passwd"}',
        "\udce9",
        "[" * 100_000,
        '{"other": ' + "[" * 100_000,
        "9" * 10_000,
        " " * (1 << 20) + "{}",
        "pipe",
        "link",
    ],
)
def test_a_damaged_record_is_no_record(tmp_path: Path, damage: str) -> None:
    (tmp_path / "tool-1.2.tar.xz").write_bytes(CONTENT)
    get(tool(), tmp_path)
    if damage in ("pipe", "link"):
        (tmp_path / "tool.json").unlink()
        (
            os.mkfifo(tmp_path / "tool.json")
            if damage == "pipe"
            else (tmp_path / "tool.json").symlink_to("/dev/zero")
        )
    else:
        (tmp_path / "tool.json").write_bytes(os.fsencode(damage))
    assert get(tool(), tmp_path, offline=True).path.read_bytes() == CONTENT
    assert record(tmp_path)["sha256"] == SHA256


@pytest.mark.parametrize(
    "file",
    [
        "../evil",
        "..",
        ".",
        "",
        "evil/../../evil",
        "ABSOLUTE",
        "evil\0",
        "e\x1bvil",
        "-evil",
        "e" * 300,
    ],
)
def test_a_record_can_not_lead_out_of_dl(tmp_path: Path, file: str) -> None:
    dl = tmp_path / "dl"
    install_package(dl, "1.0-1")
    outside = tmp_path / "evil"
    outside.write_bytes(b"evil")
    file = file.replace("ABSOLUTE", str(outside))
    now = (dl / file).stat() if file in ("..", ".", "") else outside.stat()
    (dl / "tool.json").write_text(
        json.dumps(
            {
                **record(dl),
                "file": file,
                "size": now.st_size,
                "mtime_ns": now.st_mtime_ns,
                "ctime_ns": now.st_ctime_ns,
            }
        )
    )
    with pytest.raises(PiggyError, match="is missing"):
        get(tool(package=BINARY), dl, offline=True)
    assert outside.read_bytes() == b"evil"


@pytest.mark.parametrize("sha256", ["", "xx/etc/passwd", "A" * 64, "0" * 63])
def test_a_record_with_another_hash_than_sha256_is_none(tmp_path: Path, sha256: str) -> None:
    dl = tmp_path / "dl"
    got = install_package(dl, "1.0-1", source=only_packaged())
    now = got.path.stat()
    (dl / "tool.json").write_text(
        json.dumps({**record(dl), "sha256": sha256, "ctime_ns": now.st_ctime_ns})
    )
    with pytest.raises(PiggyError, match="is missing"):
        get(only_packaged(), dl, offline=True)


@pytest.mark.parametrize("version", ["../../evil", "1/2", "1\n2", "1" * 300])
def test_a_packages_version_is_no_way_out_of_dl(tmp_path: Path, version: str) -> None:
    with pytest.raises(PiggyError, match="could not get") as caught:
        install_package(tmp_path / "dl", version)
    assert "can't be the name of a file in" in caught.value.hint
    assert sorted(os.listdir(tmp_path)) == ["apt", "dl"]
    assert os.listdir(tmp_path / "dl") == [".tool.lock"]


def test_a_password_is_used_and_neither_shown_nor_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path.startswith("/good/"):
            file_server(CONTENT)(request)
        else:
            send(request, 404, headers={"X": "y"})

    with serving(answer) as site:
        login = site.url.replace("//", "//me:s3cret@")
        got = get(tool(f"{site.url}/x/tool-1.2.tar.xz"), tmp_path / "dl", mirror=f"{login}/good")
        assert got.origin == f"{site.url}/good/tool-1.2.tar.xz"
        assert site.seen[0][1]["Authorization"].startswith("Basic ")
        with pytest.raises(PiggyError) as caught:
            get(
                tool(f"{login}/bad/tool-1.2.tar.xz?key=s3cret"),
                tmp_path / "dl2",
                mirror="http://me:s3cret@[::1",
            )
    said = capsys.readouterr()
    kept = [path.read_text() for path in (tmp_path / "dl").glob("*.json")]
    assert f"{site.url}/bad/tool-1.2.tar.xz?...: HTTP status 404" in caught.value.hint
    for text in (said.out, said.err, str(caught.value), *kept):
        assert "s3cret" not in text


def test_a_password_in_an_earlier_record_is_removed(tmp_path: Path) -> None:
    with serving(file_server(CONTENT)) as site:
        got = get(tool(f"{site.url}/tool-1.2.tar.xz"), tmp_path)
    old = {**record(tmp_path), "origin": got.origin.replace("//", "//me:s3cret@")}
    (tmp_path / "tool.json").write_text(json.dumps(old))
    assert get(tool(), tmp_path, offline=True) == got
    assert record(tmp_path)["origin"] == got.origin


def test_what_a_server_says_is_shown_in_plain_letters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(404, "\x1b]0;owned\x07")
        request.end_headers()

    with serving(answer) as site, pytest.raises(PiggyError) as caught:
        get(tool(f"{site.url}/tool-1.2.tar.xz"), tmp_path)
    assert "HTTP status 404 \\x1b]0;owned\\x07" in caught.value.hint
    assert "\x1b" not in capsys.readouterr().out + str(caught.value)


def test_a_mirror_that_is_a_folder_does_not_write_through_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "tool-1.2.tar.xz").write_bytes(CONTENT)
    (tmp_path / "dl").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "dl" / "tool-1.2.tar.xz.part").symlink_to("../precious")
    got = get(tool(), tmp_path / "dl", mirror=str(tmp_path / "mirror"))
    assert (got.path.read_bytes(), (tmp_path / "precious").read_bytes()) == (CONTENT, b"precious")


def install_package(
    dl: Path,
    version: str,
    content: bytes = b"the distribution's tarball",
    package: Package = BINARY,
    source: Source | None = None,
    mirror: str = "",
) -> Obtained:
    """Get `tool` from a package, as if apt had given a .deb with that tarball, and upstream did not
    answer."""

    @contextlib.contextmanager
    def fetched(package: Package, state: Path, **options: object) -> Iterator[apt.Fetched]:
        state.mkdir(parents=True, exist_ok=True)
        deb = state / ("tool.deb" if package.kind == "binary" else "tool_1.0.orig.tar.gz")
        deb.write_bytes(content)
        yield apt.Fetched(deb, version)

    def tarball_in(deb: Path, member: str, target: Path) -> None:
        assert member == BINARY.member
        target.write_bytes(deb.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apt, "fetched", fetched)
        patch.setattr(apt, "tarball_in", tarball_in)
        return get(source or tool(package=package), dl, mirror=mirror)


def test_a_package_is_recorded_with_its_version(tmp_path: Path) -> None:
    got = install_package(tmp_path / "dl", "1:1.0.5-2+deb12u1")
    assert got.path == tmp_path / "dl" / "tool-source_1.0.5-2+deb12u1.tar.xz"
    assert (got.version, got.origin) == ("1.0.5", "package tool-source 1:1.0.5-2+deb12u1 (apt)")
    assert got.sha256 == hashlib.sha256(b"the distribution's tarball").hexdigest()
    assert (record(tmp_path / "dl")["package"], record(tmp_path / "dl")["package_version"]) == (
        "tool-source",
        "1:1.0.5-2+deb12u1",
    )
    assert (
        get(tool(package=BINARY), tmp_path / "dl", offline=True) == got
    )  # and needs no apt any more


def test_a_spoiled_tarball_of_a_package_is_moved_aside(tmp_path: Path) -> None:
    got = install_package(tmp_path / "dl", "1.0-1")
    got.path.write_bytes(b"spoiled")
    with pytest.raises(PiggyError, match="is missing"):
        get(tool(package=BINARY), tmp_path / "dl", offline=True)
    assert not got.path.exists()
    assert got.path.with_name(got.path.name + ".bad").exists()


def test_upstreams_file_put_there_later_goes_before_a_package(tmp_path: Path) -> None:
    dl = tmp_path / "dl"
    package = install_package(dl, "1.0-1")
    (dl / "tool-1.2.tar.xz").write_bytes(b"bad")
    assert get(tool(package=BINARY), dl, offline=True) == package
    assert (dl / "tool-1.2.tar.xz.bad").exists()
    (dl / "tool-1.2.tar.xz").write_bytes(CONTENT)
    got = get(tool(package=BINARY), dl, offline=True)
    assert (got.path.name, got.origin) == ("tool-1.2.tar.xz", records.BY_HAND)


def test_a_changed_pin_is_not_served_by_an_old_package(tmp_path: Path) -> None:
    dl = tmp_path / "dl"
    install_package(dl, "1.0-1")
    for other in (
        tool(package=BINARY, sha256="0" * 64),
        tool(package=Package("other", "source")),
        tool(),
    ):
        with pytest.raises(PiggyError, match="is missing"):
            get(other, dl, offline=True)


def only_packaged(package: Package = BINARY) -> Source:
    return Source("tool", "1", package=package)


def test_what_only_the_distribution_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dl = tmp_path / "dl"
    with serving(file_server(CONTENT)) as site:
        got = install_package(dl, "1.0.5-2", source=only_packaged(), mirror=site.url)
        assert not site.seen  # nothing that a mirror gives could be checked
    assert (got.path.name, got.version) == ("tool-source_1.0.5-2.tar.xz", "1.0.5")
    assert (record(dl)["pinned"], record(dl)["sha256"]) == ("", got.sha256)
    (dl / "tool.tar.xz").write_bytes(b"put there by hand, under the name in messages")
    with monkeypatch.context() as patch:
        patch.setattr(files, "sha256_of", no_hash)
        assert get(only_packaged(), dl, offline=True) == got
    os.utime(got.path)
    assert get(only_packaged(), dl, offline=True) == got  # hashed, and as recorded
    got.path.write_bytes(b"spoiled")
    with pytest.raises(PiggyError, match=r"tool\.tar\.xz is missing") as caught:
        get(only_packaged(), dl, offline=True)
    assert f"copy {dl}/tool.json and the file that it names" in caught.value.hint
    assert "None" not in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"pinned": "0" * 64},
        {"package": ""},
        {"package": "other"},
        {"file": "tool.tar.xz"},
        {"name": "other"},
    ],
)
def test_a_record_that_proves_nothing_is_none(tmp_path: Path, change: dict[str, str]) -> None:
    dl = tmp_path / "dl"
    got = install_package(dl, "1.0-1", source=only_packaged())
    if "file" in change:
        got.path.rename(dl / change["file"])
    (dl / "tool.json").write_text(json.dumps({**record(dl), **change}))
    with pytest.raises(PiggyError, match="is missing"):
        get(only_packaged(), dl, offline=True)


def test_a_package_of_another_suite_that_can_not_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def refuse(*args: object, **options: object) -> Iterator[apt.Fetched]:
        raise Unavailable("there is no suite 'sid' at this server")
        yield

    monkeypatch.setattr(apt, "fetched", refuse)
    with pytest.raises(PiggyError, match=r"could not get tool\.tar\.xz") as caught:
        get(
            only_packaged(Package("tool-source", "binary", "usr/src/tool.tar.xz", suite="sid")),
            tmp_path / "dl",
        )
    assert "- package tool-source of sid (apt): there is no suite 'sid'" in caught.value.hint
    assert "mirror=" not in caught.value.hint


def test_an_identical_package_must_have_the_pins_hash(tmp_path: Path) -> None:
    same = Package("tool", "source", identical=True)
    got = install_package(tmp_path / "dl", "1:1.2-3", CONTENT, same)
    assert (got.path.name, got.version, got.sha256) == ("tool-1.2.tar.xz", "1.2", SHA256)
    with pytest.raises(PiggyError) as caught:
        install_package(tmp_path / "dl2", "1.3-1", b"another version", same)
    wrong = hashlib.sha256(b"another version").hexdigest()
    assert f"tool_1.0.orig.tar.gz has sha256 {wrong}, and should have {SHA256}" in caught.value.hint
    assert os.listdir(tmp_path / "dl2") == [".tool.lock"]


def test_trouble_with_apts_folder_is_one_reason_of_several(tmp_path: Path) -> None:
    if not apt.shutil.which("apt-get"):
        pytest.skip("apt is not installed")
    (tmp_path / "apt").write_text("a file")
    with pytest.raises(PiggyError, match="could not get") as caught:
        get(tool(package=BINARY), tmp_path / "dl")
    assert "refuses the connection" in caught.value.hint
    assert (
        f"can't write {tmp_path}/apt: a file stands where a folder is wanted" in caught.value.hint
    )


def test_dl_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "dl").write_text("")
    with pytest.raises(PiggyError, match="dl: a file stands where a folder is wanted"):
        get(tool(), tmp_path / "dl")


def test_a_folder_under_the_files_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tool-1.2.tar.xz").mkdir()
    with pytest.raises(PiggyError, match=r"tool-1\.2\.tar\.xz is not a file"):
        get(tool(), tmp_path)


def test_a_dl_that_is_read_only_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dl = tmp_path / "dl"
    package = install_package(dl, "1.0-1")
    os.utime(package.path)
    monkeypatch.setattr(obtain.os, "access", lambda path, mode: path != dl)
    before = sorted(os.listdir(dl)), (dl / "tool.json").read_bytes()
    assert get(tool(package=BINARY), dl) == package
    with pytest.raises(
        PiggyError, match=r"has no good tool-1\.2\.tar\.xz, and can't be written to"
    ):
        get(tool(), dl)
    assert (sorted(os.listdir(dl)), (dl / "tool.json").read_bytes()) == before


def test_a_full_disk_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(part: Path, have: int) -> io.FileIO:
        return io.FileIO("/dev/full", "ab")

    monkeypatch.setattr(download, "_open", full)
    with (
        serving(file_server(CONTENT)) as site,
        pytest.raises(PiggyError, match="no space left") as caught,
    ):
        get(tool(f"{site.url}/a/tool-1.2.tar.xz", f"{site.url}/b/tool-1.2.tar.xz"), tmp_path)
    assert len(site.seen) == 1
    assert "200.0 kB needed" in caught.value.message
    assert os.listdir(tmp_path) == [".tool.lock"]


def test_killed_in_the_middle_the_next_call_goes_on(tmp_path: Path) -> None:
    gate = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.headers.get("Range"):
            file_server(CONTENT)(request)
        else:
            send(request, 200, CONTENT[:50_000], {"ETag": '"v1"'}, length=len(CONTENT))
            gate.wait(20)

    with serving(answer) as site:
        url = f"{site.url}/tool-1.2.tar.xz"
        code = (
            "from pathlib import Path; from tasks.fetch import obtain;"
            " from tasks.config import pins;"
            f" obtain.obtain(pins.Source('tool', '1.2', ({url!r},), {SHA256!r}),"
            f" dl=Path({str(tmp_path)!r}), apt_state=Path('/nonexistent'))"
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3])
        part = tmp_path / "tool-1.2.tar.xz.part"
        end = time.monotonic() + 20
        while download.size_of(part) < 50_000 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        gate.set()
        assert part.stat().st_size == 50_000
        assert not (tmp_path / "tool-1.2.tar.xz").exists()
        assert get(tool(url), tmp_path).path.read_bytes() == CONTENT
        assert site.ranges() == ["", "bytes=50000-"]
        assert site.seen[1][1]["If-Range"] == '"v1"'
    assert sorted(os.listdir(tmp_path)) == [".tool.lock", "tool-1.2.tar.xz", "tool.json"]


def test_two_at_once_fetch_once_and_the_second_says_that_it_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: (hashed.append(path), real(path))[1])

    def slow(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.4)
        file_server(CONTENT)(request)

    got: list[Obtained] = []
    with serving(slow) as site:
        threads = [
            threading.Thread(
                target=lambda: got.append(get(tool(f"{site.url}/tool-1.2.tar.xz"), tmp_path))
            )
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(site.seen) == 1
    assert got[0] == got[1]
    assert len(hashed) == 1
    assert "tool-1.2.tar.xz is in use by another run" in capsys.readouterr().err
