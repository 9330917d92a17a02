"""What configs/, local.toml, the environment and the command line say, as frozen values."""
