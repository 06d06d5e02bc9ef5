"""Training: the loop and its losses; a run's folder, its metrics and how it stops."""
