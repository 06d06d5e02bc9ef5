"""What is shown in a browser: clickable figures, the player of episodes, and films."""
