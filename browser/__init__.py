"""What is shown in a browser: clickable figures, the player of episodes, films, and the report of one page."""
