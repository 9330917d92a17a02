from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tasks.config.resolve import PLAIN_ENV, OfPreset, Resolved, resolve
from tasks.config.settings import HELP, Settings
from tasks.system.errors import PiggyError
from tasks.system.terminal import printable


@pytest.fixture
def top(tmp_path: Path) -> Path:
    machines = tmp_path / "configs" / "machines"
    machines.mkdir(parents=True)
    (machines / "pc.toml").write_text('description = "x"\n')
    (machines / "versatile.toml").write_text(
        '[settings]\nmemory = 64\nappend = "from the machine"\n'
    )
    return tmp_path


def got(
    top: Path,
    env: Mapping[str, str] | None = None,
    words: Mapping[str, str] | None = None,
    local: str = "",
) -> Resolved:
    if local:
        (top / "local.toml").write_text(local)
    return resolve(top, env or {}, words or {})


def refused(top: Path, *args: Any, **named: Any) -> PiggyError:
    with pytest.raises(PiggyError) as caught:
        got(top, *args, **named)
    return caught.value


def test_defaults(top: Path) -> None:
    found = got(top)
    assert found.values == Settings()
    assert set(found.origins.values()) == {"default"}


def test_every_setting_has_its_help_and_an_origin(top: Path) -> None:
    names = set(Settings.__struct_fields__)
    assert names == set(HELP)
    assert names == set(got(top).origins)


def test_the_rank_of_every_source(top: Path) -> None:
    """Five sources set `append`; each time the last one is removed, the one before it counts."""
    words = {"machine": "versatile", "append": "word"}
    env = {"PIGGYBACK_APPEND": "env"}
    local = (
        'append = "local"\n[machines.versatile]\nappend = "local for it"\n[machines.pc]\nappend ='
        ' "for another"\n'
    )
    found = got(top, env, words, local)
    assert (found.values.append, found.origins["append"]) == ("word", "command line")
    del words["append"]
    found = got(top, env, words)
    assert (found.values.append, found.origins["append"]) == ("env", "environment PIGGYBACK_APPEND")
    found = got(top, {}, words)
    assert (found.values.append, found.origins["append"]) == (
        "local for it",
        "local.toml [machines.versatile]",
    )
    found = got(top, {}, words, 'append = "local"\n')
    assert (found.values.append, found.origins["append"]) == ("local", "local.toml")
    (top / "local.toml").unlink()
    found = got(top, {}, words)
    assert (found.values.append, found.origins["append"]) == (
        "from the machine",
        "configs/machines/versatile.toml [settings]",
    )
    assert (found.values.memory, found.origins["memory"]) == (
        64,
        "configs/machines/versatile.toml [settings]",
    )
    assert (found.values.machine, found.origins["machine"]) == ("versatile", "command line")
    assert got(top).values.append == ""


@pytest.mark.parametrize(
    ("env", "words", "local", "origin"),
    [
        ({}, {}, 'machine = "versatile"', "local.toml"),
        ({"MACHINE": "versatile"}, {}, 'machine = "pc"', "environment MACHINE"),
        (
            {"MACHINE": "pc", "PIGGYBACK_MACHINE": "versatile"},
            {},
            "",
            "environment PIGGYBACK_MACHINE",
        ),
        ({"PIGGYBACK_MACHINE": "pc"}, {"machine": "versatile"}, 'machine = "pc"', "command line"),
    ],
)
def test_wherever_the_machine_is_chosen_its_file_is_read(
    top: Path, env: dict[str, str], words: dict[str, str], local: str, origin: str
) -> None:
    found = got(top, env, words, local)
    assert (found.values.machine, found.values.memory, found.origins["machine"]) == (
        "versatile",
        64,
        origin,
    )


def test_bare_names_in_the_environment_are_few(top: Path) -> None:
    assert (
        got(top, {"JOBS": "7", "BUILD": "/x", "MIRROR": "m", "TIMEOUT": "soon"}).values
        == Settings()
    )
    assert got(top, {"KERNEL_SRC": "/k", "BUSYBOX_SRC": "/b"}).values == Settings(
        kernel_src="/k", busybox_src="/b"
    )


