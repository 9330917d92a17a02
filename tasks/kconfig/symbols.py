"""A Kconfig tree in memory, by kconfiglib: dependencies, and the result of a set of requests.

Loading the kernel's tree takes two seconds, so this is only used to explain something, not in every
run. This process's environment and working folder stay untouched: the macros of the Kconfig files,
which run compilers, get an environment and a scratch folder of their own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.kconfig.fragments import PREFIX
from tasks.system.errors import PiggyError
from tasks.system.pattern import pattern
from tasks.system.process import run

_SOURCE = pattern(r'\s*source\s+"?([^"\s$]+)"?\s*')
_NOT_PASSED_ON = pattern(r"MAKE.*|MFLAGS|KCONFIG_.*|KBUILD_KCONFIG|PWD|OLDPWD|SHLVL|_")


def kbuild_environment(make: Sequence[str | Path]) -> dict[str, str]:
    """Return the environment of Kbuild's own Kconfig programs: ARCH, SRCARCH, CC, LD, srctree, ...

    Kbuild is asked: KBUILD_KCONFIG (scripts/kconfig/Makefile) names a Kconfig file of ours, whose
    only content is a macro that writes the environment to a file. `listnewconfig` writes no
    configuration. It takes 0.2 s.

    Args:
        make: The command without a target: ("make", "-C", tree, "O=...", "ARCH=...", ...).

    Returns:
        The variables; none for a tree whose Kconfig language has no macros (before Linux 4.18,
        busybox), as its files read none.

    Raises:
        PiggyError: Kbuild did not run the macro.
    """
    if not Path(make[list(make).index("-C") + 1], "scripts/kconfig/preprocess.c").exists():
        return {}
    # Below /tmp, as the path is put into a Kconfig file unquoted.
    with tempfile.TemporaryDirectory(prefix="piggy-", dir="/tmp") as scratch:
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
    """Return the kconfiglib.Kconfig of a tree.

    Args:
        root: The tree.
        env: The environment of the Kconfig files and their commands.
        top: The first file, relative to `root`.
        generated: A folder that is searched before `root` for sourced files: busybox makes its
            Config.in files in O=.

    Raises:
        PiggyError: kconfiglib can't read the tree.
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
            # As do_shell() of scripts/kconfig/preprocess.c.
            return done.output.rstrip("\n").replace("\n", " ")

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
    """Return kconfiglib's class, adapted to this tree, and with the keywords of newer Kconfig."""

    class Reader(kconfiglib.Kconfig):
        # kconfiglib takes these from the process's environment in its constructor.
        srctree = property(lambda self: str(root), lambda self, value: None)
        config_prefix = property(lambda self: PREFIX, lambda self, value: None)
        _srctree_prefix = property(lambda self: f"{root}/", lambda self, value: None)

        def _tokenize(self, line: str) -> Any:
            word = line.strip()
            if word == "modules":  # "option modules" before Linux 5.14
                line = "\toption modules\n"
            elif word == "transitional":  # since Linux 6.18: read from a .config, never written
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
            expr = self._parse_expr(True)  # "depends on A if B", newer than Linux 6.12
            self._check_token(kconfiglib._T_IF)
            return self._make_or(expr, _is_no(kconfiglib, super()._expect_expr_and_eol(), self.n))

        _tokens: Any
        filename: str

        def _enter_file(self, filename: str) -> None:
            super()._enter_file(filename)
            if generated:  # messages name the file relative to its folder
                self.filename = self.filename.removeprefix(f"{generated.resolve()}/")

        def _fn_val(self, args: Any) -> str:
            if args[0] not in self.variables:
                if args[0] == "shell" and len(args) == 2:
                    return shell(args[1])
                if args[0] not in self._functions:
                    return env.get(args[0], "")
            return super()._fn_val(args)

    return Reader


