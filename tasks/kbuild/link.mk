# Asks Kbuild for one link of an image chain. Named in MAKEFILES, so that every make of the run
# reads it first; the rules act only in the make that runs in the object folder (sub_make_done is
# Kbuild's own sign of that).
#
# PIGGYBACK_DIR:  the folder whose Makefile makes the link.
# PIGGYBACK_FILE: the link, from the object folder's top. It may hold variables of that Makefile: it
#                 is expanded in a recipe, when all of it has been read.
# PIGGYBACK_VARS: what the architecture's Makefile hands to that one, in its own variables.
# PIGGYBACK_SAY:  a file for the name so found.
# What trace.mk asks for is told, too: the environment of a recipe of that Makefile.

# Two makes, one after the other: a boot Makefile that adds to an exported variable (KBUILD_CFLAGS
# += ...) would add to it twice, were one called from within the other, and plain make would find
# other commands than its own.

ifdef sub_make_done
.PHONY: piggyback-link piggyback-resolved
piggyback-link:
	@$(MAKE) $(build)=$(PIGGYBACK_DIR) $(PIGGYBACK_VARS) piggyback-resolved
	@$(MAKE) $(build)=$(PIGGYBACK_DIR) $(PIGGYBACK_VARS) $$(cat $(PIGGYBACK_SAY))

piggyback-resolved:
	@echo $(PIGGYBACK_FILE) > $(PIGGYBACK_SAY)
	@$(if $(PIGGYBACK_TRACE),env -0 > $(PIGGYBACK_TRACE)/environment)
endif
