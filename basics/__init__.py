"""What everything stands on: errors for people, files, the configuration, compiled code kept on disk."""