def _is_no(kconfiglib: Any, expr: Any, no: Any, same: bool = True) -> Any:
    """Return the expression for `expr` = n (or != n), distributed over its symbols.

    Source: expr_trans_compare() in scripts/kconfig/expr.c, which menu_add_dep() calls.
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
    """Put the model into the state that Kconfig makes of some lines.

    Like Kconfig it ignores unknown symbols, and values that the type does not allow. Of two members
    of a choice the later wins.

    Args:
        kconf: The model.
        assignments: The lines: symbol to value.
        base: "allnoconfig": other symbols that can be set are n; numbers, strings and choices take
            their defaults (conf_set_all_new_symbols() in scripts/kconfig/conf.c). "": all take
            their defaults, as in alldefconfig.
    """
    kconf.unset_values()
    if base == "allnoconfig":
        for sym in kconf.unique_defined_syms:
            _set_as_allnoconfig(sym)
    assign(kconf, assignments)


def revise(kconf: Any, old: Mapping[str, str], new: Mapping[str, str], base: str = "") -> None:
    """Go from the state assume(old) to the state assume(new), in a fiftieth of the time."""

    def members(lines: Mapping[str, str]) -> list[str]:
        return [name for name in lines if name in kconf.syms and kconf.syms[name].choice]

    touched = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if members(old) != members(new):  # of a choice the last member wins: the order counts
        touched += members(new)
    reset: set[str] = set()
    for name in touched:
        sym = kconf.syms.get(name)
        if not sym or not sym.nodes:
            continue
        if sym.choice:
            sym.choice.unset_value()
        for member in sym.choice.syms if sym.choice else [sym]:
            member.unset_value()
            if base == "allnoconfig":
                _set_as_allnoconfig(member)
            reset.add(member.name)
    assign(kconf, {name: value for name, value in new.items() if name in reset})


def _set_as_allnoconfig(sym: Any) -> None:
    """Give a symbol the value of allnoconfig: n, or y with "option allnoconfig_y"."""
    import kconfiglib

    if sym.orig_type in (kconfiglib.BOOL, kconfiglib.TRISTATE) and not sym.choice:
        sym.set_value(2 if sym.is_allnoconfig_y else 0)


def assign(kconf: Any, assignments: Mapping[str, str]) -> None:
    """Give symbols the values of some lines, on top of the present state."""
    import kconfiglib

    for name, value in assignments.items():
        sym = kconf.syms.get(name)
        if not sym or not sym.nodes:
            continue
        if value.startswith('"'):
            if sym.orig_type == kconfiglib.STRING:
                sym.set_value(kconfiglib.unescape(value[1:-1]))
        elif sym.orig_type != kconfiglib.STRING:
            # kconfiglib wants the mode of a choice set, too; Kconfig derives it from its members.
            if sym.choice and value in ("y", "m"):
                level = kconfiglib.STR_TO_TRI[value]
                sym.choice.set_value(max(level, sym.choice.user_value or 0))
            sym.set_value(value)


def layered(*layers: Mapping[str, str]) -> dict[str, str]:
    """Merge lines: a later layer wins, and determines the position of its lines."""
    lines: dict[str, str] = {}
    for layer in layers:
        lines = {name: value for name, value in lines.items() if name not in layer} | dict(layer)
    return lines


def value(sym: Any) -> str:
    """Return a symbol's present value in the form of a .config file, "" for none."""
    import kconfiglib

    if sym.orig_type == kconfiglib.STRING:
        return f'"{kconfiglib.escape(sym.str_value)}"'
    return sym.str_value if sym.orig_type else "n"


def values(kconf: Any) -> dict[str, str]:
    """Return the present values of all defined symbols."""
    return {sym.name: value(sym) for sym in kconf.unique_defined_syms}


def has_prompt(sym: Any) -> bool:
    """Tell whether a user can set the symbol at all, though its prompt may be hidden now."""
    return any(node.prompt for node in sym.nodes)
