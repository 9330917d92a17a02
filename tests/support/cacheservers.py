"""Real servers for a shared store, each started by the test on a free port, and a stand-in for
bazel-remote."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from faultyserver import closed_port

NGINX = """\
daemon off; master_process off; worker_processes 1; pid {run}/pid; error_log {run}/error.log;
events {{}}
http {{
    log_format short '$request_method $uri $status'; access_log {run}/access.log short;
    client_body_temp_path {run}/body; proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi; uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        location / {{
            dav_methods PUT;
            create_full_put_path on;
            client_max_body_size 1g;
            {more}
        }}
    }}
}}
"""
WSGIDAV = """\
import sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp
from wsgidav.fs_dav_provider import FilesystemProvider
users = {"ci": {"password": "secret"}} if sys.argv[3:] else True
wsgi.Server(("127.0.0.1", int(sys.argv[2])), WsgiDAVApp({
    "provider_mapping": {"/": FilesystemProvider(sys.argv[1])},
    "simple_dc": {"user_mapping": {"*": users}},
    "http_authenticator": {"accept_basic": True, "accept_digest": False},
    "verbose": 0,
})).start()
"""


@dataclass
class Running:
    """A server: its address, and the folder that its files lie in."""

    url: str
    root: Path

    def files(self, kind: str) -> list[Path]:
        """The files of `ac` or `cas`."""
        return sorted(path for path in self.root.rglob(f"{kind}/*") if path.is_file())

    def requests(self) -> list[str]:
        """Method, path and status of each request, of nginx."""
        return (self.root.parent / "access.log").read_text().splitlines()


@contextlib.contextmanager
def nginx(run: Path, more: str = "") -> Iterator[Running]:
    """The distribution's nginx with its WebDAV module.

    run: a folder for it; more: lines for its `location`.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if not program:
        pytest.skip("nginx is not installed")
    root = run / "root"
    root.mkdir(parents=True)
    port = closed_port()
    (run / "conf").write_text(NGINX.format(run=run, root=root, port=port, more=more))
    with _started([program, "-e", f"{run}/error.log", "-c", f"{run}/conf"], port):
        yield Running(f"http://127.0.0.1:{port}/piggy", root)


@contextlib.contextmanager
def wsgidav(run: Path, login: bool = False) -> Iterator[Running]:
    """WsgiDAV, whose folders must be made one by one; with a login, "ci" and "secret"."""
    pytest.importorskip("wsgidav")
    root = run / "root"
    root.mkdir(parents=True)
    port = closed_port()
    words = [sys.executable, "-c", WSGIDAV, str(root), str(port), *(["login"] if login else [])]
    with _started(words, port):
        yield Running(f"http://127.0.0.1:{port}", root)


@contextlib.contextmanager
def _started(argv: Sequence[str], port: int) -> Iterator[None]:
    """A server, once it accepts connections."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until = time.monotonic() + 30
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/")
                connection.getresponse().read()
                break
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < until, f"{argv[0]} does not answer"
                time.sleep(0.05)
            finally:
                connection.close()
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def messages() -> Any:
    """The class ActionResult of the protobuf library."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="re.proto", package="re", syntax="proto3")
    kinds = {"string": 9, "int64": 3, "bool": 8, "bytes": 12, "int32": 5}
    for message, fields in {
        "Digest": [("hash", 1, "string"), ("size_bytes", 2, "int64")],
        "OutputFile": [
            ("path", 1, "string"),
            ("digest", 2, "Digest"),
            ("is_executable", 4, "bool"),
            ("contents", 5, "bytes"),
        ],
        "ExecutedActionMetadata": [("worker", 1, "string")],
        "ActionResult": [
            ("output_files", 2, "OutputFile"),
            ("exit_code", 4, "int32"),
            ("stdout_raw", 5, "bytes"),
            ("stderr_raw", 7, "bytes"),
            ("execution_metadata", 9, "ExecutedActionMetadata"),
        ],
    }.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            one = described.field.add(name=name, number=number, label=1, json_name=name)
            one.label = 3 if name == "output_files" else 1
            one.type = kinds.get(kind, 11)
            if kind not in kinds:
                one.type_name = f".re.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("re.ActionResult"))


@dataclass
class Bazel:
    """What a stand-in for bazel-remote holds and saw; its rules are those of server/http.go and of
    cache/cache.go there: what is put in `cas` must have its name's digest; what is put in `ac` must
    be an ActionResult, gets the name of the worker, and is given only while its files are there."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status


@contextlib.contextmanager
def bazel() -> Iterator[Bazel]:
    """A stand-in for bazel-remote with its default validation."""
    kind, site = messages(), Bazel()

    def put(path: str, data: bytes) -> int:
        folder, _, name = path.rpartition("/")
        if folder.endswith("cas"):
            if hashlib.sha256(data).hexdigest() != name:
                return 400
            site.files[path] = data
            return 200
        result = kind()
        try:
            result.ParseFromString(data)
        except Exception:
            return 400
        for file in result.output_files:
            if not file.path or file.path.startswith("/") or file.digest.size_bytes < 0:
                return 400
            if not re.fullmatch("[0-9a-f]{64}", file.digest.hash):
                return 400
        if not data:
            return 400
        result.execution_metadata.worker = result.execution_metadata.worker or "127.0.0.1:1"
        site.files[path] = result.SerializeToString()
        return 200

    def get(path: str) -> bytes | None:
        folder, _, name = path.rpartition("/")
        if name == hashlib.sha256().hexdigest() and folder.endswith("cas"):
            return b""
        data = site.files.get(path)
        if data is not None and folder.endswith("ac"):
            result = kind()
            result.ParseFromString(data)
            for file in result.output_files:
                there = site.files.get(f"{folder.removesuffix('ac')}cas/{file.digest.hash}")
                if there is None or len(there) != file.digest.size_bytes:
                    return None
        return data

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self, status: int, data: bytes = b"") -> None:
            site.asked.append((self.command, self.path, status))
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_GET(self) -> None:
            if not re.fullmatch(r"/(.*/)?(ac|cas)/[0-9a-f]{64}", self.path):
                self.answer(400)
                return
            data = get(self.path)
            self.answer(404 if data is None else 200, data or b"")

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            length = self.headers.get("Content-Length")
            if length is None or not re.fullmatch(r"/(.*/)?(ac|cas)/[0-9a-f]{64}", self.path):
                self.close_connection = True
                self.answer(400)
                return
            self.answer(put(self.path, self.rfile.read(int(length))))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as url:
        site.url = f"{url}/prefix"
        yield site


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server in threads of this process; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


SERVERS: dict[str, Callable[[Path], Any]] = {
    "nginx": nginx,
    "wsgidav": wsgidav,
    "bazel": lambda run: bazel(),
}


@dataclass
class Keys:
    """A private key, and the file that lists it as a signer's."""

    key: Path
    signers: Path

    def believe(self, *others: Keys) -> None:
        """List others' keys, too."""
        with self.signers.open("a") as file:
            for other in others:
                file.write(other.signers.read_text().splitlines()[0] + "\n")


def keys(folder: Path, name: str = "ci@example.org") -> Keys:
    """Make a key pair, and its owner's allowed_signers."""
    if not shutil.which("ssh-keygen"):
        pytest.skip("ssh-keygen is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / name.partition("@")[0]
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", key], check=True
    )
    words = key.with_name(f"{key.name}.pub").read_text().split()
    signers = folder / f"{key.name}.signers"
    signers.write_text(f'{name} namespaces="piggyback" {words[0]} {words[1]}\n')
    return Keys(key, signers)
