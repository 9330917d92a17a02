# Asks Kbuild how it runs Kconfig: its command and the environment of that. Named in MAKEFILES, so
# that every make of the run reads it first; it acts in the make of scripts/kconfig, which builds
# what the command needs, and then hands the goal's own recipe to ask.sh in place of the shell.
# With other flags than -c, make starts a shell for each line, however simple it is.
#
# PIGGYBACK_ASK:   ask.sh.
# PIGGYBACK_ASKED: a folder for what is told.

ifeq ($(obj),scripts/kconfig)
$(MAKECMDGOALS): private .SHELLFLAGS := $(PIGGYBACK_ASK)
endif
