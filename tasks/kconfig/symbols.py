"""A Kconfig tree in memory, by kconfiglib.

What depends on what, and what a set of requests would come to.

Loading the kernel's takes two seconds, so this is for when something is to be explained, never for
the usual run. Nothing of this process (its environment, its folder) is touched: the macros of the
Kconfig files, which run compilers, get an environment and a scratch folder of their own.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.kconfig.fragments import PREFIX
from tasks.system.errors import PiggyError
from tasks.system.process import run

_SOURCE = re.compile(r'\s*source\s+"?([^"\s$]+)"?\s*')
_NOT_PASSED_ON = re.compile(r"MAKE.*|MFLAGS|KCONFIG_.*|KBUILD_KCONFIG|PWD|OLDPWD|SHLVL|_")


def kbuild_environment(make: Sequence[str | Path]) -> dict[str, str]:
    """Return the variables with which Kbuild calls its own Kconfig programs.

    They are ARCH, SRCARCH, CC, LD, srctree, ...

    make: the command without a target: ("make", "-C", tree, "O=...", "ARCH=...",
          "CROSS_COMPILE=..."). For a tree whose Kconfig language is from before the macros (Linux
          4.17, busybox) the answer is empty: it asks for nothing.

    Kbuild is asked, not copied: KBUILD_KCONFIG (scripts/kconfig/Makefile) names a Kconfig file of
    ours, whose only content is a macro that writes the environment down. `listnewconfig` writes no
    configuration. Takes 0.2 s.
    """
    if not Path(make[list(make).index("-C") + 1], "scripts/kconfig/preprocess.c").exists():
        return {}
    with tempfile.TemporaryDirectory(
        prefix="piggy-", dir="/tmp"
    ) as scratch:  # a path that needs no quoting
        dump = Path(scratch) / "environment"
        kconfig = Path(scratch) / "Kconfig"
        kconfig.write_text(f'mainmenu "$(shell,env -0 >{dump})"\n')
        done = run([*(str(word) for word in make), f"KBUILD_KCONFIG={kconfig}", "listnewconfig"])
        if not dump.exists():
            raise PiggyError(
                "Kbuild did not tell the environment of its Kconfig programs", done.output.strip()
            )
        pairs = [
            entry.partition("=")
            for entry in dump.read_bytes().decode(errors="surrogateescape").split("\0")
        ]
    return {name: value for name, _, value in pairs if name and not _NOT_PASSED_ON.fullmatch(name)}


def load(
    root: Path, env: Mapping[str, str], *, top: str = "Kconfig", generated: Path | None = None
) -> Any:
    """Return the kconfiglib.Kconfig of the tree at `root`.

    env:       the variables that the Kconfig files read and the commands in them get.
    top:       the first file, relative to `root`.
    generated: a folder that is searched before `root` for sourced files (busybox makes its
    Config.in files in O=). Raises PiggyError when kconfiglib can't read the tree.
    """
    import kconfiglib

    root = root.resolve()
    with tempfile.TemporaryDirectory(prefix="piggy-kconfig-") as scratch:

        def shell(command: str) -> str:
            done = run(
                ["/bin/sh", "-c", f"exec 2>/dev/null\n{command}"],
                cwd=Path(scratch),
                env=env,
                check=False,
            )
            return done.output.rstrip("\n").replace(
                "\n", " "
            )  # as in scripts/kconfig/preprocess.c, do_shell()

        try:
            return _reader(kconfiglib, root, {**env, "srctree": str(root)}, generated, shell)(
                top, warn=False
            )
        except (kconfiglib.KconfigError, OSError, RecursionError) as error:
            reason = next(
                (line for line in str(error).splitlines() if line.strip()), type(error).__name__
            )
            raise PiggyError(f"kconfiglib can't read {root / top}: {reason.strip()}") from error


def _reader(
    kconfiglib: Any,
    root: Path,
    env: Mapping[str, str],
    generated: Path | None,
    shell: Callable[[str], str],
) -> type:
    """Return kconfiglib's class, adapted.

    Changed is what it has no parameter for, and newer Kconfig's words are added.
    """

    class Reader(kconfiglib.Kconfig):
        # kconfiglib takes these from the process's environment when it starts to read
        srctree = property(lambda self: str(root), lambda self, value: None)
        config_prefix = property(lambda self: PREFIX, lambda self, value: None)
        _srctree_prefix = property(lambda self: f"{root}/", lambda self, value: None)

        def _tokenize(self, line: str) -> Any:
            word = line.strip()
            if word == "modules":  # since Linux 5.14 an attribute of its own; was "option modules"
                line = "\toption modules\n"
            elif (
                word == "transitional"
            ):  # since Linux 6.18: a symbol that is read but never written
                line = "\n"
            elif (
                generated
                and (source := _SOURCE.fullmatch(line))
                and (generated / source[1]).is_file()
            ):
                line = f'source "{(generated / source[1]).resolve()}"\n'
            return super()._tokenize(line)

        def _expect_expr_and_eol(self) -> Any:
            if kconfiglib._T_IF not in self._tokens or self._tokens[0] is not kconfiglib._T_DEPENDS:
                return super()._expect_expr_and_eol()
            expr = self._parse_expr(True)  # newer than 6.12: "depends on A if B"
            self._check_token(kconfiglib._T_IF)
            return self._make_or(expr, _is_no(kconfiglib, super()._expect_expr_and_eol(), self.n))

        _tokens: Any
        filename: str

        def _enter_file(self, filename: str) -> None:
            super()._enter_file(filename)
            if generated:
                self.filename = self.filename.removeprefix(
                    f"{generated.resolve()}/"
                )  # as users know it

        def _fn_val(self, args: Any) -> str:
            if args[0] not in self.variables:
                if args[0] == "shell" and len(args) == 2:
                    return shell(args[1])
                if args[0] not in self._functions:
                    return env.get(args[0], "")
            return super()._fn_val(args)

    return Reader


def _is_no(kconfiglib: Any, expr: Any, no: Any, same: bool = True) -> Any:
    """Return the expression for `expr` = n, or != n, spread over its symbols.

    Source: scripts/kconfig/expr.c, expr_trans_compare(), which menu_add_dep() calls.
    """
    if expr.__class__ is not tuple:
        return (kconfiglib.EQUAL if same else kconfiglib.UNEQUAL, expr, no)
    if expr[0] == kconfiglib.NOT:
        return _is_no(kconfiglib, expr[1], no, not same)
    if expr[0] in (kconfiglib.AND, kconfiglib.OR):
        other = kconfiglib.OR if expr[0] == kconfiglib.AND else kconfiglib.AND
        both = (other, _is_no(kconfiglib, expr[1], no), _is_no(kconfiglib, expr[2], no))
        return both if same else (kconfiglib.NOT, both)
    return (kconfiglib.NOT, expr) if same else expr


def assume(kconf: Any, assignments: Mapping[str, str], base: str = "") -> None:
    """Put the model into the state that Kconfig gives for these lines.

    base: "allnoconfig" (what is not asked for and can be set is n; numbers, strings and choices
          take their defaults, as in scripts/kconfig/conf.c, conf_set_all_new_symbols) or "" (it
          takes its default, as in alldefconfig).
    Like Kconfig itself it passes over unknown symbols and values that the type does not allow. Of
    two members of a choice the later wins.
    """
    kconf.unset_values()
    if base == "allnoconfig":
        for sym in kconf.unique_defined_syms:
            _refuse(sym)
    assign(kconf, assignments)


def revise(kconf: Any, old: Mapping[str, str], new: Mapping[str, str], base: str = "") -> None:
    """Go from the state assume(old) to the state assume(new).

    The same result, in a fiftieth of the time.
    """

    def members(lines: Mapping[str, str]) -> list[str]:
        return [name for name in lines if name in kconf.syms and kconf.syms[name].choice]

    touched = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if members(old) != members(new):  # their order counts
        touched += members(new)
    again: set[str] = set()
    for name in touched:
        sym = kconf.syms.get(name)
        if not sym or not sym.nodes:
            continue
        if sym.choice:
            sym.choice.unset_value()
        for one in sym.choice.syms if sym.choice else [sym]:
            one.unset_value()
            if base == "allnoconfig":
                _refuse(one)
            again.add(one.name)
    assign(kconf, {name: value for name, value in new.items() if name in again})


def _refuse(sym: Any) -> None:
    import kconfiglib

    if sym.orig_type in (kconfiglib.BOOL, kconfiglib.TRISTATE) and not sym.choice:
        sym.set_value(2 if sym.is_allnoconfig_y else 0)


def assign(kconf: Any, assignments: Mapping[str, str]) -> None:
    """Give symbols the values of these lines, on top of the present state."""
    import kconfiglib

    for name, value in assignments.items():
        sym = kconf.syms.get(name)
        if not sym or not sym.nodes:
            continue
        if value.startswith('"'):
            if sym.orig_type == kconfiglib.STRING:
                sym.set_value(kconfiglib.unescape(value[1:-1]))
        elif sym.orig_type != kconfiglib.STRING:
            if sym.choice and value in (
                "y",
                "m",
            ):  # the mode of a choice follows from its members' values
                level = kconfiglib.STR_TO_TRI[value]
                sym.choice.set_value(max(level, sym.choice.user_value or 0))
            sym.set_value(value)


def layered(*layers: Mapping[str, str]) -> dict[str, str]:
    """Return the lines of several layers as one.

    The later wins, and stands where it stands in its own layer.
    """
    lines: dict[str, str] = {}
    for layer in layers:
        lines = {name: value for name, value in lines.items() if name not in layer} | dict(layer)
    return lines


def value(sym: Any) -> str:
    """Return a symbol's value in the present state, in the form of a .config file ("" for none)."""
    import kconfiglib

    if sym.orig_type == kconfiglib.STRING:
        return f'"{kconfiglib.escape(sym.str_value)}"'
    return sym.str_value if sym.orig_type else "n"


def values(kconf: Any) -> dict[str, str]:
    """Return the values of all defined symbols in the present state."""
    return {sym.name: value(sym) for sym in kconf.unique_defined_syms}


def has_prompt(sym: Any) -> bool:
    """Tell whether a user can set the symbol at all (its prompt may be hidden at present)."""
    return any(node.prompt for node in sym.nodes)