def test_a_bare_name_that_is_empty_counts_as_not_set(top: Path) -> None:
    assert got(top, dict.fromkeys(PLAIN_ENV, "")).values == Settings()


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"MACHINE": "qemuarm"}, "environment MACHINE: there is no machine 'qemuarm'."),
        (
            {"MACHINE": "versatil"},
            "environment MACHINE: there is no machine 'versatil'. Did you mean 'versatile'?",
        ),
        (
            {"TOOLCHAIN": "/opt/gcc"},
            (
                "environment TOOLCHAIN: setting 'toolchain' takes one of distro, path, bootlin,"
                " llvm, buildroot, not '/opt/gcc'."
            ),
        ),
        ({"PIGGYBACK_MACHINE": ""}, "environment PIGGYBACK_MACHINE: there is no machine ''."),
        (
            {"PIGGYBACK_JOB": "4"},
            "environment: unknown setting 'PIGGYBACK_JOB'. Did you mean 'PIGGYBACK_JOBS'?",
        ),
        ({"PIGGYBACK_": "4"}, "environment: unknown setting 'PIGGYBACK_'."),
    ],
)
def test_odd_things_in_the_environment(top: Path, env: dict[str, str], said: str) -> None:
    assert refused(top, env).message.startswith(said)


def test_an_odd_bare_name_can_be_overruled(top: Path) -> None:
    assert got(top, {"MACHINE": "qemuarm"}, {"machine": "versatile"}).values.machine == "versatile"


@pytest.mark.parametrize(
    ("words", "local", "said"),
    [
        ({"kernal": "6.1"}, "", "command line: unknown setting 'kernal'. Did you mean 'kernel'?"),
        ({"KERNEL": "6.1"}, "", "command line: unknown setting 'KERNEL'. Did you mean 'kernel'?"),
        (
            {"kernel-src": "x"},
            "",
            "command line: unknown setting 'kernel-src'. Did you mean 'kernel_src'?",
        ),
        ({"macine": "x"}, "", "command line: unknown setting 'macine'. Did you mean 'machine'?"),
        ({}, "job = 3", "local.toml: unknown setting 'job'. Did you mean 'jobs'?"),
        (
            {},
            "[machine]\npc = 3",
            "local.toml: setting 'machine' takes text, in quotes, not {'pc': 3}.",
        ),
        (
            {},
            "[machines.pc]\njob = 3",
            "local.toml [machines.pc]: unknown setting 'job'. Did you mean 'jobs'?",
        ),
        (
            {},
            "[machines.versatile]\njob = 3",
            "local.toml [machines.versatile]: unknown setting 'job'. Did you mean 'jobs'?",
        ),
        (
            {},
            "[machines.versatil]\njobs = 3",
            (
                "local.toml [machines.versatil]: there is no machine 'versatil'. Did you mean"
                " 'versatile'?"
            ),
        ),
        ({}, "[machines]\npc = 3", "local.toml [machines.pc]: expected a table of settings, got 3"),
        ({}, "machines = 3", "local.toml: 'machines' is a table of tables: [machines.NAME]"),
        (
            {},
            "[machines.pc]\nmachine = 'versatile'",
            "local.toml [machines.pc]: 'machine' can't be set in a table",
        ),
        (
            {"jobs": "4"},
            "jobs = 'x'",
            "local.toml: setting 'jobs' takes",
        ),  # overridden, but still an error
    ],
)
def test_unknown_names_and_misplaced_tables(
    top: Path, words: dict[str, str], local: str, said: str
) -> None:
    assert refused(top, {}, words, local).message.startswith(said)


