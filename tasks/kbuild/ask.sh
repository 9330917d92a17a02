# Write down a command that make would run, and its environment, instead of running it. See ask.mk.
printf '%s\0' "$1" >>"$PIGGYBACK_ASKED/commands" && env -0 >"$PIGGYBACK_ASKED/environment"
