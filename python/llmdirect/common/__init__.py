"""Arrays, files, locks, errors and progress that every layer uses."""