def test_the_machine_files_own_settings_are_checked(top: Path) -> None:
    path = top / "configs" / "machines" / "pc.toml"
    for text, said in (
        ("[settings]\nmemroy = 3", "unknown setting 'memroy'. Did you mean 'memory'?"),
        (
            "[settings]\nmemory = '3'",
            "setting 'memory' takes a whole number from 0 to 16777216, not '3'.",
        ),
        ("[settings]\nmachine = 'versatile'", "'machine' can't be set in a table"),
        ("settings = 3", "expected a table of settings, got 3"),
    ):
        path.write_text(text)
        assert refused(top).message.startswith(f"configs/machines/pc.toml [settings]: {said}")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("jobs", "8", 8),
        ("jobs", "0", 0),
        ("jobs", "4096", 4096),
        ("timeout", "1", 1),
        ("memory", "007", 7),
        ("offline", "yes", True),
        ("offline", "TRUE", True),
        ("offline", "On", True),
        ("offline", "1", True),
        ("snapshot", "no", False),
        ("snapshot", "False", False),
        ("snapshot", "off", False),
        ("snapshot", "0", False),
        ("initramfs", "xz", "xz"),
        ("mirror", "", ""),
        ("append", "quiet x=y", "quiet x=y"),
        ("kernel", "6.12", "6.12"),
    ],
)
def test_text_becomes_the_settings_type(top: Path, name: str, text: str, value: object) -> None:
    for found in (got(top, {f"PIGGYBACK_{name.upper()}": text}), got(top, {}, {name: text})):
        assert getattr(found.values, name) == value
        assert type(getattr(found.values, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            ("jobs", text)
            for text in (
                "",
                "abc",
                "-1",
                "4097",
                " 8",
                "8 ",
                "1_0",
                "0x10",
                "1e3",
                "+5",
                "\uff19",
                "9" * 30,
            )
        ),
        *(("offline", text) for text in ("", "maybe", "2", " yes", "y")),
        ("timeout", "0"),
        ("timeout", "-5"),
        ("rootfs_size", "-1"),
        ("build", ""),
        ("dl", ""),
        ("kernel", ""),
        ("menu", "menuconfg"),
        ("initramfs", "GZIP"),
        ("accel", ""),
        ("boot", "Disk"),
        ("mirror", "a\udcffb"),
    ],
)
def test_text_of_the_wrong_type(top: Path, name: str, text: str) -> None:
    for origin, error in (
        (
            f"environment PIGGYBACK_{name.upper()}",
            refused(top, {f"PIGGYBACK_{name.upper()}": text}),
        ),
        ("command line", refused(top, {}, {name: text})),
    ):
        assert error.message.startswith(f"{origin}: setting '{name}' takes ")
        assert f"not {text!r}." in error.message
        assert HELP[name] in error.hint
        error.message.encode()  # raises for what is not UTF-8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "store_size = 2",
            "setting 'store_size' takes a size such as 500M or 2G, in quotes, not 2.",
        ),
        (
            "store_size = '2 GB'",
            "setting 'store_size' takes a size such as 500M or 2G, in quotes, not '2 GB'.",
        ),
        (
            "store_size = '-1'",
            "setting 'store_size' takes a size such as 500M or 2G, in quotes, not '-1'.",
        ),
        ("jobs = true", "setting 'jobs' takes a whole number from 0 to 4096, not True."),
        ("jobs = '4'", "setting 'jobs' takes a whole number from 0 to 4096, not '4'."),
        ("jobs = 4.0", "setting 'jobs' takes a whole number from 0 to 4096, not 4.0."),
        ("jobs = -1", "setting 'jobs' takes a whole number from 0 to 4096, not -1."),
        ("memory = -1", "setting 'memory' takes a whole number from 0 to 16777216, not -1."),
        ("offline = 1", "setting 'offline' takes true or false, not 1."),
        ("offline = 'yes'", "setting 'offline' takes true or false, not 'yes'."),
        ("kernel = 6.1", "setting 'kernel' takes text that is not empty, in quotes, not 6.1."),
        ("append = ['quiet']", "setting 'append' takes text, in quotes, not ['quiet']."),
        (
            "accel = 'kvn'",
            "setting 'accel' takes one of auto, kvm, tcg, not 'kvn'. Did you mean 'kvm'?",
        ),
        ("build = ''", "setting 'build' takes text that is not empty, in quotes, not ''."),
        ("machine = 3", "setting 'machine' takes text, in quotes, not 3."),
        (
            "append = 1979-05-27",
            "setting 'append' takes text, in quotes, not datetime.date(1979, 5, 27).",
        ),
    ],
)
def test_toml_of_the_wrong_type(top: Path, line: str, said: str) -> None:
    assert refused(top, local=line).message == f"local.toml: {said}"
    assert refused(top, local=f"[machines.pc]\n{line}").message.startswith(
        "local.toml [machines.pc]: "
    )


