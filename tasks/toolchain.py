"""The cross toolchain: the distribution's gcc for the kernel; the same with a musl built from source for user space.

    distribution's TRIPLE-gcc -+
    _unpack:musl --------------+-> toolchain -> build/toolchains/ID/  (shared by all machines that need the same)
    kernel's uapi headers -----+                build/MACHINE/toolchain.json  (which one this machine uses)

ID is a hash of all that goes into it: the compiler's own files, musl's source and how it is configured, the headers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from tasks import sources
from tasks.kit import kbuild, ui
from tasks.kit.errors import PiggyError
from tasks.kit.fs import write_whole
from tasks.kit.graph import Job, TaskDict, task
from tasks.kit.lock import Lock
from tasks.kit.project import Project
from tasks.kit.run import Completed, clean_env, run

PROBE = '#include <stdio.h>\n#include <linux/version.h>\nint main(void) { return puts("probe ok") < 0; }\n'
KEY_FILES = ("bin/musl-gcc", "lib/libc.a", "lib/crt1.o", "lib/musl-gcc.specs", "include/linux/version.h")
SEAL = ".sha256"
# The machines of the kernel's `uname -m` that run a 32-bit program of another ARCH as it is.
BINUTILS = ("ar", "as", "ld", "nm", "objcopy", "objdump", "readelf", "strip")
RUNS = {"x86_64": ("x86_64", "i386"), "aarch64": ("arm64",), "riscv64": ("riscv",), "ppc64le": ("powerpc",)}


class Toolchain(msgspec.Struct, frozen=True):
    """A toolchain that was probed.

    prefix:  of the bare compiler and binutils, found on PATH (arm-linux-gnueabi-): what people give as CROSS_COMPILE=, so
             that a make by hand finds the same commands in Kbuild's records.
    cc:      the compiler driver for static programs of user space; "" for a machine that has none.
    version: the compiler's own first line.
    tools:   a digest of the compiler's and the binutils' files, without musl and headers: what other programs made is made
             again, of which make, that compares commands, knows nothing.
    """

    id: str
    provider: str
    prefix: str
    cc: str
    version: str
    tools: str = ""


def record(project: Project) -> Path:
    """The file that says which toolchain the machine uses; everything compiled depends on it."""
    return project.here / "toolchain.json"


def read(project: Project) -> Toolchain:
    """Read the record that the task `toolchain` left."""
    return msgspec.json.decode(record(project).read_bytes(), type=Toolchain)


def tasks(project: Project) -> Iterator[TaskDict]:
    """Yield the task `toolchain`."""
    gcc = f"{project.machine.triple}-gcc"
    programs = [gcc, *(f"{project.machine.triple}-{name}" for name in BINUTILS)]
    if not project.machine.userspace:
        yield task(project, "toolchain", f"cross compiler {gcc}", build_bare, targets=[record(project)], tools=programs,
                   settings={"triple": project.machine.triple})
        return
    files = [sources.stamp(project, "musl")]
    trees = {}
    if project.settings.kernel_src:
        trees["uapi"] = lambda: uapi_state(project)
    else:
        files.append(sources.stamp(project, project.kernel_pin.name))
    yield task(project, "toolchain", f"cross compiler {gcc} with a static musl, probed", build,
               files=files, targets=[record(project)], trees=trees, tools=["make", *programs],
               settings={"triple": project.machine.triple, "cflags": project.machine.cflags,
                         "arch": project.machine.arch, "own": project.kernel_place if project.settings.kernel_src else "",
                         "build": os.path.abspath(project.build)})


def uapi_headers(project: Project) -> list[Path]:
    """The headers that a tree exports: what headers_install is made from."""
    tree = project.kernel_src
    return [path for base in (tree / "include" / "uapi", *sorted(tree.glob("arch/*/include/uapi")))
            for path in sorted(base.rglob("*.h"))]


def uapi_state(project: Project) -> dict[str, str]:
    """The exported headers of the user's own tree, each with its digest; new ones count, too."""
    return {os.path.relpath(path, project.kernel_src): project.stamps.digest(path) for path in uapi_headers(project)}


