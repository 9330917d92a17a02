int fw_builtin;
