"""What other people's programs print, read into numbers.

Pure functions from text to records: nothing here runs a program or opens a file, so every format is
tested against recorded output of the versions that are in use (``tests/bench/recordings``). Standard
library only, because some of it travels to the device.
"""
