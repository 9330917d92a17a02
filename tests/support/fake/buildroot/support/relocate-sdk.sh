#!/bin/sh
# Notes where the toolchain stands now, as Buildroot's own does in each of its text files.
cd "$(dirname "$0")" && pwd > share/buildroot/sdk-location
