# Lets every make of a run say, for each target whose recipe it looks at, what it takes the target
# to be made from ($^), without what the saved dependencies say anyway. Kbuild looks at the recipe
# of each target in each run: all of them have FORCE among their prerequisites. Make expands SHELL
# for each line of a recipe, with the target's own variables. Named in MAKEFILES, so that every make
# reads it first.
#
# Before these, a make that builds a folder says how it was called, after a colon. With its first
# recipe, each make says after two colons which folders without an archive it goes into, and which
# makefiles it read.
#
# For each object it creates an empty file in the folder begun/ at the first line of the recipe. The
# time of that is when the recipe began: make expands SHELL when it has a job slot (new_job and
# start_job_command in make's job.c). A "/" of the object's name is a "!" there.
#
# PIGGYBACK_TRACE: a folder for what is said, a file for each make, so that no two write into one.
# PIGGYBACK_TOP:   the object folder; a make that runs elsewhere (tools/) has other names, and is
#                  passed over.

ifdef PIGGYBACK_TRACE
ifeq ($(CURDIR),$(PIGGYBACK_TOP))
piggyback-file = $(PIGGYBACK_TRACE)/$(MAKELEVEL)-$(subst /,!,$(obj))
piggyback-made-from = $(filter-out $(deps_$@) $(source_$@),$^)
piggyback-said = $(file >>$(piggyback-file),$@ : $(piggyback-made-from))
piggyback-read = $(sort $(subdir-y) $(subdir-m)) :: $(filter-out %.cmd,$(MAKEFILE_LIST))
piggyback-once = $(eval piggyback-told := y)$(file >>$(piggyback-file),:: $(piggyback-read))
piggyback-begun = $(PIGGYBACK_TRACE)/begun/$(subst /,!,$@)
piggyback-begin = $(if $(piggyback-$@),,$(eval piggyback-$@ := 1)$(file >$(piggyback-begun)))
piggyback-all = $(if $(piggyback-told),,$(piggyback-once))$(piggyback-said)
SHELL = $(if $@,$(piggyback-all))$(if $(filter %.o,$@),$(piggyback-begin))/bin/sh
$(if $(obj),$(file >>$(piggyback-file),: $(MAKECMDGOALS) : $(MAKEOVERRIDES)))
endif
ifdef sub_make_done
.PHONY: piggyback-env
piggyback-env:
	@env -0 > $(PIGGYBACK_TRACE)/environment
endif
endif
