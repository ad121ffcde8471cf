"""The pure part of managed cron: values in, values and effects out, no I/O and no clock."""