def build(job: Job) -> dict[str, list[str]]:
    """Find the compiler, make musl and the headers if no toolchain of the same ID exists yet, and probe the result."""
    project = job.project
    prefix, version, parts = compiler(project.machine.triple)
    base = project.build / "toolchains"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".headers.", dir=base) as scratch:
        headers = Path(scratch) / "include"
        install_headers(job, headers)
        recipe = configure_words(project, prefix)
        stamps = [project.stamps.digest(path) for path in parts]
        ident = hashlib.sha256("\n".join([version, *stamps, sources.stamp(project, "musl").read_text(), digest_of(headers),
                                          *recipe, os.path.abspath(base)]).encode()).hexdigest()[:12]
        home = (base / ident).absolute()
        with Lock(base / f".{ident}.lock", os.fspath(home)).held():
            if not intact(home):
                shutil.rmtree(home, ignore_errors=True)
                build_musl(job, home, recipe, headers)
    wrapper = str(home / "bin" / "musl-gcc")
    probe(job, wrapper)
    tool = Toolchain(ident, "distro", prefix, wrapper, version, digest_of_files(version, stamps))
    write_whole(record(project), msgspec.json.format(msgspec.json.encode(tool)))
    ui.line("toolchain", f"{version}, musl, ID {ident}")
    # In the unpacked tree an edit counts. To list it anew at every run, as is done for a tree of one's own, takes 40 ms.
    edited = [] if project.settings.kernel_src else map(str, uapi_headers(project))
    return {"discovered": [*parts, *edited], "made": [str(home / name) for name in KEY_FILES]}


def build_bare(job: Job) -> dict[str, list[str]]:
    """Find the compiler of a machine that has nothing but a kernel."""
    project = job.project
    prefix, version, parts = compiler(project.machine.triple)
    ident = digest_of_files(version, map(project.stamps.digest, parts))
    tool = Toolchain(ident, "distro", prefix, "", version, ident)
    write_whole(record(project), msgspec.json.format(msgspec.json.encode(tool)))
    ui.line("toolchain", f"{version}, ID {ident}")
    return {"discovered": parts}


def digest_of_files(version: str, stamps: Iterable[str]) -> str:
    """A digest of a compiler's version and of its files' digests."""
    return hashlib.sha256("\n".join([version, *stamps]).encode()).hexdigest()[:12]


def intact(home: Path) -> bool:
    """Is the toolchain at `home` there, and are its key files what they were when it was built?"""
    try:
        return (home / SEAL).read_text() == seal(home)
    except OSError:
        return False


def seal(home: Path) -> str:
    """One line with name and hash for each key file."""
    return "".join(f"{hashlib.sha256((home / name).read_bytes()).hexdigest()}  {name}\n" for name in KEY_FILES)


def configure_words(project: Project, prefix: str) -> list[str]:
    """The words for musl's configure, without its places: small, static, with its gcc wrapper (see musl's INSTALL)."""
    flags = " ".join(["-Os", "-pipe", *project.machine.cflags.split()])
    return [f"--target={project.machine.triple}", "--disable-shared", "--enable-wrapper=gcc", f"CC={prefix}gcc",
            f"CROSS_COMPILE={prefix}", f"CFLAGS={flags}"]


def compiler(triple: str) -> tuple[str, str, list[str]]:
    """Find TRIPLE-gcc. Returns its prefix, its version line, and the files that are its identity (driver, cc1, as, ld,
    libgcc, and the binutils on PATH, which makefiles call themselves). Raises PiggyError when it is not installed."""
    path = clean_env()["PATH"]
    gcc = shutil.which(f"{triple}-gcc", path=path)
    if not gcc:
        raise PiggyError(f"the cross compiler {triple}-gcc is not installed",
                         "'doit setup' installs it (package gcc-" + triple.replace("_", "-") + " on Debian)")
    version = run([gcc, "--version"]).output.partition("\n")[0]
    parts = [os.path.realpath(gcc)]
    for question in ("-print-prog-name=cc1", "-print-prog-name=as", "-print-prog-name=ld", "-print-file-name=libgcc.a"):
        answer = run([gcc, question]).output.strip()
        found = answer if os.path.isabs(answer) else shutil.which(answer, path=path)
        if not found or not os.path.exists(found):
            raise PiggyError(f"{gcc} is incomplete: '{gcc} {question}' finds nothing",
                             "reinstall the cross compiler's packages")
        parts.append(os.path.realpath(found))
    found_on_path = [shutil.which(f"{triple}-{name}", path=path) for name in BINUTILS]
    parts += [os.path.realpath(found) for found in found_on_path if found]
    parts = list(dict.fromkeys(parts))
    return f"{triple}-", version, parts