@pytest.mark.parametrize("name", ["../pc", "pc/../pc", "/etc/passwd", "no-such", ".", "x" * 61])
def test_a_machine_is_a_name_and_no_path(top: Path, name: str) -> None:
    error = refused(top, {}, {"machine": name})
    assert error.message.startswith(f"command line: there is no machine '{name}'.")
    assert error.hint == "machines: pc, versatile"


def test_local_toml_that_can_not_be_read(top: Path) -> None:
    assert "local.toml is not valid TOML" in refused(top, local="jobs =").message
    (top / "local.toml").unlink()
    (top / "local.toml").mkdir()
    assert "local.toml can't be read" in refused(top).message


def test_defaults_keep_their_own_rules() -> None:
    assert msgspec.convert(msgspec.structs.asdict(Settings()), Settings) == Settings()


def put(path: Path, what: str) -> None:
    """Create something that is not a regular file at a path."""
    path.unlink(missing_ok=True)
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "dangling": lambda: path.symlink_to("nowhere"),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path.name),
    }[what]()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pipe", "can't be read: it is no regular file"),
        ("folder", "can't be read: it is no regular file"),
        ("device", "can't be read: it is no regular file"),
        ("dangling", "is a link to nothing"),
        ("loop", "can't be read: "),
    ],
)
@pytest.mark.parametrize("name", ["local.toml", "configs/machines/pc.toml"])
def test_what_lies_in_place_of_a_settings_file(top: Path, name: str, what: str, said: str) -> None:
    put(top / name, what)
    message = refused(top).message
    assert message.startswith(f"{top / name} {said}")
    assert "\n" not in message


def test_local_toml_may_be_a_link(top: Path, tmp_path: Path) -> None:
    (tmp_path / "dotfile").write_text("memory = 7\n")
    (top / "local.toml").symlink_to(tmp_path / "dotfile")
    assert got(top).values.memory == 7


@pytest.mark.parametrize(
    ("local", "said"),
    [
        ('append = "a\\u0000b"', "'append' holds a NUL character"),
        ('"x\\U00000000" = 1', "'x\\x00' holds a NUL character"),
        ('[machines.pc]\nforward = "\\u0000"', "'machines.pc.forward' holds a NUL character"),
        ("memory = " + "9" * 5000, "is not valid TOML: "),
        ("memory = " + "9" * 4000, "takes a whole number from 0 to 16777216, not "),
        ("x = " + "[" * 5000, "brackets are nested too deeply"),
        ("append = " + "[" * 20 + "1" * 900 + "]" * 20, "takes text, in quotes, not [[["),
        ('append = "\ufeff\\u001b"\nx = 1', "unknown setting 'x'"),
    ],
)
def test_toml_of_odd_content(top: Path, local: str, said: str) -> None:
    error = refused(top, local=local)
    assert said in error.message
    assert len(error.message) < 300


def test_a_nul_as_text_is_no_nul(top: Path) -> None:
    assert got(top, local="append = '\\u0000'").values.append == "\\u0000"


@pytest.mark.parametrize(
    "name",
    [
        "build",
        "dl",
        "store",
        "kernel_src",
        "busybox_src",
        "src",
        "mirror",
        "fragments",
        "overlays",
        "buildroot_src",
        "buildroot_fragments",
        "toolchain_prefix",
    ],
)
def test_nobodys_home(top: Path, name: str) -> None:
    error = refused(top, {}, {name: "~nosuchuser/x"})
    assert error.message == f"command line: {name}='~nosuchuser/x': there is no user 'nosuchuser'"
    assert "./~nosuchuser" in error.hint
    got(top, {}, {name: "./~nosuchuser/x"})


def test_the_second_of_a_list_is_looked_at_too(top: Path) -> None:
    assert (
        "there is no user 'nosuchuser'"
        in refused(top, {}, {"fragments": "net, ~nosuchuser/x"}).message
    )
    got(top, {}, {"append": "~nosuchuser"})  # `append` is no path


