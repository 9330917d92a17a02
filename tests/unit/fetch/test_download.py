from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from faultyserver import Answer, Site, closed_port, file_server, send, serving

from tasks.fetch import download, webclient
from tasks.fetch.download import Unavailable
from tasks.system import files
from tasks.system.errors import PiggyError

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.tar.xz.part"


def fetch(site: Site, part: Path, naps: list[float] | None = None) -> None:
    waits = naps if naps is not None else []
    download.download(f"{site.url}/file.tar.xz", part, SHA256, sleep=waits.append)


def note(part: Path, url: str, validator: str) -> None:
    download.side_of(part).write_text(json.dumps({"url": url, "validator": validator}))


def in_turn(*answers: Answer) -> Answer:
    """Answer each request by the next of `answers`, the last one again and again."""
    left = list(answers)

    def answer(request: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


def test_a_whole_file(part: Path) -> None:
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert part.read_bytes() == CONTENT
        assert os.listdir(part.parent) == [part.name]  # no note stays
        assert site.seen[0][1]["Accept-Encoding"] == "identity"
        assert site.ranges() == [""]


def test_a_broken_line_is_taken_up_where_it_broke(part: Path) -> None:
    naps: list[float] = []
    with serving(file_server(CONTENT, first_bytes=120_000)) as site:
        fetch(site, part, naps)
        assert part.read_bytes() == CONTENT
        assert site.ranges() == ["", "bytes=120000-"]
        assert site.seen[1][1]["If-Range"] == '"v1"'
        assert len(naps) == 1


def test_what_an_earlier_run_left_is_gone_on_with(part: Path) -> None:
    part.write_bytes(CONTENT[:7])
    with serving(file_server(CONTENT)) as site:
        note(part, f"{site.url}/file.tar.xz", '"v1"')
        fetch(site, part)
        assert part.read_bytes() == CONTENT
        assert [(seen["Range"], seen["If-Range"]) for _, seen in site.seen] == [
            ("bytes=7-", '"v1"')
        ]


def test_another_server_may_go_on_without_the_first_ones_etag(part: Path) -> None:
    part.write_bytes(CONTENT[:7])
    note(part, "http://elsewhere/file.tar.xz", '"other"')
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert part.read_bytes() == CONTENT
        assert site.ranges() == ["bytes=7-"]
        assert "If-Range" not in site.seen[0][1]


def test_a_file_that_changed_meanwhile_starts_again(part: Path) -> None:
    part.write_bytes(b"of the older version")
    with serving(file_server(CONTENT, etag='"v2"')) as site:
        note(part, f"{site.url}/file.tar.xz", '"v1"')
        fetch(site, part)
        assert part.read_bytes() == CONTENT
        assert len(site.seen) == 1


def test_a_weak_etag_is_no_validator(part: Path) -> None:
    date = "Tue, 01 Sep 2026 00:00:00 GMT"
    first = in_turn(
        lambda request: send(
            request,
            200,
            CONTENT[:9],
            {"ETag": 'W/"v1"', "Last-Modified": date},
            length=len(CONTENT),
        ),
        file_server(CONTENT, etag=date),
    )
    with serving(first) as site:
        fetch(site, part)
        assert site.seen[1][1]["If-Range"] == date


def test_a_server_without_ranges_starts_again(part: Path) -> None:
    part.write_bytes(CONTENT[:1000])
    with serving(lambda request: send(request, 200, CONTENT)) as site:
        fetch(site, part)
        assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", ["bytes 5-299999/300000", "", "bytes */300000", "nonsense"])
def test_a_wrong_range_starts_again(part: Path, wrong: str) -> None:
    part.write_bytes(CONTENT[:1000])
    answer = in_turn(
        lambda request: send(request, 206, CONTENT[5:], {"Content-Range": wrong}),
        file_server(CONTENT),
    )
    with serving(answer) as site:
        fetch(site, part)
        assert part.read_bytes() == CONTENT
        assert site.ranges() == ["bytes=1000-", ""]


def test_a_complete_part_is_not_fetched_again(part: Path) -> None:
    part.write_bytes(CONTENT)
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert site.ranges() == ["bytes=300000-"]


def test_a_part_longer_than_the_file_starts_again(part: Path) -> None:
    part.write_bytes(CONTENT + b"more")
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert part.read_bytes() == CONTENT


def test_a_spoiled_part_is_fetched_once_more_in_one_piece(part: Path) -> None:
    part.write_bytes(b"x" * 1000)
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert part.read_bytes() == CONTENT
        assert site.ranges() == ["bytes=1000-", ""]


def test_wrong_content_names_both_hashes_and_leaves_nothing(part: Path) -> None:
    with serving(file_server(b"something else")) as site:
        with pytest.raises(Unavailable) as caught:
            fetch(site, part)
        assert SHA256 in str(caught.value)
        assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
        assert not os.listdir(part.parent)
        assert len(site.seen) == 1


def test_spoiled_part_and_wrong_content_end_too(part: Path) -> None:
    part.write_bytes(b"some")
    with serving(file_server(b"something else")) as site:
        with pytest.raises(Unavailable, match="wrong content"):
            fetch(site, part)
        assert len(site.seen) == 2
        assert not os.listdir(part.parent)


def test_a_busy_server_is_asked_again_with_growing_waits(part: Path) -> None:
    naps: list[float] = []
    busy: Answer = lambda request: send(request, 503)  # noqa: E731
    with serving(in_turn(busy, busy, busy, file_server(CONTENT))) as site:
        fetch(site, part, naps)
        assert part.read_bytes() == CONTENT
    assert len(naps) == 3
    assert naps[0] == 0
    assert 2 <= naps[1] <= 3
    assert 4 <= naps[2] <= 5


def test_retry_after_is_obeyed_within_reason(part: Path) -> None:
    naps: list[float] = []
    answers = in_turn(
        lambda request: send(request, 429, headers={"Retry-After": "7"}),
        lambda request: send(request, 503, headers={"Retry-After": "86400"}),
        file_server(CONTENT),
    )
    with serving(answers) as site:
        fetch(site, part, naps)
    assert naps == [7, download.LONGEST_WAIT]


def test_retry_after_may_be_a_date(part: Path) -> None:
    naps: list[float] = []
    date = formatdate(time.time() + 20, usegmt=True)
    soon = in_turn(
        lambda request: send(request, 503, headers={"Retry-After": date}), file_server(CONTENT)
    )
    with serving(soon) as site:
        fetch(site, part, naps)
    assert 10 < naps[0] <= 20


@pytest.mark.parametrize(
    "odd", ["9" * 5000, "-3", "soon", "1e3", "\u00b2", "Tue, 01 Jan 99999999 00:00:00 GMT", "inf"]
)
def test_an_odd_retry_after_is_no_wait(part: Path, odd: str) -> None:
    naps: list[float] = []
    answers = in_turn(
        lambda request: send(request, 503, headers={"Retry-After": odd}), file_server(CONTENT)
    )
    with serving(answers) as site:
        fetch(site, part, naps)
    assert naps == [0]


def test_the_body_of_a_failure_is_not_read(part: Path) -> None:
    sent: list[int] = []

    def endless(request: BaseHTTPRequestHandler) -> None:
        send(request, 503, length=-1)
        for _ in range(2000):
            request.wfile.write(bytes(100_000))
            sent.append(100_000)

    with serving(endless) as site, pytest.raises(Unavailable, match="HTTP status 503"):
        fetch(site, part)
    assert sum(sent) < 20_000_000 * download.TRIES  # what fits into the kernel's buffers


def test_tries_are_counted_over_all_kinds_of_failures(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_TRIES", 8)
    monkeypatch.setattr(download, "PROGRESS", 1)

    def answer(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, CONTENT[: 10 + len(site.seen)], length=len(CONTENT))

    with serving(answer) as site:
        with pytest.raises(Unavailable, match=r"\(8 tries\)"):
            fetch(site, part)
        assert len(site.seen) == 8


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_that_stays_broken_is_given_up(part: Path, status: int) -> None:
    with serving(lambda request: send(request, status)) as site:
        with pytest.raises(Unavailable, match=f"HTTP status {status}"):
            fetch(site, part)
        assert len(site.seen) == download.TRIES


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_final(part: Path, status: int) -> None:
    naps: list[float] = []
    with serving(lambda request: send(request, status, b"<html>no</html>")) as site:
        with pytest.raises(Unavailable, match=f"HTTP status {status}"):
            fetch(site, part, naps)
        assert (len(site.seen), naps, os.listdir(part.parent)) == (1, [], [])


def test_a_line_that_breaks_at_once_every_time_is_given_up(part: Path) -> None:
    def hang_up(request: BaseHTTPRequestHandler) -> None:
        request.connection.shutdown(socket.SHUT_RDWR)

    with serving(hang_up) as site:
        with pytest.raises(Unavailable, match="the connection broke"):
            fetch(site, part)
        assert len(site.seen) == download.TRIES


def test_a_line_that_breaks_but_brings_something_goes_on(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS", 20_000)

    def answer(request: BaseHTTPRequestHandler) -> None:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        send(
            request,
            206 if start else 200,
            CONTENT[start : start + 25_000],
            {"Content-Range": f"bytes {start}-299999/300000"},
            length=len(CONTENT) - start,
        )

    with serving(answer) as site:
        fetch(site, part)
        assert len(site.seen) == 12
    assert part.read_bytes() == CONTENT


def test_an_endless_file_is_cut_off(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "LIMIT", 1_000_000)

    def endless(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, length=-1)
        while True:
            request.wfile.write(bytes(100_000))

    with serving(endless) as site:
        with pytest.raises(Unavailable, match=r"it sends more than 1\.0 MB"):
            fetch(site, part)
        assert not os.listdir(part.parent)


def test_a_file_that_says_it_is_huge_is_not_begun(part: Path) -> None:
    with serving(lambda request: send(request, 200, b"x", length=download.LIMIT + 1)) as site:
        with pytest.raises(Unavailable, match="no source is that big"):
            fetch(site, part)
        assert not part.exists()


def test_chunked_and_encoded_answers_are_taken_as_they_are(part: Path) -> None:
    def chunked(request: BaseHTTPRequestHandler) -> None:
        request.protocol_version = "HTTP/1.1"
        send(
            request,
            200,
            b"",
            {"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"},
            length=-1,
        )
        for at in range(0, len(CONTENT), 70_000):
            piece = CONTENT[at : at + 70_000]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        request.wfile.write(b"0\r\n\r\n")

    with serving(chunked) as site:
        fetch(site, part)
    assert part.read_bytes() == CONTENT


def test_a_redirect_is_followed_but_only_to_the_web(part: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with (
        serving(file_server(CONTENT)) as good,
        serving(
            lambda request: send(request, 302, headers={"Location": f"{good.url}/there"})
        ) as site,
    ):
        fetch(site, part)
        assert part.read_bytes() == CONTENT
    part.unlink()
    for target in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"):

        def redirect(request: BaseHTTPRequestHandler, to: str = target) -> None:
            send(request, 302, headers={"Location": to})

        with serving(redirect) as site:
            with pytest.raises(Unavailable):
                fetch(site, part)
            assert len(site.seen) == 1
    with (
        serving(lambda request: send(request, 302, headers={"Location": request.path})) as site,
        pytest.raises(Unavailable, match="redirects"),
    ):
        fetch(site, part)
    assert not part.exists()


def test_a_name_that_does_not_resolve_fails_at_once(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fail(host: str, *args: object, **kwargs: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    naps: list[float] = []
    with pytest.raises(
        Unavailable, match=r"the host name of http://files\.example .* does not resolve"
    ):
        download.download("http://files.example/x", part, SHA256, sleep=naps.append)
    assert (asked, naps) == (["files.example"], [])


def test_nobody_at_that_port_fails_at_once(part: Path) -> None:
    naps: list[float] = []
    with pytest.raises(Unavailable, match="refuses the connection"):
        download.download(f"http://127.0.0.1:{closed_port()}/x", part, SHA256, sleep=naps.append)
    assert not naps


@pytest.mark.parametrize(
    "url", ["http://", "http://[::1", "nonsense", "http://a..b/x", "http://127.0.0.1:99999/x"]
)
def test_an_address_that_is_none_is_unavailable(part: Path, url: str) -> None:
    with pytest.raises(Unavailable):
        download.download(url, part, SHA256, sleep=lambda _: None)


def test_a_silent_server_times_out(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "READ_SECONDS", 0.1)
    with serving(lambda request: time.sleep(2)) as site:
        with pytest.raises(Unavailable, match="is silent"):
            fetch(site, part)
        assert len(site.seen) == download.TRIES


def test_a_dripping_server_is_as_good_as_dead(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webclient, "STALL_SECONDS", 0.3)

    def drip(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, length=len(CONTENT))
        for at in range(100):
            request.wfile.write(CONTENT[at : at + 1])
            time.sleep(0.05)

    started = time.monotonic()
    with serving(drip) as site, pytest.raises(Unavailable, match="bytes in"):
        fetch(site, part)
    assert time.monotonic() - started < 3


def test_a_full_disk_is_an_error_that_leaves_nothing(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(part: Path, have: int) -> io.FileIO:
        return io.FileIO("/dev/full", "ab")

    monkeypatch.setattr(download, "_open", full)
    with (
        serving(file_server(CONTENT)) as site,
        pytest.raises(PiggyError, match=r"no space left .*300\.0 kB needed"),
    ):
        fetch(site, part)
    assert not os.listdir(part.parent)


def test_a_disk_too_small_is_noticed_before_the_download(
    part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free", lambda path: 299_999)
    with (
        serving(file_server(CONTENT)) as site,
        pytest.raises(PiggyError, match=r"300\.0 kB needed"),
    ):
        fetch(site, part)
    assert not os.listdir(part.parent)


@pytest.mark.parametrize("name", ["file.tar.xz.part", "file.tar.xz.part.from"])
def test_a_folder_in_place_of_the_part_is_an_error(part: Path, name: str) -> None:
    (part.parent / name).mkdir()
    if name.endswith(".from"):
        part.write_bytes(CONTENT[:7])
    with (
        serving(file_server(CONTENT)) as site,
        pytest.raises(PiggyError, match=f"/{name} is a folder, and a file belongs"),
    ):
        fetch(site, part)


@pytest.mark.parametrize("kind", ["link", "broken link", "pipe", "second name", "somebody else's"])
def test_only_a_plain_file_of_ours_is_gone_on_with(
    part: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = part.parent / "precious"
    precious.write_bytes(CONTENT[:7])
    if kind == "link":
        part.symlink_to(precious)
    elif kind == "broken link":
        part.symlink_to(part.parent / "new")
    elif kind == "pipe":
        os.mkfifo(part)
    elif kind == "second name":
        os.link(precious, part)
    else:
        part.write_bytes(CONTENT[:7])
        other = part.stat().st_uid + 1
        monkeypatch.setattr(download.os, "geteuid", lambda: other)
        monkeypatch.setattr(download, "_open", lambda part, have: part.open("xb", buffering=0))
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert site.ranges() == [""]
    assert part.read_bytes() == CONTENT
    assert not part.is_symlink()
    assert precious.read_bytes() == CONTENT[:7]
    assert sorted(os.listdir(part.parent)) == [part.name, "precious"]


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_that_comes_after_the_look_is_not_written_through(
    part: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = part.parent / "precious"
    precious.write_bytes(CONTENT[:7])
    part.write_bytes(CONTENT[:7])
    real = download._open

    def planted(part: Path, have: int) -> object:
        part.unlink()
        part.symlink_to(precious) if kind == "link" else os.mkfifo(part)
        return real(part, have)

    monkeypatch.setattr(download, "_open", planted)
    with serving(file_server(CONTENT)) as site, pytest.raises(PiggyError, match="can't write"):
        fetch(site, part)
    assert precious.read_bytes() == CONTENT[:7]


ODD_NOTES = {
    "injection": json.dumps({"url": "", "validator": '"a"\r\nX-Evil: 1'}),
    "huge": '{"url": "' + "x" * 70_000 + '"}',
    "weak": '{"url": "", "validator": "W/1"}',
    "a long tag": json.dumps({"url": "", "validator": f'"{"x" * 5000}"'}),
    "no latin-1": json.dumps({"url": "", "validator": '"\u20ac"'}),
    "no JSON": "{",
    "a list": "[]",
    "null": "null",
    "a number": '{"url": 1, "validator": 2}',
    "deep": "[" * 60_000,
    "no UTF-8": "\udcff",
    "NUL": "\0",
    "an escape": json.dumps({"url": "", "validator": '"\x1b[2J"'}),
}


@pytest.mark.parametrize("odd", [*ODD_NOTES, "pipe", "link", "empty"])
def test_an_odd_note_is_nothing_to_go_on_with(part: Path, odd: str) -> None:
    part.write_bytes(CONTENT[:7])
    side = download.side_of(part)
    if odd == "pipe":
        os.mkfifo(side)
    elif odd == "link":
        (part.parent / "precious").write_text(json.dumps({"url": "", "validator": ""}))
        side.symlink_to("precious")
    else:
        side.write_bytes(os.fsencode(ODD_NOTES.get(odd, "")))
    with serving(file_server(CONTENT)) as site:
        fetch(site, part)
        assert [
            (seen.get("Range"), seen.get("If-Range"), seen.get("X-Evil")) for _, seen in site.seen
        ] == [(None,) * 3]
    assert part.read_bytes() == CONTENT
    assert os.listdir(part.parent).count(side.name) == 0


@pytest.mark.parametrize("etag", ['"a\x1b[2J"', '"' + "x" * 3000 + '"', '"a" b', "\xe4"])
def test_an_odd_validator_is_not_kept(part: Path, etag: str) -> None:
    def first(request: BaseHTTPRequestHandler) -> None:
        send(request, 200, CONTENT[:9], {"ETag": etag}, length=len(CONTENT))

    with serving(in_turn(first, file_server(CONTENT))) as site:
        fetch(site, part)
        assert [seen.get("If-Range") for _, seen in site.seen] == [None, None]
    assert part.read_bytes() == CONTENT


def test_no_password_is_kept_beside_a_part(part: Path) -> None:
    answer = in_turn(
        lambda request: send(request, 200, CONTENT[:9], {"ETag": '"v1"'}, length=len(CONTENT)),
        file_server(CONTENT),
    )
    notes: list[str] = []
    with serving(answer) as site:
        url = site.url.replace("//", "//me:s%40cret@") + "/f?key=s3cret"
        download.download(
            url, part, SHA256, sleep=lambda _: notes.append(download.side_of(part).read_text())
        )
        assert [(path, seen["Authorization"]) for path, seen in site.seen] == [
            ("/f?key=s3cret", "Basic " + base64.b64encode(b"me:s@cret").decode())
        ] * 2
        assert site.seen[1][1]["If-Range"] == '"v1"'  # the note is known again
        assert json.loads(notes[0]) == {"url": f"{site.url}/f?...", "validator": '"v1"'}