def install_headers(job: Job, include: Path) -> None:
    """Export the kernel's user-space headers (`make headers_install`) into the folder `include`."""
    project = job.project
    with tempfile.TemporaryDirectory(prefix=".hdr.", dir=include.parent) as scratch:
        kbuild.make(project.kernel_src, Path(scratch), ["headers_install"], jobs=project.jobs, log=job.log, env={},
                    variables={"ARCH": project.machine.arch, "INSTALL_HDR_PATH": str(include.parent.absolute())})
    for litter in include.rglob(".*"):
        litter.unlink()


def digest_of(folder: Path) -> str:
    """A digest over names and contents of all files below a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            whole.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return whole.hexdigest()


def build_musl(job: Job, home: Path, recipe: Sequence[str], headers: Path) -> None:
    """Build a static musl with its gcc wrapper, add the kernel headers, and put it all at `home`, whole."""
    project = job.project
    source = project.build.absolute() / "src" / "musl"
    with tempfile.TemporaryDirectory(prefix=f".{home.name}.", dir=home.parent) as scratch:
        work, stage = Path(scratch) / "work", Path(scratch) / "stage"
        work.mkdir()
        with project.jobs.token(), ui.bar("musl", 1310, "files") as progress:
            def seen(line: str) -> None:
                if " -c " in line:
                    progress.step()
            run([str(source.resolve() / "configure"), f"--prefix={home}", f"--syslibdir={home}/lib", *recipe], cwd=work,
                log=job.log)
            run(["make"], cwd=work, log=job.log, on_line=seen, env=project.jobs.environment())
            run(["make", "install", f"DESTDIR={stage}"], cwd=work, log=job.log)
        made = stage / home.relative_to("/")
        shutil.copytree(headers, made / "include", dirs_exist_ok=True)
        (made / SEAL).write_text(seal(made))
        os.replace(made, home)


def probe(job: Job, cc: str) -> None:
    """Compile and link a static program, look that it is static, and run it where this host can. Raises PiggyError."""
    base = job.project.build / "toolchains"  # not /tmp, from which a host may refuse to run anything
    with tempfile.TemporaryDirectory(prefix=".probe.", dir=base) as scratch:
        program = Path(scratch) / "probe"
        source = Path(scratch) / "probe.c"
        source.write_text(PROBE)
        done = run([cc, "-static", "-Os", "-o", str(program), str(source)], log=job.log, check=False)
        if done.returncode:
            raise _untrusted(job, "it can't compile and link a static program", done)
        if "INTERP" in run(["readelf", "-lW", str(program)]).output:
            raise _untrusted(job, "what it links with -static is not static", done)
        if job.project.machine.arch not in RUNS.get(platform.machine(), ()):
            return
        try:
            ran = run([str(program)], log=job.log, check=False)
        except OSError:
            return  # the host's kernel has no support for this kind of program
        if ran.returncode or ran.output.strip() != "probe ok":
            raise _untrusted(job, f"the program that it makes does not run here (status {ran.returncode})", ran)


def _untrusted(job: Job, what: str, done: Completed) -> PiggyError:
    first = next((line for line in done.output.splitlines() if re.search(r"error|cannot|undefined", line)), "")
    return PiggyError(f"the toolchain for {job.project.machine.triple} was refused: {what}",
                      (first + "\n  " if first else "") + f"log: {job.log}")