def test_a_home_that_is_no_text(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/tmp/\udce9")
    assert (
        refused(top, {}, {"dl": "~/x"}).message
        == "command line: dl='~/x' stands for a path that is not UTF-8: /tmp/\\udce9/x"
    )


@pytest.mark.parametrize(
    ("env", "words", "said"),
    [
        ({}, {"": "x"}, "command line: unknown setting ''."),
        ({}, {"memory": ""}, "command line: setting 'memory' takes a whole number"),
        ({}, {"memory": "9" * 5000}, "command line: setting 'memory' takes a whole number"),
        ({}, {"jobs": "x" * 100_000}, "command line: setting 'jobs' takes a whole number"),
        ({}, {"y" * 100_000: "1"}, "command line: unknown setting 'yyy"),
        (
            {},
            {"kern\udcffel": "1"},
            "command line: unknown setting 'kern\\udcffel'. Did you mean 'kernel'?",
        ),
        ({}, {"a\x1b[2J": "1"}, "command line: unknown setting 'a\\x1b[2J'."),
        ({"PIGGYBACK_A\x1b": "1"}, {}, "environment: unknown setting 'PIGGYBACK_A\\x1b'."),
        (
            {"PIGGYBACK_APPEND": "\udcff"},
            {},
            "environment PIGGYBACK_APPEND: setting 'append' takes text, not '\\udcff'.",
        ),
        (
            {"MACHINE": "x\x1b]0;t\x07"},
            {},
            "environment MACHINE: there is no machine 'x\\x1b]0;t\\x07'.",
        ),
    ],
)
def test_words_of_odd_forms(
    top: Path, env: dict[str, str], words: dict[str, str], said: str
) -> None:
    error = refused(top, env, words)
    assert error.message.startswith(said)
    assert len(error.message) < 300
    assert printable(str(error)) == str(error)


def test_a_password_in_a_value_of_the_wrong_type_is_not_shown(top: Path) -> None:
    (top / "local.toml").write_text('mirror = ["http://u:s3cret@h/"]\n')
    with pytest.raises(PiggyError) as caught:
        resolve(top, {}, {})
    assert "not ['http://h/']" in str(caught.value)


PRESETS = """[settings]
memory = 64
[presets.fast]
initramfs = "none"
memory = 32
[presets.other]
initramfs = "xz"
"""


def test_a_fragment_of_the_setting_brings_the_machines_table_of_its_name(top: Path) -> None:
    (top / "configs" / "machines" / "pc.toml").write_text(PRESETS)
    assert got(top).values.initramfs == "gzip"
    words = {"fragments": "lean, fast?"}
    found = got(top, words=words)
    assert (found.values.initramfs, found.values.memory) == ("none", 32)
    assert found.origins["initramfs"] == "configs/machines/pc.toml [presets.fast]"
    assert isinstance(found.origins["initramfs"], OfPreset)
    assert not isinstance(found.origins["machine"], OfPreset)
    assert got(top, words={"fragments": "fast,other"}).values.initramfs == "xz"
    assert got(top, words=words | {"memory": "16"}).values.memory == 16
    found = got(top, words={"initramfs": "lz4"}, local='fragments = "fast"\nmemory = 8\n')
    assert (found.values.initramfs, found.values.memory) == ("lz4", 8)
    assert got(top, words={"fragments": "elsewhere/fast.config"}).values.initramfs == "gzip"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('fragments = "x"', "that it calls for"),
        ('inittramfs = "none"', "initramfs"),
        ('machine = "versatile"', "'machine' can't be set"),
        ('memory = "much"', "'memory' takes"),
    ],
)
def test_what_a_preset_can_not_set_is_refused_without_its_fragment_too(
    top: Path, line: str, said: str
) -> None:
    (top / "configs" / "machines" / "pc.toml").write_text(f"[presets.fast]\n{line}\n")
    for words in ({"fragments": "fast"}, {"fragments": "lean"}, {}):
        error = str(refused(top, words=words))
        assert said in error
        assert "configs/machines/pc.toml [presets.fast]" in error
    got(top, words={"machine": "versatile"})
